"""The public functions: names and numbers in, results out. The CLI is a thin skin over this module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim import content, units
from hwsim.cost.peaks import native_16bit
from hwsim.engine.document import document
from hwsim.engine.estimate import Estimate, estimate
from hwsim.engine.fit import require_fit
from hwsim.errors import InputError, unknown_name
from hwsim.frontends.catalog import LoadedModel, resolve_model
from hwsim.frontends.formats import Formats
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.scenario import Scenario
from hwsim.schema import families
from hwsim.schema.loader import LoadedHardware, load_hardware, price_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hwsim.validation.predict import Predictions

ENGINES = ("analytic", "des")


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`: `.document` is the contract, the methods show it."""

    estimate: Estimate
    workload: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @cached_property
    def document(self) -> dict[str, Any]:
        """Plain data, built when first asked for: a grid of arrays becomes long lists."""
        return document(self.estimate, self.workload, self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """The `hwsim/estimate@1` document."""
        return self.document

    def to_frame(self) -> Any:
        """One row a task as a pandas frame. Raises MissingExtraError without pandas."""
        from hwsim.report.frames import task_frame

        return task_frame(self.document)

    def figure(self) -> go.Figure:
        """Roofline plot of the tasks; hover names the operator."""
        from hwsim.report.figures import roofline_figure

        return roofline_figure(self.document)

    def _repr_html_(self) -> str:
        from hwsim.report.html import fragment

        return fragment(self.document)

    def __getattr__(self, name: str) -> Num:
        """``result.ttft_s`` is the value of the metric of that name."""
        metrics = self.__dict__.get("estimate")
        if metrics is not None and name in metrics.metrics:
            value: Num = metrics.metrics[name].value
            return value
        raise AttributeError(name)


def evaluate(
    workload: str,
    hardware: str | Device | Platform,
    *,
    batch: Num = 1,
    prompt: Num | None = None,
    output: Num = 128,
    what_if: Mapping[str, Num | str] | None = None,
    check_fit: bool = True,
    **options: Any,
) -> Evaluation:
    """Time, energy, cost and memory of a model on hardware.

    Parameters
    ----------
    workload: catalog name, alias or path of a model (YAML or HF ``config.json``).
    hardware: catalog name, alias or path of an accelerator, node or cluster; or an IR device or platform.
    batch, prompt, output: sequences together, prompt tokens (default 512, or the model's fixed input), output
        tokens a sequence; scalars, or arrays that broadcast together for a grid.
    what_if: device fields to replace, by dotted path, e.g. ``{"memories.hbm.read": "3 TB/s"}`` or SI numbers or arrays.
    check_fit: refuse a scenario that does not fit in memory.
    options: weights, activations, kv_cache (format names), tp, pp, ep, dp, sp, efficiency, engine, price,
        memory_fraction; mapper (catalog name or path of a file; ``roofline`` decides nothing), map_objective
        (``latency``, ``energy``, ``edp``), map_budget_s (wall seconds a phase).

    Raises
    ------
    InputError: unknown names or options, or impossible values. InfeasibleError: does not fit, or degrees do not divide.
    """
    model, platform, scenario, hashes = prepare(workload, hardware, batch, prompt, output, what_if, options)
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    scenario = replace(
        scenario, weights=formats.weights.name, activations=formats.activations.name, kv_cache=formats.kv_cache.name
    )
    result = estimate(model.model, platform, scenario, formats)
    if check_fit:
        require_fit(model.model.name, platform, scenario, result.memory)
    return Evaluation(result, describe(model), hashes)


def prepare(
    workload: str,
    hardware: str | Device | Platform,
    batch: Num,
    prompt: Num | None,
    output: Num,
    what_if: Mapping[str, Num | str] | None,
    options: Mapping[str, Any],
) -> tuple[LoadedModel, Platform, Scenario, dict[str, Any]]:
    """Resolve names, apply what-ifs, fill defaults. Raises InputError."""
    model = resolve_model(workload)
    platform, files = _platform(hardware)
    if what_if:
        device = vary(platform.device, what_if)
        joined = platform.scale_up and next((k for k in device.links if k.name == platform.scale_up.name), None)
        platform = platform.with_(device=device, scale_up=joined or platform.scale_up)
    scenario = _scenario(model, platform, batch, prompt, output, options)
    if not isinstance(hardware, Platform):
        devices = scenario.devices
        bare = platform.count == 1 and platform.scale_out is None
        platform = platform.with_(count=max(platform.count, devices)) if bare else platform
    if scenario.price:
        platform = platform.with_(price=price_of(platform.device.name, scenario.price))
    chosen = (content.resolve(scenario.mapper, "mapper").path,) if scenario.mapper != "roofline" else ()
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (model.entry.path, *files, *chosen)
        if path.is_file()
    }
    return model, platform, scenario, hashes


