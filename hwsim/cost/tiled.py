"""What a mapper's tiling adds to the ideal of a task: idle multipliers, bytes fetched twice, busy ports.

A mapper's choice stands in ``task.choice["tiling"]`` (written by `hwsim.mapping.decide`) as plain numbers of one
execution: `compute_s` at the clock and the multipliers of the machine, `excess_bytes` at the main memory beyond every
tensor once, `level_s` by on-chip port, `moved_bytes` by memory. Without a choice the ideal stays as it is.

Law: no part is smaller than its ideal, so a mapped task is never faster than the roofline of the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.cost import energy
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Platform


def tiling_of(task: Task) -> Mapping[str, Any] | None:
    """The choice of a tiling mapper for this task, or None."""
    found: Mapping[str, Any] | None = task.choice.get("tiling")
    return found


def lifted(task: Task, platform: Platform, ideal_s: Mapping[str, Num]) -> dict[str, Num]:
    """Seconds by resource at datasheet rates with the tiling in place of the ideal; the ideal without one.

    ideal_s: ``compute`` and memory levels, as `roofline.floor_parts` gives them. Shapes broadcast with the device.
    """
    parts, tiling = dict(ideal_s), tiling_of(task)
    if tiling is None:
        return parts
    main = platform.device.main_memory
    parts["compute"] = plain(np.maximum(parts.get("compute", 0.0), tiling["compute_s"]))
    for name, seconds in tiling["level_s"].items():
        parts[name] = plain(np.maximum(parts.get(name, 0.0), seconds))
    parts[main.name] = parts.get(main.name, 0.0) + tiling["excess_bytes"] / main.read_bytes_per_s
    return parts


def extra_energy_j(task: Task, platform: Platform) -> Num:
    """Joules of the bytes that the tiling moves beyond the ideal.

    On-chip levels that the ideal does not count are charged only where the device file gives their energy: board
    figures of an operation include them.
    """
    tiling = tiling_of(task)
    if tiling is None:
        return 0.0
    device = platform.device
    joules: Num = tiling["excess_bytes"] * energy.j_per_byte(device, device.main_memory.name)
    for memory in device.memories[:-1]:
        ideal = task.traffic_bytes.get(memory.name, 0.0)
        counted = memory.name in task.traffic_bytes or energy.np_positive(memory.energy_j_per_byte)
        if counted:
            moved = plain(np.maximum(tiling["moved_bytes"].get(memory.name, 0.0), ideal))
            joules = joules + (moved - ideal) * energy.j_per_byte(device, memory.name)
    return joules
