"""`hwsim timeline WORKLOAD --hw NAME`: one phase on the clock of the event engine, with an overlap technique."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.errors import InputError


def command(
    workload: o.Workload,
    hw: o.Hardware,
    phase: Annotated[str | None, typer.Option("--phase", help="prefill, decode or forward [decode].")] = None,
    streams: Annotated[
        str, typer.Option("--streams", help="device (one), links (collectives apart), kinds (and decode attention).")
    ] = "links",
    parts: Annotated[int, typer.Option("--parts", help="Parts of the batch side by side (nano-batches).")] = 1,
    unit_share: Annotated[
        float, typer.Option("--unit-share", help="Share of the compute units that a collective takes.")
    ] = 0.0,
    micro_batches: Annotated[int | None, typer.Option("--micro-batches", help="Of a pipeline [one a stage].")] = None,
    prefetch: Annotated[
        str | None, typer.Option("--prefetch", metavar="LINK", help="Weights of each layer come over this link.")
    ] = None,
    depth: Annotated[int, typer.Option("--depth", help="Layers that are loaded ahead.")] = 1,
    share: Annotated[
        list[str] | None,
        typer.Option("--share", metavar="RESOURCE=PART", help="Part of a resource left to this job. Repeatable."),
    ] = None,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    pp: o.Pp = 1,
    ep: o.Ep = 1,
    dp: o.Dp = 1,
    sp: o.Sp = False,
    efficiency: o.Efficiency = "calibrated",
    set_: o.Set = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="table, json, html or trace (Perfetto).")] = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Makespan between critical path and serial sum, what overlap saves, how busy each resource is."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "html", "trace"))
    technique = {
        "streams": streams, "parts": parts, "unit_share": unit_share, "micro_batches": micro_batches,
        "prefetch": prefetch, "depth": depth, "capacity": parse_shares(share),
    }  # fmt: skip
    from hwsim.api import timeline

    found = timeline(
        workload, hw, phase=phase, technique=technique, batch=batch, prompt=prompt, output=output,
        what_if=o.parse_set(set_), weights=weights, activations=activations, kv_cache=kv_cache, tp=tp, pp=pp, ep=ep,
        dp=dp, sp=sp, efficiency=efficiency,
    )  # fmt: skip
    o.emit(found.trace() if form == "trace" else _render(found.document, form), out, force)


def parse_shares(texts: list[str] | None) -> dict[str, float]:
    """``["link=0.5"]`` as numbers. Raises InputError."""
    table: dict[str, float] = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        try:
            table[name.strip()] = float(value)
        except ValueError:
            raise InputError(
                "--share needs RESOURCE=PART", where="--share", seen=text, fix="--share link=0.5"
            ) from None
    return table


def _render(document: dict[str, Any], form: str) -> str:
    if form == "json":
        return o.to_json(document)
    from hwsim.report import timeline

    return timeline.page(document) if form == "html" else timeline.table_text(document)
