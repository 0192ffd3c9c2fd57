"""Exact figures of a pipeline: its layers on stages, and what the slowest stage does to the spans.

A column assumes equal stages. With P_s and D_s the seconds of stage s for one micro-batch of m:
TTFT = sum P + (m - 1) max P, TPOT = max(sum D, m max D). Both reduce to the column's figures where stages are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import money
from hwsim.engine.estimate import Estimate, estimate, passes_of, static_power_w
from hwsim.explore.continuous import figures_at
from hwsim.explore.layouts import Search, figures_of, loop_of, scenario_of
from hwsim.ir.mapped import MappedGraph
from hwsim.ir.result import Timeline
from hwsim.mapping.parallelism.choose import Refine, Refined, as_is
from hwsim.mapping.parallelism.columns import Columns
from hwsim.mapping.parallelism.stages import Loads, balance, stage_loads

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pass:
    """One micro-batch through all layers of one phase: seconds of each layer, of the two ends, and of a send."""

    layers: Array
    first: float
    last: float
    handover: float

    def loads(self, stages: int) -> Loads:
        """As loads of equal devices without a memory limit."""
        load = np.broadcast_to(self.layers, (stages, len(self.layers)))
        ends = (self.first, 0.0), (self.last, 0.0)
        return Loads(load, np.zeros_like(load), np.full(stages, np.inf), *ends, self.handover)


def refiner(search: Search, columns: Columns) -> Refine:
    """The function that puts the layers of a column on stages. It raises InfeasibleError where memory forbids it."""

    def refine(index: int) -> Refined:
        layout = columns.layouts[int(columns.layout[index])]
        if layout.pp == 1:
            return as_is(columns, index)
        scenario = scenario_of(search, layout, int(columns.batch[index]), layout.dp)
        result = estimate(search.model, search.platform, scenario, search.formats)
        one = refined(search, index, result)
        return _in_loop(search, columns, one, result) if search.continuous else one

    return refine


def _in_loop(search: Search, columns: Columns, one: Refined, result: Estimate) -> Refined:
    """A refined static batch as a closed loop: prompts and steps are slower by what uneven stages make them."""
    static = {name: np.array([float(value)]) for name, value in figures_of(result).items()}
    prompts = one.ttft_s / static["ttft_s"][0]
    step = static["tpot_s"][0]
    steps = one.tpot_s / step
    ttft = (columns.ttft_s[one.index] - step) * prompts + step * steps
    tpot = (columns.tpot_s[one.index] - step) * prompts + step * steps
    found = figures_at(static, np.array([ttft]), np.array([tpot]), loop_of(search, result.scenario))
    return replace(one, **{name: float(value[0]) for name, value in found.items()})  # type: ignore[arg-type]


def refined(search: Search, index: int, result: Estimate) -> Refined:
    """An estimate of a pipeline with its layers on stages."""
    scenario, platform = result.scenario, result.platform
    labels = layer_labels(search.model, result)
    passes = [pass_of(phase.timeline, labels, scenario.pp) for phase in result.phases]
    micro = int(passes_of(scenario))
    steps = float(scenario.output_tokens) - 1.0 if len(passes) > 1 else 0.0
    partition = balance(_combined(passes, result, labels, (micro, steps)))
    sums = [stage_loads(one.loads(scenario.pp), partition.cuts) for one in passes]
    ttft = float(sums[0].sum() + (micro - 1) * sums[0].max())
    tpot = float(max(sums[1].sum(), micro * sums[1].max())) if len(sums) > 1 else 0.0
    latency = ttft + steps * tpot
    old = result.metrics
    tokens = float(old["throughput_tokens_per_s"].value * old["latency_s"].value)
    slower = latency - float(old["latency_s"].value)
    power = float(static_power_w(platform, scenario.devices, scenario.efficiency))
    energy = float(old["energy_j_per_token"].value) * tokens + power * slower
    price = platform.price
    cost = float("nan")
    if price is not None:
        cost = float(money.usd_per_mtok(money.bill_usd(price, scenario.devices, latency, energy), tokens))
    return Refined(index, ttft, tpot, latency, tokens / latency, energy / tokens, cost, partition)


def layer_labels(model: Any, result: Estimate) -> tuple[str, ...]:
    """Segment of every layer in order: the model's own order, or its segments one after another."""
    from hwsim.frontends.block import layer_labels as labels_of

    counts: dict[str, int] = {}
    for phase in result.phases:
        for interval in phase.timeline.intervals:
            operator = interval.task.operator
            if operator.segment not in ("embed", "head") and not operator.name.startswith("pipeline."):
                counts.setdefault(operator.segment, operator.repeat)
    spec = getattr(model, "spec", None)
    if spec is not None and spec.arch == "decoder":
        own = labels_of(spec)
        if set(own) == set(counts) and all(own.count(name) == count for name, count in counts.items()):
            return own
    return tuple(name for name, count in counts.items() for _ in range(count))


