"""`hwsim timeline WORKLOAD --hw NAME`: one phase on the clock of the event engine, with an overlap technique."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.errors import InputError


class Technique(g.Group):
    """What runs beside what."""

    streams: Annotated[
        str, typer.Option("--streams", help="device (one), links (collectives apart), kinds (and decode attention).")
    ] = "links"
    parts: Annotated[int, typer.Option("--parts", help="Parts of the batch side by side (nano-batches).")] = 1
    unit_share: Annotated[
        float, typer.Option("--unit-share", help="Share of the compute units that a collective takes.")
    ] = 0.0
    micro_batches: Annotated[int | None, typer.Option("--micro-batches", help="Of a pipeline [one a stage].")] = None
    prefetch: Annotated[
        str | None, typer.Option("--prefetch", metavar="LINK", help="Weights of each layer come over this link.")
    ] = None
    depth: Annotated[int, typer.Option("--depth", help="Layers that are loaded ahead.")] = 1
    share: Annotated[
        list[str] | None,
        typer.Option("--share", metavar="RESOURCE=PART", help="Part of a resource left to this job. Repeatable."),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Those of `hwsim.explore.timelines.Technique`. Raises InputError."""
        given = super().keywords()
        return {"capacity": parse_shares(given.pop("share")), **given}


class Run(g.Layout):
    """How the tasks are priced."""

    efficiency: o.Efficiency = "calibrated"
    set_: o.Set = None


class Drawing(g.Destination):
    """A chart or a trace too."""

    format_: Annotated[str, typer.Option("--format", "-f", help="table, json, html or trace (Perfetto).")] = "table"


@g.grouped
def command(
    workload: o.Workload,
    hw: o.Hardware,
    phase: Annotated[str | None, typer.Option("--phase", help="prefill, decode or forward [decode].")] = None,
    *,
    technique: Technique,
    request: g.Request,
    run: Run,
    to: Drawing,
) -> None:
    """Makespan between critical path and serial sum, what overlap saves, how busy each resource is."""
    form = to.form("table", "json", "html", "trace")
    from hwsim.api import timeline

    found = timeline(workload, hw, phase=phase, technique=technique.keywords(), **g.keywords(request, run))
    request.say_unused(workload, found.document["phase"])
    to.emit(found.trace() if form == "trace" else _render(found.document, form))


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
