"""A `TaskCost` from the value of a family model, its parts, and the floor at datasheet peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest, total
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost


@dataclass(frozen=True, slots=True)
class Floors:
    """Seconds by resource at datasheet peaks, and the mechanisms that exempt a task from one (see `TaskCost`)."""

    parts_s: Mapping[str, Num]
    instead: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def floor_s(self) -> Num:
        """The largest part that the task itself waits for."""
        return largest({name: seconds for name, seconds in self.parts_s.items() if name not in self.beside})


def held(
    task: Task,
    platform: Platform,
    own_s: Mapping[str, Num] | None = None,
    *,
    instead: Mapping[str, str] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Floors:
    """The datasheet's parts of a task, raised by a family's own; `instead` names those that it states another way."""
    stated = instead or {}
    parts = {name: s for name, s in floor_parts(task, platform).items() if name not in stated}
    for name, seconds in (own_s or {}).items():
        parts[name] = plain(np.maximum(parts.get(name, 0.0), seconds))
    return Floors(parts, stated, beside or {})


def board(task: Task, platform: Platform, power_run_w: float) -> tuple[Num, Num | None]:
    """`run_w` and `energy_j` of `bracketed`: a measured board power; without one, operations and bytes of the task."""
    if power_run_w:
        return max(power_run_w - float(np.max(platform.device.power.idle_w)), 0.0), None
    return 0.0, dynamic_energy_j(task, platform)


def board_notes(device: Device, section: str) -> tuple[str, ...]:
    """The note that the power of a device at work is an estimate, where its section does not state it."""
    if device.extra[section]["power_run"]:
        return ()
    return (f"{device.name} states no {section}.power_run: power at work is estimated from operations and bytes",)


def bracketed(
    value_s: Num,
    parts_s: Mapping[str, Num],
    floors: Floors,
    band: float,
    *,
    run_w: Num = 0.0,
    energy_j: Num | None = None,
    model: str = "",
) -> TaskCost:
    """Bracket of one execution: value within a factor `band`, never below the floor.

    `run_w` (watts above idle while the device works) gives the energy where the family measured power, else
    `energy_j`. A value below the floor is raised to it: a fitted model may not beat the datasheet.
    """
    floor = floors.floor_s
    value = plain(np.maximum(value_s, floor))
    low = plain(np.maximum(value / band, floor))
    high = value * band
    ceiling = plain(np.maximum(total(parts_s) * band, high))
    joules = run_w * value if energy_j is None else energy_j
    return TaskCost(
        value,
        low,
        high,
        floor,
        ceiling,
        dict(parts_s),
        dict(floors.parts_s),
        joules,
        model,
        floors.instead,
        floors.beside,
    )
