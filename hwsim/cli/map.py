"""`hwsim map WORKLOAD --hw NAME`: loops, tiles and traffic of every distinct GEMM, with the proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.cli.progress import Pulse

# Mappers that decide something else than loops -> module of hwsim.cli with a `command` of its own, options included
# (one of them is `--mapper`). `hwsim map WORKLOAD --mapper placement ...` is parsed by that module.
MODES: Final[dict[str, str]] = {"placement": "map_placement", "parallelism": "map_parallelism"}

EXPORTS: Final = ("timeloop",)
EXPLAIN_S: Final = 60.0  # wall time of --explain where --budget says nothing
DEFAULT_BUDGET: Final = "30 s"  # wall time of the search where --budget says nothing
UNTIL_PROVED: Final = "none"  # --budget without an end


def mode_of(arguments: Sequence[str]) -> str | None:
    """The module that the arguments' `--mapper` asks for, or None: this one."""
    name = ""
    for index, text in enumerate(arguments):
        if text == "--mapper":
            name = arguments[index + 1] if index + 1 < len(arguments) else ""
        elif text.startswith("--mapper="):
            name = text.partition("=")[2]
    return MODES.get(name)


def _known_mapper(name: str) -> None:
    """Refuse a misspelt mapper here, where the names of all kinds are known. Paths are left to the loader."""
    from hwsim.content import aliases, catalog, normalize
    from hwsim.errors import unknown_name

    if normalize(name) not in aliases("mapper") and not Path(name).suffix:
        modes = [mode for mode, module in MODES.items() if Path(__file__).with_name(f"{module}.py").exists()]
        raise unknown_name("mapper", name, sorted({*catalog("mapper"), *modes}), where="--mapper")


class Search(g.Group):
    """What is looked for, and how long."""

    objective: Annotated[
        str | None, typer.Option("--objective", help="energy, latency, edp or e.g. 0.7*energy+0.3*latency.")
    ] = None
    mapper: Annotated[str, typer.Option("--mapper", help="Catalog name or path of a mapper file.")] = "tiling"
    counting: Annotated[
        str, typer.Option("--counting", help="timeloop, or drains to count reads of leaving outputs.")
    ] = "timeloop"
    bypass: Annotated[bool, typer.Option("--bypass", help="Let tensors skip middle levels.")] = False
    uneven: Annotated[
        str | None, typer.Option("--uneven", metavar="LEVEL,..", help="Tile tensors at different depths in a memory.")
    ] = None
    dataflow: Annotated[
        str | None, typer.Option("--dataflow", metavar="TENSOR", help="weights, inputs or outputs stay [any].")
    ] = None
    budget: Annotated[
        str | None,
        typer.Option("--budget", help=f"Wall time for all GEMMs, e.g. 2s, or none: until proved [{DEFAULT_BUDGET}]."),
    ] = None

    def budget_s(self) -> float | None:
        """Seconds, or None: until proved. Raises InputError, UnitError."""
        from hwsim.errors import InputError
        from hwsim.units import parse

        if self.budget == UNTIL_PROVED:
            return None
        seconds = parse(self.budget or DEFAULT_BUDGET, "time", where=f"--budget (or {UNTIL_PROVED})")
        if not 0 < seconds < float("inf"):
            fix = f"--budget 2s, or --budget {UNTIL_PROVED}: until proved"
            raise InputError("a budget is a time above zero", where="--budget", seen=str(self.budget), fix=fix)
        return seconds


class Subject(g.Group):
    """Which operators of the workload are mapped."""

    phase: Annotated[str | None, typer.Option("--phase", help="Phase of a model [all it has].")] = None
    batch: o.Batch = 1
    prompt: o.Prompt = None
    block: Annotated[bool, typer.Option("--block", help="One block only: no embedding, no head, no repeats.")] = False


class Working(g.Group):
    """On what numbers, and what else is said."""

    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Operand type: its peak gives the multipliers [bf16, fp16, own].")
    ] = None
    explain: Annotated[
        bool, typer.Option("--explain", help="What binds, and what one more KiB, GB/s or unit would buy.")
    ] = False
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep and reuse decisions.")] = True
    set_: o.Set = None


class Beside(g.Group):
    """Files beside the result."""

    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE.json", help="Also write a trace for Perfetto.")
    ] = None
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option("--export", metavar="timeloop DIR", help="Also write YAML files for timeloop-model."),
    ] = None


class Outputs(g.Destination, Beside):
    """All that is written; --help lists the last base first."""


