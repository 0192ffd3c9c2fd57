"""`hwsim map MODEL --mapper parallelism --devices N`: how to split a model over devices."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.errors import InputError

# Options that every plan takes as `hwsim.evaluate` does.
_PRICED: Final = ("prompt", "output", "what_if", "weights", "activations", "kv_cache", "efficiency", "price")


class Machine(g.Group):
    """Over what the model is split."""

    hw: Annotated[str, typer.Option("--hw", metavar="NAME", help="Accelerator, node or cluster.")] = ""
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="NAME:RANKS", help="Instead of --hw: one stage of a pipeline; repeatable."),
    ] = None
    mapper: Annotated[str, typer.Option("--mapper", help="parallelism.")] = "parallelism"
    devices: Annotated[int | None, typer.Option("--devices", help="Devices to use [all of the machine].")] = None
    max_tp: Annotated[
        int | None, typer.Option("--max-tp", help="No wider tensor groups, e.g. the devices of a node.")
    ] = None


class Goal(g.Group):
    """For what, under which limits and load."""

    objective: Annotated[
        str, typer.Option("--objective", help="throughput (per device), latency, energy or cost (per token).")
    ] = "throughput"
    slo: Annotated[str | None, typer.Option("--slo", help="Limits, e.g. ttft=1s,tpot=50ms.")] = None
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", "-b", help="Sequences on all devices; repeatable [a grid]."),
    ] = None
    batching: Annotated[
        str, typer.Option("--batching", help="static: all prompts at once; continuous: clients in a closed loop.")
    ] = "static"


class Tokens(g.Group):
    """Lengths of a sequence."""

    prompt: o.Prompt = None
    output: o.Output = 128


class Run(g.Formats, Tokens):
    """One sequence, its formats and prices; of the two bases, the last comes first."""

    efficiency: o.Efficiency = "calibrated"
    price: o.Price = None


class Choice(g.Group):
    """Who chooses, and how long."""

    budget: Annotated[str | None, typer.Option("--budget", help="Wall time of the choice, e.g. 2s.")] = None
    chooser: Annotated[
        str | None,
        typer.Option("--chooser", metavar="FILE", help="A layout mapper of your own (docs/recipes/mapper.md)."),
    ] = None


class Training(g.Group):
    """Training instead of serving."""

    train: Annotated[
        int | None, typer.Option("--train", metavar="SEQUENCES", help="Training: sequences an optimizer step.")
    ] = None
    zero: Annotated[int, typer.Option("--zero", help="Training: ZeRO stage, 0 to 3.")] = 1
    recompute: Annotated[bool, typer.Option("--recompute", help="Training: recompute all activations.")] = False
    set_: o.Set = None


class Options(Training, Choice, Run, Goal, Machine):
    """Of all three questions; --help lists the last base first."""


@g.grouped
def command(workload: o.Workload, options: Options, to: g.Destination) -> None:
    """Split a model over devices: tensor, pipeline, data, expert and sequence parallelism under memory and SLO."""
    form = to.form("table", "json", "html")
    if options.stage:
        result = _stages(workload, options)
    elif not options.hw:
        fix = "--hw dgx-h100, or --stage h100-sxm:4 --stage l40s:4"
        raise InputError("no hardware given", where="--hw", fix=fix)
    elif options.train is not None:
        result = _training(workload, options)
    else:
        result = _serving(workload, options)
    to.emit(_rendered(result, form))


def _rendered(result: Any, form: str) -> str:
    """A plan as text of one format."""
    if form == "json":
        return o.to_json(result.document)
    if form == "html":
        from hwsim.report.layouts_page import plan_page

        return plan_page(result.document)
    return str(result)


def _stages(workload: str, options: Options) -> Any:
    """A pipeline of given stages."""
    from hwsim.api import plan_stages

    _refuse("--stage", options, "hw", "train", "chooser", "devices", "slo", "budget", "max_tp")
    sizes = options.batch or [1]
    if len(sizes) > 1:
        raise InputError("stages take one batch", where="--batch", seen=str(sizes), fix="one --batch")
    return plan_stages(workload, options.stage or (), batch=sizes[0], **options.pick(*_PRICED))


def _training(workload: str, options: Options) -> Any:
    """A layout for training."""
    from hwsim.api import plan_training

    _refuse("--train", options, "batch", "slo", "budget", "chooser", "price")
    _refuse("--train", options, "kv_cache", "activations", "max_tp")
    kept = options.pick("zero", "recompute", "devices", "prompt", "what_if", "efficiency")
    return plan_training(workload, options.hw, weights=options.weights or "bf16", global_batch=options.train, **kept)


def _serving(workload: str, options: Options) -> Any:
    """A layout for serving."""
    from hwsim.api import plan

    asked = options.pick("objective", "batching", "devices", "slo", "budget", "max_tp", *_PRICED)
    return plan(
        workload, options.hw, batch=tuple(options.batch or ()), mapper=options.chooser or options.mapper, **asked
    )


def _refuse(option: str, options: Options, *names: str) -> None:
    """Options that have no meaning beside `option` are refused, not ignored. Raises InputError."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if given:
        raise InputError(f"{', '.join(given)} cannot be used with {option}", where=option)
