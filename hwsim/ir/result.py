"""What came out: the bracketed time of a task, the timeline of a phase, the estimate of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num


@dataclass(frozen=True, slots=True)
class TaskCost:
    """Time of ONE execution of a task, as a bracket: floor <= low <= value <= high <= ceiling.

    Attributes
    ----------
    time_s: the model's value.
    floor_s: largest part at datasheet peaks (speed of light).
    ceiling_s: serial sum of the parts at the pessimistic end of the band.
    low_s, high_s: band from the calibration's residuals on data it was not fitted to (equal to the value
        where no calibration applies: the bare roofline claims no accuracy).
    parts_s: seconds by resource (``compute``, ``hbm``, ``l2``, ``link``, ``launch``): what the value is made of.
    floor_parts_s: seconds by resource at datasheet peaks.
    instead: resource -> why the datasheet time of the task's demand on it does not hold; the family's own entry of
        `floor_parts_s`, if any, stands in its place. Without such a reason no family may go below the datasheet.
    beside: resource -> why it runs beside other tasks: it counts in the floor of the phase, not of the task.
    energy_j: dynamic energy of one execution (static energy is added over the makespan).
    """

    time_s: Num
    low_s: Num
    high_s: Num
    floor_s: Num
    ceiling_s: Num
    parts_s: Mapping[str, Num]
    floor_parts_s: Mapping[str, Num]
    energy_j: Num = 0.0
    model: str = "roofline"
    instead: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def bound(self) -> str:
        """Name of the largest part (of the first point where the cost is an array)."""
        return max(self.parts_s, key=lambda name: float(np.ravel(self.parts_s[name])[0]))


@dataclass(frozen=True, slots=True)
class Interval:
    """One task on the clock: all its `count` executions together."""

    task: Task
    cost: TaskCost
    start_s: Num
    end_s: Num


@dataclass(frozen=True, slots=True)
class Timeline:
    """Intervals of one phase with the bracket of the whole."""

    graph: MappedGraph
    intervals: tuple[Interval, ...]
    time_s: Num
    low_s: Num
    high_s: Num
    floor_s: Num
    ceiling_s: Num
    overhead_s: Num = 0.0
    busy_s: Mapping[str, Num] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bracket:
    """A metric with its bracket; None where an end means nothing."""

    value: Num
    low: Num | None = None
    high: Num | None = None
    floor: Num | None = None
    ceiling: Num | None = None
