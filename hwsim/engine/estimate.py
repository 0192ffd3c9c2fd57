"""One question answered: phases through the engine, memory budget, metrics with their brackets.

TTFT is the prefill; TPOT one decode step at the mean context of the run, prompt + output/2 (exact for costs linear
in the context); latency = TTFT + (output - 1) x TPOT. `dp` replicas share the batch; the pipeline stages of one work
on `pp` micro-batches of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from hwsim.cost import memory as budgets
from hwsim.cost.peaks import compute_path
from hwsim.cost.registry import active_power_w, family_metrics, has_own_model
from hwsim.engine import analytic
from hwsim.engine.fit import device_budget
from hwsim.engine.metrics import Phase, summarize
from hwsim.errors import InputError
from hwsim.ir.mapped import IDEAL, MappedGraph, Mapping
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.result import Bracket, Timeline
from hwsim.ir.scenario import Scenario, share_of
from hwsim.ir.workload import WorkloadGraph
from hwsim.mapping.lower import lower

DEGREES: Final = ("tp", "pp", "ep", "dp")
MOST: Final = 1e9  # of any count or length: beyond lies a typing error, not a scenario


class Model(Protocol):
    """What the engine needs of a workload (see `hwsim.frontends.model.Model`)."""

    @property
    def name(self) -> str: ...
    @property
    def phases(self) -> tuple[str, ...]: ...
    def graph(
        self,
        phase: str,
        batch: Num,
        q_tokens: Num,
        past_tokens: Num,
        formats: Any = None,
        source_tokens: Num | None = None,
    ) -> WorkloadGraph: ...
    def kv_cache_bytes(self, batch: Num, context: Num, fmt: Any = ..., source_tokens: Num | None = None) -> Num: ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """Everything asked of one scenario (or a grid: arrays throughout)."""

    workload: str
    platform: Platform
    scenario: Scenario
    metrics: dict[str, Bracket]
    memory: budgets.MemoryBudget
    phases: tuple[Phase, ...]
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def estimate(model: Model, platform: Platform, scenario: Scenario, formats: Any, *, check: bool = True) -> Estimate:
    """Answer one scenario or a broadcast grid of them.

    Raises
    ------
    InputError: a batch or length that is not a positive finite number.
    InfeasibleError: degrees that do not divide the model, or a platform too small for them.
    """
    _check_scenario(scenario)
    mapping = mapping_of(scenario)
    whole = _graphs(model, scenario, formats)
    decided = [_decided(graph, platform, mapping, scenario) for graph in whole]
    graphs = [lower(graph, platform, choice) for graph, choice in zip(whole, decided, strict=True)]
    phases = tuple(_phase(graph, platform, scenario, check) for graph in graphs)
    budget = device_budget(model, whole, graphs, platform, scenario)
    metrics = summarize(phases, platform, scenario, check=check)
    metrics.update(family_metrics([phase.timeline for phase in phases]))
    return Estimate(
        model.name,
        platform,
        scenario,
        metrics,
        budget,
        phases,
        _warnings(graphs, platform, scenario),
        {"mapping": mapping, "mappings": dict(zip((graph.phase for graph in whole), decided, strict=True))},
    )


def mapping_of(scenario: Scenario) -> Mapping:
    """The degrees of a scenario as a mapping decision."""
    rows = scenario.tp if scenario.sp else 1
    return Mapping(scenario.mapper, scenario.tp, scenario.pp, scenario.ep, scenario.dp, rows)


def _decided(graph: WorkloadGraph, platform: Platform, mapping: Mapping, scenario: Scenario) -> Mapping:
    """The mapping with what its mapper decides for the operators of one phase."""
    if mapping.mapper == IDEAL:
        return mapping
    from hwsim.mapping.decide.graph import decide  # solvers and caches: only where something is decided

    return decide(graph, platform, mapping, objective=scenario.map_objective or None, budget_s=scenario.map_budget_s)


def memory_of(model: Model, platform: Platform, scenario: Scenario, formats: Any) -> budgets.MemoryBudget:
    """The memory budget of `estimate` without pricing anything. Raises InputError, InfeasibleError."""
    _check_scenario(scenario)
    whole = _graphs(model, scenario, formats)
    return device_budget(
        model, whole, [lower(graph, platform, mapping_of(scenario)) for graph in whole], platform, scenario
    )


def _check_scenario(scenario: Scenario) -> None:
    """Degrees are whole; batch and lengths may be means. Raises InputError."""
    for name in ("batch", "prompt_tokens", "output_tokens", *DEGREES):
        value, whole = np.asarray(getattr(scenario, name)), name in DEGREES
        good = value.size > 0 and value.dtype.kind in "iuf" and bool(np.all((value >= 1) & (value <= MOST)))
        if not good or (whole and bool(np.any(value != np.floor(value)))):
            raise InputError(
                f"--{name.removesuffix('_tokens')} must be a{' whole' * whole} number from 1 to 1e9",
                where=name,
                seen=str(getattr(scenario, name))[:80],
            )
    if not 0 < scenario.memory_fraction <= 1:
        raise InputError(
            "memory fraction must lie in (0, 1]", where="memory_fraction", seen=str(scenario.memory_fraction)
        )


def decode_past(scenario: Scenario) -> Num:
    """Cached tokens before the decode step at the mean context: steps i = 1..output-1 see prompt + i keys."""
    output = scenario.output_tokens
    half = output // 2 if isinstance(output, int) and output % 2 == 0 else output / 2
    mean = np.maximum(half, 1) if np.ndim(half) else max(half, 1)
    return scenario.prompt_tokens + mean - 1


def _graphs(model: Model, scenario: Scenario, formats: Any) -> list[WorkloadGraph]:
    batch = micro_batch(scenario)
    if "forward" in model.phases:
        return [model.graph("forward", batch, scenario.prompt_tokens, 0, formats)]
    past, source = decode_past(scenario), None
    if getattr(model, "prompt_is_source", False):  # the prompt feeds an encoder: the cache holds generated tokens
        past, source = past - scenario.prompt_tokens, scenario.prompt_tokens
    return [
        model.graph("prefill", batch, scenario.prompt_tokens, 0, formats, source),
        model.graph("decode", batch, 1, past, formats, source),
    ]


def micro_batch(scenario: Scenario) -> Num:
    """Sequences of one micro-batch: stages of a pipeline work on `pp` of them in turn."""
    return share_of(scenario.batch_of_replica, scenario.pp)


def passes_of(scenario: Scenario) -> Num:
    """Micro-batches of one replica."""
    return np.ceil(scenario.batch_of_replica / micro_batch(scenario))


def _phase(graph: MappedGraph, platform: Platform, scenario: Scenario, check: bool) -> Phase:
    timeline = _engine(scenario.engine)(graph, scenario.efficiency, check=check)
    stages = _pipeline_factor(graph.phase, scenario)
    span = Bracket(
        timeline.time_s * stages,
        timeline.low_s * stages,
        timeline.high_s * stages,
        timeline.floor_s * stages,
        timeline.ceiling_s * stages,
    )
    devices = scenario.devices
    passes = passes_of(scenario) * scenario.dp
    dynamic = sum((i.cost.energy_j * i.task.count for i in timeline.intervals), 0.0) * scenario.tp * passes
    energy = dynamic + static_power_w(platform, devices, scenario.efficiency) * span.value
    return Phase(graph.phase, timeline, span, energy, graph.tokens * passes)


def static_power_w(platform: Platform, devices: Num, efficiency: str = "calibrated") -> Num:
    """Watts that running devices draw whatever they compute: idle and clocks, and their share of the hosts."""
    each = platform.device.power.idle_w + active_power_w(platform.device, efficiency)
    return each * devices + platform.host_power_w * devices / max(platform.node_size, 1)


def _engine(name: str) -> Callable[..., Timeline]:
    """``analytic`` or ``des``: both take the same tasks; SimPy loads only when it is asked for."""
    if name == "des":
        from hwsim.engine import des

        return des.run
    return analytic.run


def _pipeline_factor(phase: str, scenario: Scenario) -> Num:
    """Span of a phase over the pass of one micro-batch through all stages.

    Prefill: m micro-batches through p equal stages take (p + m - 1)/p passes (GPipe). Decode: every request gets one
    token a round; with m <= p micro-batches a round is one pass, the stages not waiting on each other.
    """
    if phase == "decode":
        return 1.0
    passes = passes_of(scenario)
    return (scenario.pp + passes - 1) / scenario.pp


def _warnings(graphs: list[MappedGraph], platform: Platform, scenario: Scenario) -> tuple[str, ...]:
    device = platform.device
    found: list[str] = []
    if device.status in ("demo", "estimated"):
        found.append(f"{device.name} is {device.status}: it represents no real product")
    for dtype in dict.fromkeys(
        d for g in graphs for t in g.tasks for d in t.flop if t.operator.unit == "tensor" and "/" not in d
    ):
        path = compute_path(device, dtype)
        if path.widened or path.unit != "tensor":
            found.append(f"{device.name} has no {dtype} matrix path: computed as {path.dtype} on the {path.unit} unit")
    if scenario.efficiency == "calibrated" and device.calibration is None and not has_own_model(device):
        found.append(f"{device.name} has no calibration: generic efficiencies with a wide band")
    elif (
        scenario.efficiency == "calibrated" and device.calibration is not None and device.calibration.kind != "measured"
    ):
        found.append(
            f"{device.name} was never measured: parameters of {device.calibration.name} moved by datasheet ratios"
        )
    if platform.price is None:
        found.append(f"no price of {device.name} in the price files: no cost")
    found.extend(n for g in graphs for n in g.notes)
    return tuple(dict.fromkeys(found))
