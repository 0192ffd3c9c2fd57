"""`hwsim evaluate WORKLOAD --hw NAME`: one point."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Run(g.Group):
    """How the point is priced."""

    engine: Annotated[str, typer.Option("--engine", help="analytic, or des for the event-driven timeline.")] = (
        "analytic"
    )
    efficiency: o.Efficiency = "calibrated"
    price: o.Price = None
    memory_fraction: Annotated[float, typer.Option("--memory-fraction", help="Share of memory that may be used.")] = 0.9
    set_: o.Set = None


@g.grouped
def command(
    workload: o.Workload,
    hw: o.Hardware,
    request: g.Request,
    layout: g.Layout,
    mapping: g.Mapping,
    run: Run,
    to: g.Destination,
) -> None:
    """Time, memory, energy and cost of a model on hardware, each with its floor and ceiling."""
    form = to.form("table", "json", "csv", "html")
    from hwsim.api import evaluate

    result = evaluate(workload, hw, **g.keywords(request, layout, mapping, run))
    to.emit(render(result.document, form))


def render(document: dict[str, object], form: str) -> str:
    """An estimate document as text of one format."""
    if form == "json":
        return o.to_json(document)
    if form == "csv":
        from hwsim.report.frames import csv_text

        return csv_text(document)
    if form == "html":
        from hwsim.report.html import page

        return page(document)
    from hwsim.report.table import estimate_table

    return estimate_table(document)
