"""Options that several verbs share, in groups: one parameter of a command stands for all options of its group.

A group is a class whose attributes are annotated as parameters of a typer command are. `grouped` unfolds it: for ::

    @grouped
    def command(workload: o.Workload, load: Load) -> None: ...

typer sees the options ``--batch --prompt --output`` in the place of `load`, with the attributes' defaults and help, and
the body receives one `Load`. (Dataclasses would do; they cost 6 ms of every start.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from hwsim.cli import options as o


class Group:
    """Base of the groups; an instance holds what the command line gave."""

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)

    def keywords(self) -> dict[str, Any]:
        """The options as keyword arguments of the public function that they are for; raises InputError, UnitError."""
        given = dict(vars(self))
        if "set_" in given:
            given["what_if"] = o.parse_set(given.pop("set_"))
        return given

    def pick(self, *names: str) -> dict[str, Any]:
        """Some of the `keywords`. Raises as they do."""
        given = self.keywords()
        return {name: given[name] for name in names}


class Load(Group):
    """How much of everything runs together."""

    batch: o.Batch = 1
    prompt: o.Prompt = None
    output: o.OwnOutput = None

    def keywords(self) -> dict[str, Any]:
        """The options, without an output that nobody gave: each function has its own default. Raises as its base."""
        return {name: value for name, value in super().keywords().items() if (name, value) != ("output", None)}


class Formats(Group):
    """Number formats."""

    weights: o.Weights = None
    activations: o.Activations = None
    kv_cache: o.KvCache = None


class Request(Formats, Load):
    """A load in its formats. Options of the last base come first."""

    def say_unused(self, workload: str, phase: str) -> None:
        """A warning on stderr where output tokens were asked of a model whose one phase generates none."""
        if self.output is not None and phase == "forward":
            from hwsim.api.evaluation import no_tokens

            o.note(f"warning: {no_tokens(workload, self.output)}")


class Splits(Group):
    """Over which devices one replica is split."""

    tp: o.Tp = 1
    pp: o.Pp = 1
    ep: o.Ep = 1


class Layout(Splits):
    """Splits and replicas."""

    dp: o.Dp = 1
    sp: o.Sp = False


class Mapping(Group):
    """Who decides tiles, for what, in which time."""

    mapper: o.Mapper = "roofline"
    map_objective: o.MapObjective = None
    map_budget: o.MapBudget = None

    def keywords(self) -> dict[str, Any]:
        """Those of `hwsim.evaluate`: the budget in seconds. Raises UnitError."""
        from hwsim.units import parse

        seconds = None if self.map_budget is None else parse(self.map_budget, "time", where="--map-budget")
        return {"mapper": self.mapper, "map_objective": self.map_objective, "map_budget_s": seconds}


class Destination(Group):
    """In which format a result is written, and where."""

    format_: o.Format = "table"
    out: o.OutFile = None
    force: o.Force = False

    def form(self, *known: str) -> str:
        """The format asked for, or that of the file's suffix; the file is checked before any work.

        Raises UnknownNameError, InputError.
        """
        by_suffix = self.out if self.format_ == "table" else None
        form = o.check_format(o.format_of(self.format_, self.out), known, by_suffix)
        o.check_file(self.out, self.force)
        return form

    def emit(self, text: str) -> None:
        """Write the result. Raises InputError if a file is in the way."""
        o.emit(text, self.out, self.force)


class TableOrJson(Destination):
    """Of verbs that write nothing else."""

    format_: Annotated[str, typer.Option("--format", "-f", help="table or json.")] = "table"


class Rows(Destination):
    """Of verbs that write tables only."""

    format_: Annotated[str, typer.Option("--format", "-f", help="table, json or csv.")] = "table"


class TeamRun(Group):
    """How both machines of a request run."""

    weights: o.Weights = None
    kv_cache: o.KvCache = None
    tp: o.Tp = 1
    efficiency: o.Efficiency = "calibrated"


def keywords(*groups: Group) -> dict[str, Any]:
    """The keyword arguments of several groups together."""
    return {name: value for group in groups for name, value in group.keywords().items()}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with every parameter that is a `Group` replaced, in its place, by the options of the group."""
    hints = get_type_hints(command, include_extras=True)
    unfolded: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Group], tuple[str, ...]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        annotation = hints[name]
        if isinstance(annotation, type) and issubclass(annotation, Group):
            options = _options(annotation)
            groups[name] = (annotation, tuple(option.name for option in options))
            unfolded += options
        else:
            unfolded.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        folded = {name: kind(**{key: given.pop(key) for key in keys}) for name, (kind, keys) in groups.items()}
        command(**given, **folded)

    run.__signature__ = inspect.Signature(unfolded)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {option.name: option.annotation for option in unfolded}
    return run


def _options(group: type[Group]) -> list[inspect.Parameter]:
    """The options of a group as parameters, those of its bases first."""
    kind = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(name, kind, default=getattr(group, name), annotation=hint) for name, hint in hints.items()
    ]
