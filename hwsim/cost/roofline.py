"""The law: a task takes at least the largest of its parts and at most their sum.

floor = max over resources of demand / datasheet peak; ceiling = their sum. Assumption: dense peaks, no overlap
lost below the floor, none gained above the ceiling. Units: seconds. Source: Williams et al., CACM 2009.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.cost import collectives, energy, tiled
from hwsim.cost.peaks import Path, compute_path
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost


def floor_parts(task: Task, platform: Platform) -> dict[str, Num]:
    """Seconds by resource of one execution at datasheet peaks: ``compute``, each memory level, ``link``."""
    device = platform.device
    parts: dict[str, Num] = {}
    for demand, flop in task.flop.items():
        path = demand_path(task, device, demand)
        part = "compute" if path.unit == task.operator.unit or "/" not in demand else path.unit
        parts[part] = parts.get(part, 0.0) + flop / path.peak_flop_per_s
    for level, traffic in task.traffic_bytes.items():
        parts[level] = traffic / device.memory(level).read_bytes_per_s
    if task.kind == "collective":
        dims = task.operator.dims
        parts["link"] = collectives.wire_time_s(task.operator.op, dims["bytes"], dims["ranks"], platform)
    return parts


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """The bare roofline of one execution, no claim of accuracy (low = high = value).

    The value is the floor, or what a mapper's tiling adds to it (`hwsim.cost.tiled`).
    """
    floors = floor_parts(task, platform)
    parts = tiled.lifted(task, platform, floors)
    value = largest(parts)
    energy_j = dynamic_energy_j(task, platform)
    return TaskCost(value, value, value, largest(floors), total(parts), parts, floors, energy_j)


def demand_path(task: Task, device: Device, demand: str) -> Path:
    """Compute path of one key of `task.flop`: ``dtype`` on the operator's unit, or ``unit/dtype`` (dequantization)."""
    unit, _, dtype = demand.rpartition("/")
    return compute_path(device, dtype, unit or task.operator.unit)


def dynamic_energy_j(task: Task, platform: Platform) -> Num:
    """Joules of the operations and bytes of one execution (static energy is added over the makespan)."""
    device = platform.device
    joules: Num = 0.0
    for demand, flop in task.flop.items():
        path = demand_path(task, device, demand)
        joules = joules + flop * energy.j_per_flop(device, path.dtype, path.unit)
    for level, traffic in task.traffic_bytes.items():
        joules = joules + traffic * energy.j_per_byte(device, level)
    joules = joules + tiled.extra_energy_j(task, platform)
    if task.kind == "collective":
        name = platform.scale_up.name if platform.scale_up is not None else "link"
        sent = collectives.wire_bytes(task.operator.op, task.operator.dims["bytes"], task.operator.dims["ranks"])
        joules = joules + sent * energy.j_per_byte(device, name)
    return joules


def largest(parts: Mapping[str, Num]) -> Num:
    """Element-wise maximum of the parts."""
    values = list(parts.values())
    out: Num = values[0] if values else 0.0
    for value in values[1:]:
        out = np.maximum(out, value) if np.ndim(out) or np.ndim(value) else max(out, value)
    return out


def total(parts: Mapping[str, Num]) -> Num:
    """Element-wise sum of the parts."""
    out: Num = 0.0
    for value in parts.values():
        out = out + value
    return out
