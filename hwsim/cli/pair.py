"""`hwsim pair WORKLOAD --hw PROMPTS --token-hw TOKENS`: two machines on one request."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.Hardware,
    token_hw: Annotated[
        str | None, typer.Option("--token-hw", metavar="NAME", help="Machine of tokens [--hw].")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", help='Rate of one device, e.g. "50 GB/s" [scale-out link of --hw].')
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="serial, layerwise or best.")] = "best",
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    efficiency: o.Efficiency = "calibrated",
    set_: o.Set = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="table or json.")] = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """First, second and later tokens, and what of the hand-over is left to see."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.api import pair

    found = pair(
        workload, hw, token_on=token_hw, network=network, mode=mode, batch=batch, prompt=prompt, output=output,
        weights=weights, kv_cache=kv_cache, tp=tp, efficiency=efficiency, what_if=o.parse_set(set_),
    )  # fmt: skip
    o.emit(o.to_json(found.to_dict()) if form == "json" else str(found), out, force)