def _platform(hardware: str | Device | Platform) -> tuple[Platform, tuple[Path, ...]]:
    from hwsim.schema.loader import single

    if isinstance(hardware, Platform):
        return hardware, ()
    if isinstance(hardware, Device):
        return single(hardware), ()
    loaded: LoadedHardware = load_hardware(str(hardware))
    return loaded.platform, loaded.files


def _scenario(
    model: LoadedModel, platform: Platform, batch: Num, prompt: Num | None, output: Num, options: Mapping[str, Any]
) -> Scenario:
    known = (
        "weights",
        "activations",
        "kv_cache",
        "tp",
        "pp",
        "ep",
        "dp",
        "sp",
        "efficiency",
        "engine",
        "mapper",
        "price",
        "memory_fraction",
        "map_objective",
        "map_budget_s",
    )
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in platform.device.extra.get("native", {}).items():
        given.setdefault(name, value)  # devices without a 16-bit matrix path say what they take
    given.setdefault("weights", native_16bit(platform.device))
    if given.get("engine", "analytic") not in ENGINES:
        raise unknown_name("engine", str(given["engine"]), ENGINES)
    if "mapper" in given:
        content.resolve(str(given["mapper"]), "mapper")
    length = prompt if prompt is not None else model.model.fixed_tokens or 512
    return Scenario(batch=batch, prompt_tokens=length, output_tokens=output, **given)


def describe(model: LoadedModel) -> dict[str, Any]:
    """What identifies the workload in a document."""
    spec = model.model.spec
    return {
        "name": model.model.name,
        "title": spec.title,
        "arch": spec.arch,
        "parameters": model.model.parameters,
        "active_parameters": model.model.active_parameters,
        "layers": model.model.layers,
    }


def vary(device: Device, changes: Mapping[str, Num | str]) -> Device:
    """A device with some fields replaced; values are SI numbers, arrays, or quantity strings.

    Paths: ``compute.UNIT.DTYPE.peak``, ``memories.NAME.read|write|size|latency``, ``links.NAME.bandwidth|latency``,
    ``power.tdp|idle``, ``overheads.launch|layer|step|sequence|prompt_knee|prompt_slowdown``,
    any field of a family section (``fpga.clock``).
    Raises UnknownNameError, UnitError, InputError.
    """
    for path, value in changes.items():
        device = _vary_one(device, path, value)
    return device


_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "compute": {"peak": ("peak_flop_per_s", "flop_per_s"), "energy": ("energy_j_per_flop", "energy_per_flop")},
    "memories": {
        "read": ("read_bytes_per_s", "bytes_per_s"),
        "write": ("write_bytes_per_s", "bytes_per_s"),
        "size": ("size_bytes", "bytes"),
        "latency": ("latency_s", "time"),
    },
    "links": {"bandwidth": ("bandwidth_bytes_per_s", "bytes_per_s"), "latency": ("latency_s", "time")},
    "power": {"tdp": ("tdp_w", "power"), "idle": ("idle_w", "power")},
    "overheads": {
        "launch": ("launch_s", "time"),
        "layer": ("layer_s", "time"),
        "step": ("step_s", "time"),
        "sequence": ("sequence_s", "time"),
        "prompt_knee": ("prompt_knee", "number"),
        "prompt_slowdown": ("prompt_slowdown", "number"),
    },
}