@g.grouped
def command(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="Model, gemm:MxNxK, bmm:BxMxNxK or attention:BxHxQxKVxD[:causal].")
    ],
    hw: o.Hardware,
    search: Search,
    subject: Subject,
    working: Working,
    to: Outputs,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Map a workload onto the memories of a machine: loops, tiles, traffic, energy, proof of optimality."""
    form = to.form("table", "json", "html")
    _check_outputs(to, search.uneven)
    _known_mapper(search.mapper)
    budget_s = search.budget_s()
    device = _device(hw, working.set_)
    graphs = _graphs(workload, subject)
    with Pulse(silent=quiet) as pulse:
        document = _mapped(graphs, device, search, working, budget_s, pulse)
    document = {"schema": document.pop("schema"), "workload": workload, **document}
    _write_beside(document, to)
    to.emit(render(document, form))


def _mapped(
    graphs: list[Any], device: Any, search: Search, working: Working, budget_s: float | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """The mapping document of operator graphs; with what more of each part would buy, where asked."""
    from hwsim.mapping.fused.workload import fused_rows
    from hwsim.mapping.gemms import merge
    from hwsim.mapping.plan import map_workload

    works = merge(graphs)
    options: dict[str, Any] = search.keywords() | {
        "dtype": working.dtype,
        "use_cache": working.cache,
        "say": say,
    }
    del options["budget"]
    document = map_workload(works, device, budget_s=budget_s, **options)
    document["fused"] = fused_rows(
        graphs, device, document["operators"],
        objective=search.objective, mapper=search.mapper, use_cache=working.cache,
    )  # fmt: skip
    if working.explain:
        _explain(document, works, device, EXPLAIN_S if search.budget is None else budget_s, options)
    return document


def _check_outputs(to: Outputs, uneven: str | None) -> None:
    """Refuse what could not be written before anything is computed."""
    from hwsim.errors import InputError, unknown_name

    if to.trace is not None:
        o.check_suffix(to.trace, (".json",), "--trace")
    if to.export is not None and to.export[0] not in EXPORTS:
        raise unknown_name("export format", to.export[0], EXPORTS, where="--export")
    if to.export is not None and uneven is not None:
        fix = "leave out --uneven"
        raise InputError("an uneven tiling has no form in Timeloop's files", where="--export", fix=fix)
    paths = [path for path in (to.out, to.trace, None if to.export is None else to.export[1]) if path is not None]
    for index, path in enumerate(paths):
        o.check_free(path, to.force)
        if path.resolve() in (other.resolve() for other in paths[:index]):
            raise InputError("two outputs have the same name", where=str(path), fix="give each its own")


def _write_beside(document: dict[str, Any], to: Outputs) -> None:
    """The trace and the exported files; both texts are complete before the first is written."""
    files: dict[str, str] = {}
    if to.export is not None:
        from hwsim.report.timeloop import timeloop_files

        files = timeloop_files(document)
    if to.trace is not None:
        from hwsim.report.mapping_trace import mapping_trace_text

        o.emit(mapping_trace_text(document), to.trace, to.force)
    if to.export is not None:
        o.emit_folder(files, to.export[1], to.force)


def _explain(document: dict[str, Any], works: Any, device: Any, budget_s: float | None, options: Any) -> None:
    """Add to every GEMM of a document what more of each part would buy."""
    from hwsim.mapping.plan import explain_workload

    found = explain_workload(works, device, document=document, budget_s=budget_s, **options)
    for row, what_if in zip(document["operators"], found, strict=True):
        row["what_if"] = what_if


def _device(hw: str, changes: list[str] | None) -> Any:
    from hwsim.schema.loader import load_hardware

    device = load_hardware(hw).platform.device
    if changes:
        from hwsim.api import vary

        device = vary(device, o.parse_set(changes))
    return device


def _graphs(workload: str, subject: Subject) -> list[Any]:
    """Operator graphs by phase name; decode is one step after the prompt."""
    from hwsim.frontends.raw import is_raw, raw_graph

    phase = subject.phase
    if is_raw(workload):
        _only_for_models(
            phase=phase, batch=subject.batch != 1 or None, prompt=subject.prompt, block=subject.block or None
        )
        return [raw_graph(workload)]
    from hwsim.errors import unknown_name
    from hwsim.frontends.catalog import load_model

    model = load_model(workload)
    if phase is not None and phase not in model.phases:
        raise unknown_name("phase", phase, model.phases, where="--phase")
    tokens = 512 if subject.prompt is None else subject.prompt
    graphs = []
    for name in model.phases if phase is None else (phase,):
        sizes = (1, tokens) if name == "decode" else (tokens, 0)
        graphs.append(model.graph(name, subject.batch, *sizes))
    return [_one_block(graph) for graph in graphs] if subject.block else graphs


def _only_for_models(**given: Any) -> None:
    """Refuse options that a raw GEMM would ignore."""
    from hwsim.errors import InputError

    for name, value in given.items():
        if value is not None:
            raise InputError("a raw GEMM has its sizes in its name", where=f"--{name}", fix=f"leave out --{name}")


def _one_block(graph: Any) -> Any:
    from dataclasses import replace

    kept = tuple(replace(op, repeat=1) for op in graph.operators if op.segment not in ("embed", "head"))
    return replace(graph, operators=kept)


def render(document: dict[str, Any], form: str) -> str:
    """A mapping document as text of one format."""
    if form == "json":
        return o.to_json(document)
    if form == "html":
        from hwsim.report.mapping_page import mapping_page

        return mapping_page(document)
    from hwsim.report.mapping import mapping_table

    return mapping_table(document)
