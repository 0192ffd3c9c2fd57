"""The analytic engine: one stream, tasks one after another, each priced by its device family.

Phase time = sum of task times + host overhead. Floor of the phase = the busiest resource at
datasheet peaks (perfect overlap of everything); ceiling = sum of task ceilings. Scalars and arrays by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim import laws
from hwsim.cost.registry import cost_function
from hwsim.cost.roofline import floor_parts, largest
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Platform
from hwsim.ir.result import Interval, TaskCost, Timeline


@dataclass(slots=True)
class _Totals:
    """Running sums over the tasks of a phase."""

    time_s: Num = 0.0
    low_s: Num = 0.0
    high_s: Num = 0.0
    ceiling_s: Num = 0.0

    def add(self, cost: TaskCost, count: int) -> None:
        self.time_s = self.time_s + cost.time_s * count
        self.low_s = self.low_s + cost.low_s * count
        self.high_s = self.high_s + cost.high_s * count
        self.ceiling_s = self.ceiling_s + cost.ceiling_s * count


def run(graph: MappedGraph, efficiency: str = "calibrated", *, check: bool = True) -> Timeline:
    """Price every task and lay them end to end.

    Parameters
    ----------
    graph: tasks of one device in topological order. efficiency: ``calibrated`` or ``datasheet``.
    check: assert LAW-1 on every task and on the phase (raises LawViolation).
    """
    price = cost_function(graph.platform.device.kind, efficiency)
    totals, intervals = _Totals(), []
    floors: dict[str, Num] = {}
    busy: dict[str, Num] = {}
    for task in graph.tasks:
        cost = price(task, graph.platform)
        if check:
            _check(task, cost, graph.platform)
        start = totals.time_s
        totals.add(cost, task.count)
        intervals.append(Interval(task, cost, start, totals.time_s))
        _accumulate(floors, cost.floor_parts_s, task.count)
        _accumulate(busy, cost.parts_s, task.count)
    overhead = host_overhead_s(graph, efficiency) + crowding_s(graph, efficiency, totals.time_s)
    timeline = Timeline(
        graph=graph,
        intervals=tuple(intervals),
        time_s=totals.time_s + overhead,
        low_s=totals.low_s + overhead,
        high_s=totals.high_s + overhead,
        floor_s=largest(floors),
        ceiling_s=totals.ceiling_s + overhead,
        overhead_s=overhead,
        busy_s=busy,
    )
    if check:
        _check_phase(timeline)
    return timeline


def host_overhead_s(graph: MappedGraph, efficiency: str) -> Num:
    """Host work of a step: a constant a layer, a step and a sequence (nothing in the bare roofline).

    Published batch-1 runtimes of large models follow layers x a constant, not bytes (gpu-bound hosts).
    """
    if efficiency == "datasheet":
        return 0.0
    overheads = graph.platform.device.overheads
    return overheads.layer_s * graph.layers + overheads.step_s + overheads.sequence_s * graph.batch


def crowding_s(graph: MappedGraph, efficiency: str, time_s: Num) -> Num:
    """What a prompt batch loses where its stack slows down past `prompt_knee` tokens (`Overheads`).

    Tokens past the knee take `prompt_slowdown` times as long: (slowdown - 1) x time x (1 - knee / tokens).
    """
    overheads = graph.platform.device.overheads
    if efficiency == "datasheet" or graph.phase != "prefill" or not np.any(overheads.prompt_knee):
        return 0.0
    past = np.maximum(1 - overheads.prompt_knee / np.asarray(graph.tokens), 0.0)
    return plain(np.maximum(overheads.prompt_slowdown - 1.0, 0.0) * time_s * past)


def _accumulate(into: dict[str, Num], parts: object, count: int) -> None:
    for name, seconds in dict(parts).items():  # type: ignore[call-overload]
        into[name] = into.get(name, 0.0) + seconds * count


def _check(task: Task, cost: TaskCost, platform: Platform) -> None:
    laws.finite("LAW-1", task.name, cost.time_s)
    _check_datasheet(task, cost, platform)
    laws.ordered(
        "LAW-1",
        task.name,
        floor=cost.floor_s,
        low=cost.low_s,
        value=cost.time_s,
        high=cost.high_s,
        ceiling=cost.ceiling_s,
    )


def _check_datasheet(task: Task, cost: TaskCost, platform: Platform) -> None:
    """No family sets a floor below the datasheet without stating the mechanism (`TaskCost.instead`, `.beside`)."""
    floors = {name: s for name, s in floor_parts(task, platform).items() if name not in cost.instead}
    for name, seconds in floors.items():
        laws.ordered("LAW-1", f"{task.name} on {name}", datasheet=seconds, floor=cost.floor_parts_s.get(name, 0.0))
    alone = {name: s for name, s in cost.floor_parts_s.items() if name not in cost.beside}
    laws.ordered("LAW-1", task.name, parts=largest(alone), floor=cost.floor_s)


def _check_phase(timeline: Timeline) -> None:
    laws.ordered(
        "LAW-1",
        f"the {timeline.graph.phase} phase",
        floor=timeline.floor_s,
        low=timeline.low_s,
        value=timeline.time_s,
        high=timeline.high_s,
        ceiling=timeline.ceiling_s,
    )