def _vary_one(device: Device, path: str, value: Num | str) -> Device:
    section, _, rest = path.partition(".")
    item, _, field = rest.rpartition(".")
    if section in device.extra:
        section_data = families.changed(section, device.extra[section], rest, value)
        return device.with_(extra={**device.extra, section: section_data})
    if section not in _FIELDS:
        raise unknown_name("section of a device", section, _FIELDS, where=path)
    if field not in _FIELDS[section]:
        raise unknown_name(f"field of {section}", field, _FIELDS[section], where=path)
    attribute, dimension = _FIELDS[section][field]
    number = units.parse(value, dimension, where=path) if isinstance(value, str) else value
    _check_range(path, number, may_be_zero=section in ("power", "overheads") or field in ("latency", "energy"))
    if section in ("power", "overheads"):
        return device.with_(**{section: replace(getattr(device, section), **{attribute: number})})
    entries: Sequence[Any] = getattr(device, section)
    names = [f"{e.unit}.{e.dtype}" if section == "compute" else e.name for e in entries]
    if item not in names:
        raise unknown_name(f"entry of {section} of {device.name}", item, names, where=path)
    changed = tuple(replace(e, **{attribute: number}) if n == item else e for e, n in zip(entries, names, strict=True))
    return device.with_(**{section: changed})


# Smallest rate, size or peak that a what-if may set: below it times overflow and mean nothing.
_LEAST = 1e-3


def _check_range(path: str, number: Num, *, may_be_zero: bool) -> None:
    values = np.asarray(number, dtype=float)
    least = 0.0 if may_be_zero else _LEAST
    if values.size == 0 or not bool(np.all(np.isfinite(values)) and np.all(values >= least)):
        bound = ">= 0" if may_be_zero else "> 0"
        raise InputError(
            f"{path} must be a finite number {bound}", where=path, seen=str(number)[:60], fix="check the value"
        )


def compare(workload: str, hardware: Sequence[str], **scenario: Any) -> dict[str, Any]:
    """The same scenario on several machines: a `hwsim/comparison@1` document.

    A machine that cannot hold or map the workload appears with the reason instead of metrics.
    """
    from hwsim.errors import InfeasibleError

    if len(hardware) < 2:
        raise InputError("compare needs at least two machines", seen=str(list(hardware)), fix="--hw a100 --hw h100")
    columns: list[dict[str, Any]] = []
    for name in hardware:
        try:
            columns.append(evaluate(workload, name, **scenario).document)
        except InfeasibleError as error:
            columns.append({"hardware": {"name": name}, "infeasible": error.render(), "budget": error.budget})
    return {"schema": "hwsim/comparison@1", "columns": columns}


@dataclass(frozen=True)
class PhaseTimeline:
    """Result of `timeline`: the `hwsim/timeline@1` document, its Gantt chart and its trace."""

    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The `hwsim/timeline@1` document."""
        return self.document

    def figure(self) -> go.Figure:
        """Gantt chart: one row a stream."""
        from hwsim.report.trace import gantt_figure

        return gantt_figure(self.document)

    def trace(self) -> str:
        """Trace Event Format as JSON text: opens in Perfetto and chrome://tracing."""
        from hwsim.report.trace import chrome_trace_text

        return chrome_trace_text(self.document)


def timeline(
    workload: str,
    hardware: str | Device | Platform,
    *,
    phase: str | None = None,
    technique: Mapping[str, Any] | None = None,
    batch: int = 1,
    prompt: int | None = None,
    output: int = 128,
    **options: Any,
) -> PhaseTimeline:
    """One phase on the clock of the discrete-event engine, with an overlap technique.

    Parameters
    ----------
    phase: ``prefill``, ``decode`` or ``forward`` [decode, or the only one].
    technique: fields of `hwsim.explore.timelines.Technique`: streams, parts, unit_share, micro_batches, prefetch,
        depth, capacity.
    options: those of `evaluate`, and what_if.

    Raises
    ------
    InputError, UnknownNameError, InfeasibleError: as `evaluate`, and for techniques that do not apply.
    """
    from hwsim.explore.timelines import Technique, timeline_document

    asked = dict(technique or {})
    for name in asked:
        if name not in Technique.__slots__:
            raise unknown_name("field of a technique", name, Technique.__slots__)
    what_if = options.pop("what_if", None)
    model, platform, scenario, _ = prepare(workload, hardware, batch, prompt, output, what_if, options)
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    return PhaseTimeline(timeline_document(model.model, platform, scenario, formats, phase, Technique(**asked)))


