"""`hwsim speculate WORKLOAD --hw NAME --draft MODEL`: guesses of a small model, checked by a large one."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.Hardware,
    draft: Annotated[str, typer.Option("--draft", metavar="MODEL", help="Model that guesses.")],
    draft_hw: Annotated[str | None, typer.Option("--draft-hw", metavar="NAME", help="Its machine [--hw].")] = None,
    draft_weights: Annotated[str | None, typer.Option("--draft-weights", help="Weight format of the draft.")] = None,
    draft_tokens: Annotated[int, typer.Option("--draft-tokens", help="Guesses a round.")] = 4,
    acceptance: Annotated[float, typer.Option("--acceptance", help="Chance that a guess is right.")] = 0.8,
    overlap: Annotated[
        float, typer.Option("--overlap", help="Share of a check beside which the draft guesses on (Mirror-SD).")
    ] = 0.0,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    efficiency: o.Efficiency = "calibrated",
    format_: Annotated[str, typer.Option("--format", "-f", help="table or json.")] = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Time of a round, tokens that it gives, and the speed over plain decoding."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.api import speculate

    found = speculate(
        workload, hw, draft=draft, draft_on=draft_hw, draft_tokens=draft_tokens, acceptance=acceptance,
        overlap=overlap, draft_options={"weights": draft_weights} if draft_weights else None, batch=batch,
        prompt=prompt, output=output, weights=weights, kv_cache=kv_cache, tp=tp, efficiency=efficiency,
    )  # fmt: skip
    o.emit(o.to_json(found.to_dict()) if form == "json" else str(found), out, force)