def pass_of(timeline: Timeline, labels: tuple[str, ...], stages: int) -> Pass:
    """Seconds by layer; host overhead is spread over the layers, sends over the boundaries."""
    seconds: dict[str, float] = {}
    for interval in timeline.intervals:
        operator = interval.task.operator
        key = "send" if operator.name.startswith("pipeline.") else operator.segment
        seconds[key] = seconds.get(key, 0.0) + float(interval.cost.time_s) * interval.task.count
    host = float(timeline.overhead_s) / len(labels)
    layers = np.array([seconds.get(name, 0.0) / labels.count(name) + host for name in labels])
    return Pass(
        layers, seconds.get("embed", 0.0), seconds.get("head", 0.0), seconds.get("send", 0.0) / max(stages - 1, 1)
    )


def _combined(passes: list[Pass], result: Estimate, labels: tuple[str, ...], counts: tuple[int, float]) -> Loads:
    """Loads to balance: each phase by how often its slowest stage is waited for, with the memory of each layer."""
    micro, steps = counts
    weights = [float(max(micro - 1, 1)), float(max(steps * micro, 1))][: len(passes)]
    stages = result.scenario.pp
    layer = sum((w * one.layers for w, one in zip(weights, passes, strict=True)), np.zeros(len(labels)))
    ends = [sum(w * getattr(one, name) for w, one in zip(weights, passes, strict=True)) for name in ("first", "last")]
    handover = sum(w * one.handover for w, one in zip(weights, passes, strict=True))
    held, first, last = held_bytes(result, labels, float(result.memory.kv_cache_bytes) * stages)
    memory = result.memory
    capacity = float(memory.usable_bytes) - float(memory.activations_bytes)
    shape = (stages, len(labels))
    return Loads(
        np.broadcast_to(layer, shape),
        np.broadcast_to(held, shape),
        np.full(stages, capacity),
        (ends[0], first),
        (ends[1], last),
        handover,
    )


def held_bytes(result: Estimate, labels: tuple[str, ...], cache_bytes: float) -> tuple[Array, float, float]:
    """Weights and cache of each layer on one device, and the weights of the two ends.

    `cache_bytes` is the cache of all layers on one device of a stage.
    """
    by_segment: dict[str, dict[str, float]] = {}
    graphs: list[MappedGraph] = [phase.timeline.graph for phase in result.phases]
    for graph in graphs:
        for task in graph.tasks:
            for tensor in task.operator.weights:
                by_segment.setdefault(task.operator.segment, {})[tensor.name] = float(tensor.stored_bytes) * task.count
    total = {name: sum(sizes.values()) for name, sizes in by_segment.items()}
    cache = cache_bytes / len(labels)
    layers = np.array([total.get(name, 0.0) / labels.count(name) + cache for name in labels])
    return layers, total.get("embed", 0.0), total.get("head", 0.0)