def predict(file: str | Path, hardware: str | None = None) -> Predictions:
    """Kernel times of the rows of a measured-data CSV: ``.pred_us``, ``.low_us``, ``.high_us`` a good row.

    `hardware` overrides the ``gpu`` column. Bad rows are in ``.table.problems`` with their line.
    Raises InputError where the file as a whole cannot be used.
    """
    from hwsim.validation.predict import predict_file

    return predict_file(Path(file), hw=hardware)


SIMULATE_DEFAULTS: Mapping[str, Any] = {
    "trace": None, "rate": None, "requests": None, "arrivals": "poisson", "prompt": "1024", "output": "256",
    "lengths": "lognormal", "seed": 0, "policy": "vllm", "max_batch": None, "chunk": None, "queue": "fcfs",
    "replicas": 1, "router": "round_robin", "slo": None, "prefill_pool": 0, "capacity": False, "attainment": 0.9,
    "kv_blocks": None, "overhead": None, "weights": None, "activations": None, "kv_cache": None, "tp": 1, "pp": 1,
    "efficiency": "calibrated", "steady": False, "table": None, "limits": None, "capacity_tolerance": 0.01,
    "burstiness": 1.0, "closed_loop": None, "application": None, "reference": None, "migration": None,
    "autoscale": None, "failures": None, "partition": None, "queue_limit": None, "decode_hw": None,
    "kv_transfer": "layerwise", "kv_link": None, "mixed": 0, "price": None,
    "what_if": None,
}  # fmt: skip


@dataclass(frozen=True)
class Simulation:
    """Result of `simulate`: the `hwsim/serving@1` document and its notebook view."""

    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The `hwsim/serving@1` document."""
        return self.document

    def __str__(self) -> str:
        from hwsim.report.serving import table_text

        return table_text(self.document)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(str(self))}</pre>"


def simulate(
    workload: str,
    hardware: str | Device | Platform | None = None,
    *,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> Simulation:
    """Serve a stream of requests; `options` are those of ``hwsim simulate`` with underscores (`SIMULATE_DEFAULTS`).

    `workload` may be a file of a `hwsim/serving-scenario@1`: it then names the rest; what is given here wins.
    `note` is told about progress.

    Raises UnknownNameError, InputError, InfeasibleError.
    """
    from hwsim.serving.scenario import is_scenario, read_scenario
    from hwsim.serving.session import run_session

    for name in options:
        if name not in SIMULATE_DEFAULTS:
            raise unknown_name("option", name, SIMULATE_DEFAULTS)
    file = read_scenario(workload, SIMULATE_DEFAULTS) if is_scenario(workload) else {"workload": workload}
    given = {**SIMULATE_DEFAULTS, **file, **options}
    machine = hardware if hardware is not None else file.get("hw")
    if machine is None:
        raise InputError("a run needs hardware", where="--hw", fix="--hw NAME, or `hw:` in the scenario file")
    given["hw"] = _varied(machine, given["what_if"], given["price"])
    for other in ("decode_hw", "reference"):
        if given[other] is not None:
            given[other] = _varied(given[other], given["what_if"], given["price"])
    return Simulation(run_session(given, note))


def _varied(
    hardware: str | Device | Platform, what_if: Mapping[str, Num | str] | None, price: str | None
) -> str | Platform:
    """A name as it is where nothing changes, else the platform with changed device fields or price list."""
    if isinstance(hardware, str) and not what_if and not price:
        return hardware
    platform, _ = _platform(hardware)
    platform = platform.with_(device=vary(platform.device, what_if)) if what_if else platform
    return platform.with_(price=price_of(platform.device.name, price)) if price else platform


class Plan(Simulation):
    """Result of `plan`, `plan_stages` and `plan_training`: the document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.parallelism import plan_text

        return plan_text(self.document)


