"""Processors without a fitted model of their own (TPU, NPU, CPU): roofline with two efficiencies and a launch cost.

t = launch + (C^p + M^p)^(1/p), C = compute / e_c, M = bytes / e_m, p = 4. Efficiencies are typical sustained shares
of datasheet peaks: 0.75 of matrix peak on large GEMMs and 0.80 of memory bandwidth (`mem_bw_empirical_scale` 0.8 in
ai-dynamo/aiconfigurator systems files). Nothing here is fitted, so the band is wide: x/1.45, about the spread that
two efficiencies with a launch floor leave on measured GPU kernels (30-36 % mean error, docs/accuracy.md).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hwsim.cost import collectives, tiled
from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest, total
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost

# All four as the docstring says.
COMPUTE_EFFICIENCY: Final = 0.75  # of the matrix peak
MEMORY_EFFICIENCY: Final = 0.80  # of the datasheet bandwidth
OVERLAP_EXPONENT: Final = 4  # p: infinity would be perfect overlap
BAND: Final = 1.45  # times and divided by


def takes(device: Device) -> tuple[str, ...]:
    """Tilings: their bytes and steps take the place of the ideal (`hwsim.cost.tiled`)."""
    return ("tiling",)


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution on a device without a calibration."""
    floors = floor_parts(task, platform)
    launch = platform.device.overheads.launch_s * task.launches
    parts: dict[str, Num] = {
        name: seconds / (COMPUTE_EFFICIENCY if name == "compute" else MEMORY_EFFICIENCY)
        for name, seconds in tiled.lifted(task, platform, floors).items()
    }
    if task.kind == "collective":
        dims = task.operator.dims
        wire = collectives.time_s(task.operator.op, dims["bytes"], dims["ranks"], platform)
        parts["link"] = floors["link"] / MEMORY_EFFICIENCY + (wire - floors["link"])
    smooth = total({k: v**OVERLAP_EXPONENT for k, v in parts.items()}) ** (1 / OVERLAP_EXPONENT)
    value = launch + smooth
    floor = largest(floors)
    ceiling = (launch + total(parts)) * BAND
    low = plain(np.maximum(value / BAND, floor))
    return TaskCost(
        value,
        low,
        value * BAND,
        floor,
        ceiling,
        {**parts, "launch": launch},
        floors,
        dynamic_energy_j(task, platform),
        "generic",
    )
