"""GPU kernel times: one family a module, calibrated or transferred parameters, and the adapter the engines call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.cost import generic, tiled
from hwsim.cost.gpu import network
from hwsim.cost.gpu.adapters import ADAPTERS
from hwsim.cost.gpu.donors import Choice, choose
from hwsim.cost.gpu.facts import facts
from hwsim.cost.gpu.family import KernelTime
from hwsim.cost.gpu.gemm import library_tiles
from hwsim.cost.gpu.power import active_power_w, within_limit_j
from hwsim.cost.gpu.registry import families
from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest, total
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost
from hwsim.ir.workload import Operator

__all__ = ["active_power_w", "kernel_time", "takes", "task_cost", "tiles"]


def takes(device: Device) -> tuple[str, ...]:
    """Tilings: the tile of a thread block, where the kernel library has it (`tiles`)."""
    return ("tiling",)


def tiles(operator: Operator, platform: Platform) -> tuple[tuple[int, int, int], ...] | None:
    """(rows, columns, splits of K) that a kernel of the library offers for a GEMM.

    Empty where a kernel family prices the operator by tiles of its own (attention, experts). None where no family
    covers it: the generic model takes any tiling.
    """
    name, columns_of = ADAPTERS.get(operator.kind, ("", None))
    columns = columns_of(operator, platform) if columns_of is not None else None
    if columns is None or platform.device.calibration is None or name not in families():
        return None
    kernel_class = str(np.ravel(families()[name].kernel_class(columns))[0])
    if not choose(platform.device.calibration, families()[name], kernel_class).donor:
        return None
    return library_tiles(_floats(columns), facts(platform.device), kernel_class) if name == "gemm" else ()


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution of a task on a GPU, weights cold in DRAM, launched from a CUDA graph.

    Operators outside the kernel families and devices without any calibration take the generic two-efficiency model,
    collectives across nodes that of `hwsim.cost.gpu.network`. Never below the floor at datasheet peaks; power never
    above the board's limit.
    """
    found = kernel_time(task, platform)
    cost = _other_cost(task, platform) if found is None else _kernel_cost(task, platform, *found)
    return replace(cost, energy_j=within_limit_j(cost.energy_j, cost.time_s, platform.device))


def _other_cost(task: Task, platform: Platform) -> TaskCost:
    far = task.kind == "collective" and bool(np.max(task.operator.dims["ranks"]) > platform.node_size)
    cost = network.task_cost(task, platform) if far else None
    return generic.task_cost(task, platform) if cost is None else cost


def _kernel_cost(task: Task, platform: Platform, time: KernelTime, choice: Choice) -> TaskCost:
    floors = floor_parts(task, platform)
    floor = largest(floors)
    extra = (task.launches - 1) * time.parts_s["launch"] if task.launches > 1 else 0.0
    value = np.maximum(time.time_s + extra, floor)
    low, high = choice.band(value)
    parts = {name: plain(seconds) for name, seconds in time.parts_s.items()}
    ceiling = np.maximum(total({**parts, "extra": extra}), value) * (high / value)
    return TaskCost(
        plain(value),
        plain(np.maximum(low, floor)),
        plain(high),
        plain(floor),
        plain(np.maximum(ceiling, high)),
        parts,
        floors,
        dynamic_energy_j(task, platform),
        f"gpu/{task.kind} ({choice.donor} {choice.kernel_class})",
    )


def kernel_time(task: Task, platform: Platform) -> tuple[KernelTime, Choice] | None:
    """Model time of a task and the parameters used; None where no kernel family or no calibration covers it."""
    device = platform.device
    if device.calibration is None or task.kind not in ADAPTERS:
        return None
    name, columns_of = ADAPTERS[task.kind]
    columns = columns_of(task.operator, platform)
    if columns is None or name not in families():
        return None
    columns = {**columns, **_asked_tile(task)}
    family = families()[name]
    kernel_class = str(np.ravel(family.kernel_class(columns))[0])
    choice = choose(device.calibration, family, kernel_class)
    if not choice.donor:
        return None
    numbers = _floats(columns)
    time = family.time(numbers, facts(device), kernel_class, choice.parameters)
    if all(np.ndim(v) == 0 for v in numbers.values()) and np.shape(time.time_s) == (1,):
        # name columns are arrays of one row; a scalar question gets a scalar answer
        time = KernelTime(time.time_s[0], {name: np.ravel(part)[0] for name, part in time.parts_s.items()})
    return time, choice


def _asked_tile(task: Task) -> dict[str, Any]:
    """Columns that name the thread block's tile of a mapper's choice."""
    block = (tiled.tiling_of(task) or {}).get("block")
    return {} if block is None else {f"tile_{key}": block[key] for key in ("rows", "cols", "split")}


def _floats(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as float64 (exact counts of large models are Python ints beyond int64)."""
    return {n: v if isinstance(v, str) else np.asarray(v, dtype=np.float64) for n, v in columns.items()}
