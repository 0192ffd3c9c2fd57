"""`hwsim map MODEL --mapper parallelism --devices N`: how to split a model over devices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.errors import InputError


def command(
    workload: o.Workload,
    hw: Annotated[str, typer.Option("--hw", metavar="NAME", help="Accelerator, node or cluster.")] = "",
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="NAME:RANKS", help="Instead of --hw: one stage of a pipeline; repeatable."),
    ] = None,
    mapper: Annotated[str, typer.Option("--mapper", help="parallelism.")] = "parallelism",
    devices: Annotated[int | None, typer.Option("--devices", help="Devices to use [all of the machine].")] = None,
    max_tp: Annotated[
        int | None, typer.Option("--max-tp", help="No wider tensor groups, e.g. the devices of a node.")
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="throughput (per device), latency, energy or cost (per token).")
    ] = "throughput",
    slo: Annotated[str | None, typer.Option("--slo", help="Limits, e.g. ttft=1s,tpot=50ms.")] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", "-b", help="Sequences on all devices; repeatable [a grid]."),
    ] = None,
    batching: Annotated[
        str, typer.Option("--batching", help="static: all prompts at once; continuous: clients in a closed loop.")
    ] = "static",
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
    train: Annotated[
        int | None, typer.Option("--train", metavar="SEQUENCES", help="Training: sequences an optimizer step.")
    ] = None,
    zero: Annotated[int, typer.Option("--zero", help="Training: ZeRO stage, 0 to 3.")] = 1,
    recompute: Annotated[bool, typer.Option("--recompute", help="Training: recompute all activations.")] = False,
    set_: o.Set = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Split a model over devices: tensor, pipeline, data, expert and sequence parallelism under memory and SLO."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim import api

    common: dict[str, Any] = {
        "prompt": prompt,
        "output": output,
        "what_if": o.parse_set(set_),
        "weights": weights,
        "activations": activations,
        "kv_cache": kv_cache,
        "efficiency": efficiency,
        "price": price,
    }
    asked = {"devices": devices, "slo": slo, "budget": budget, "max_tp": max_tp}
    if stage:
        _refuse("--stage", {"--hw": hw, "--train": train, "--chooser": chooser, **_named(asked)})
        result = api.plan_stages(workload, stage, batch=_one(batch), **common)
    elif not hw:
        fix = "--hw dgx-h100, or --stage h100-sxm:4 --stage l40s:4"
        raise InputError("no hardware given", where="--hw", fix=fix)
    elif train is not None:
        _refuse("--train", {"--batch": batch, "--slo": slo, "--budget": budget, "--chooser": chooser, "--price": price})
        _refuse("--train", {"--kv-cache": kv_cache, "--activations": activations, "--max-tp": max_tp})
        recipe = {"global_batch": train, "zero": zero, "recompute": recompute, "devices": devices}
        kept = {name: common[name] for name in ("prompt", "what_if", "efficiency")}
        result = api.plan_training(workload, hw, weights=weights or "bf16", **recipe, **kept)
    else:
        batches = tuple(batch or ())
        result = api.plan(
            workload,
            hw,
            batch=batches,
            mapper=chooser or mapper,
            objective=objective,
            batching=batching,
            **asked,
            **common,
        )
    o.emit(o.to_json(result.document) if form == "json" else str(result), out, force)


def _named(asked: dict[str, Any]) -> dict[str, Any]:
    return {f"--{name.replace('_', '-')}": value for name, value in asked.items()}


def _one(batch: list[int] | None) -> int:
    """The one batch of a pipeline of given stages."""
    sizes = batch or [1]
    if len(sizes) > 1:
        raise InputError("stages take one batch", where="--batch", seen=str(sizes), fix="one --batch")
    return sizes[0]


def _refuse(option: str, others: dict[str, Any]) -> None:
    """Options that have no meaning beside `option` are refused, not ignored."""
    given = [name for name, value in others.items() if value]
    if given:
        raise InputError(f"{', '.join(given)} cannot be used with {option}", where=option)
