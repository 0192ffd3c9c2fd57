"""`hwsim map MODEL --mapper parallelism --devices N`: how to split a model over devices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.Hardware,
    mapper: Annotated[str, typer.Option("--mapper", help="parallelism.")] = "parallelism",
    devices: Annotated[int | None, typer.Option("--devices", help="Devices to use [all of the machine].")] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="throughput (per device), latency, energy or cost (per token).")
    ] = "throughput",
    slo: Annotated[str | None, typer.Option("--slo", help="Limits, e.g. ttft=1s,tpot=50ms.")] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", "-b", help="Sequences on all devices; repeatable [a grid]."),
    ] = None,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    efficiency: o.Efficiency = "calibrated",
    price: o.Price = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Wall time of the choice, e.g. 2s.")] = None,
    chooser: Annotated[
        str | None,
        typer.Option("--chooser", metavar="FILE", help="A layout mapper of your own (docs/recipes/mapper.md)."),
    ] = None,
    set_: o.Set = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Split a model over devices: tensor, pipeline, data, expert and sequence parallelism under memory and SLO."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.api import plan

    result = plan(
        workload,
        hw,
        devices=devices,
        objective=objective,
        slo=slo,
        batch=tuple(batch or ()),
        mapper=chooser or mapper,
        budget=budget,
        prompt=prompt,
        output=output,
        what_if=o.parse_set(set_),
        weights=weights,
        activations=activations,
        kv_cache=kv_cache,
        efficiency=efficiency,
        price=price,
    )
    o.emit(render(result.document, form), out, force)


def render(document: dict[str, Any], form: str) -> str:
    """A parallelism document as text of one format."""
    if form == "json":
        return o.to_json(document)
    from hwsim.report.parallelism import parallelism_table

    return parallelism_table(document)