def plan(workload: str, hardware: str | Device | Platform, **options: Any) -> Plan:
    """How to split a model over devices: tensor, pipeline, data, expert and sequence parallelism.

    Parameters
    ----------
    options: devices [all], objective (throughput, latency, energy, cost), slo (``"ttft=1s,tpot=50ms"``), batch (total
        sequences, one or several; none: a grid), batching (static, continuous), max_tp, mapper, budget; prompt, output,
        what_if and the others of `evaluate` but tp, pp, ep, dp, sp.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: nothing is legal, fits or keeps the limits.
    """
    from hwsim.explore.plan_question import PLAN_DEFAULTS, answer

    asked = {name: options.pop(name) for name in tuple(options) if name in PLAN_DEFAULTS}
    for name in ("tp", "pp", "ep", "dp", "sp"):
        if name in options:
            raise InputError(f"{name} is what a plan decides", where=name, fix="`hwsim evaluate` takes degrees")
    sizes = (options.pop("prompt", None), options.pop("output", 128), options.pop("what_if", None))
    model, platform, scenario, hashes = prepare(workload, hardware, 1, *sizes, options)
    about = {"workload": describe(model), "hardware": {"name": platform.name, "device": platform.device.name}}
    return Plan(answer(model.model, platform, scenario, asked, {**about, "inputs": hashes}))


def plan_stages(workload: str, stages: Sequence[str], *, batch: int = 1, **options: Any) -> Plan:
    """Layers of a pipeline over different devices: a `hwsim/stages@1` document.

    Parameters
    ----------
    stages: hardware names in the order of the pipeline, each with its tensor ranks, e.g. ``["h100-sxm:2", "l40s:4"]``.
    options: prompt, output, what_if and the others of `evaluate` but tp, pp, ep, dp, sp.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: no partition fits.
    """
    from hwsim.explore.mixed_stages import Stage, parse_stage, split_stages
    from hwsim.frontends.formats import Formats

    sizes = (options.pop("prompt", None), options.pop("output", 128), options.pop("what_if", None))
    found: list[Stage] = []
    hashes: dict[str, Any] = {}
    for text in stages:
        name, ranks = parse_stage(text)
        model, platform, scenario, files = prepare(workload, name, batch, *sizes, {**options, "tp": ranks})
        options.setdefault("weights", scenario.weights)  # one model: the formats of the first stage
        found.append(Stage(name, ranks, platform))
        hashes |= files
    if not found:
        raise InputError("a pipeline needs a stage", where="stages", fix='["h100-sxm:2", "l40s:4"]')
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    return Plan(split_stages(model.model, found, scenario, formats, {"workload": describe(model), "inputs": hashes}))


class Placed(Simulation):
    """Result of `place`: the `hwsim/placement@1` document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.placement import placement_table

        return placement_table(self.document)


def place(workload: str, hardware: str | Sequence[str], **options: Any) -> Placed:
    """Operators on devices, or tensors in memories, with the proof.

    Parameters
    ----------
    hardware: devices and nodes (companions count); one device with `tiers`, or a fine-tuning host, places tensors.
    options: cut (graph, contiguous), objective (latency, throughput, energy, edp), tiers (memory names, ``"cz120:2"``),
        walk (serial, parallel), rooms (``{"dram": "128 GiB"}``), link, weights (one format or several), activations,
        kv_cache, keep_on_chip, phase, batch, prompt, output, efficiency, memory_fraction, budget (``"2 s"``), mapper,
        what_if (of one device), explain (what one more GiB or GB/s would buy).

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: does not fit. SolverError: no solver, no answer.
    """
    from hwsim.explore.placement.question import answer

    names = [hardware] if isinstance(hardware, str) else list(hardware)
    return Placed(
        answer(workload, names, options, lambda device, changes: vary(device, changes) if changes else device)
    )


def plan_training(workload: str, hardware: str | Device | Platform, **options: Any) -> Plan:
    """The best layout for a training step: a `hwsim/training@1` document.

    Parameters
    ----------
    options: global_batch (sequences an optimizer step), prompt (tokens a sequence [2048]), devices [all], zero
        (0-3 [1]), recompute (False), weights [bf16], efficiency, what_if.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: no layout divides the batch or fits.
    """
    from hwsim.explore.training_search import TRAINING_DEFAULTS, train

    asked = {name: options.pop(name, value) for name, value in TRAINING_DEFAULTS.items()}
    options.setdefault("weights", "bf16")
    model, platform, scenario, hashes = prepare(
        workload, hardware, 1, options.pop("prompt", None) or 2048, 1, options.pop("what_if", None), options
    )
    about = {"workload": describe(model), "hardware": {"name": platform.name, "device": platform.device.name}}
    return Plan(train(model.model, platform, scenario, asked, {**about, "inputs": hashes}))
