"""`hwsim evaluate WORKLOAD --hw NAME`: one point."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.Hardware,
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
    mapper: o.Mapper = "roofline",
    map_objective: o.MapObjective = None,
    map_budget: o.MapBudget = None,
    engine: Annotated[
        str, typer.Option("--engine", help="analytic, or des for the event-driven timeline.")
    ] = "analytic",
    efficiency: o.Efficiency = "calibrated",
    price: o.Price = None,
    memory_fraction: Annotated[
        float, typer.Option("--memory-fraction", help="Share of memory that may be used.")
    ] = 0.9,
    set_: o.Set = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Time, memory, energy and cost of a model on hardware, each with its floor and ceiling."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv", "html"))
    from hwsim.api import evaluate

    result = evaluate(
        workload,
        hw,
        batch=batch,
        prompt=prompt,
        output=output,
        what_if=o.parse_set(set_),
        weights=weights,
        activations=activations,
        kv_cache=kv_cache,
        tp=tp,
        pp=pp,
        ep=ep,
        dp=dp,
        sp=sp,
        **o.mapping_options(mapper, map_objective, map_budget),
        engine=engine,
        efficiency=efficiency,
        price=price,
        memory_fraction=memory_fraction,
    )
    o.emit(render(result.document, form), out, force)


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
