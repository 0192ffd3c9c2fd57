"""The one place that knows which file of `hwsim.cost` prices which kind of device.

A family module exposes ``task_cost(task, platform) -> TaskCost``. To add a family: write its file and one line here.
It may also expose ``plan(graph) -> graph`` (its own mapping choices, written into `Task.choice`, and the refusal of
what the device cannot hold), ``weights_held(device)`` and ``cache_room(device, ranks)`` (share of the weights in its
main memory; bytes for caches elsewhere), ``metrics(timelines) -> {name: Bracket}`` (figures that only this family
has) and ``takes(device) -> names`` (which kinds of mapper decisions its costs use: ``tiling``, ``mesh``, ``overlay``)
and ``tiles(operator, platform)`` (the kernels among which a mapper must pick) and ``active_power_w(device)`` (watts
above idle while it runs) and ``datasheet_cost(task, platform)`` (its bare roofline, where a task runs on devices that
the peaks of the file do not describe).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Final

from hwsim.cost import generic, roofline
from hwsim.errors import unknown_name
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline
from hwsim.ir.workload import Operator

CostFunction = Callable[[Task, Platform], TaskCost]
Plan = Callable[[MappedGraph], MappedGraph]
Tiles = tuple[tuple[int, int, int], ...]
Metrics = Callable[[Sequence[Timeline]], Mapping[str, Bracket]]

FAMILIES: Final[dict[str, str]] = {
    "gpu": "hwsim.cost.gpu",
    "tpu": "hwsim.cost.generic",
    "npu": "hwsim.cost.npu",
    "cpu": "hwsim.cost.cpu",
    "soc": "hwsim.cost.generic",
    "fpga": "hwsim.cost.fpga",
    "wafer": "hwsim.cost.wafer",
    "flash": "hwsim.cost.storage",
    "hybrid": "hwsim.cost.hybrid",
    "pim": "hwsim.cost.pim",
    "cxl": "hwsim.cost.cxl",
    "split": "hwsim.cost.split",
    "systolic": "hwsim.cost.generic",
}


_OPERATORS_ALONE: Final = frozenset({"fpga", "wafer", "pim", "cpu", "npu", "flash", "hybrid"})


def cost_function(kind: str, efficiency: str = "calibrated") -> CostFunction:
    """The function that prices a task on a device of `kind`.

    `efficiency` ``datasheet`` gives the bare roofline for every family.
    Raises UnknownNameError for an unknown kind or efficiency.
    """
    if efficiency not in ("calibrated", "datasheet"):
        raise unknown_name("efficiency", efficiency, ("calibrated", "datasheet"))
    module = _module(kind)
    if efficiency == "datasheet":
        bare: CostFunction = getattr(module, "datasheet_cost", roofline.task_cost)
        return bare
    function: CostFunction = module.task_cost
    return partial(_with_links, function) if kind in _OPERATORS_ALONE else function


def _with_links(function: CostFunction, task: Task, platform: Platform) -> TaskCost:
    """Families whose laws are of operators alone: what several of them exchange takes the links of their file."""
    return generic.task_cost(task, platform) if task.kind == "collective" else function(task, platform)


def plan(graph: MappedGraph) -> MappedGraph:
    """The graph with the choices of its device family made. Raises InfeasibleError where there is none."""
    choose: Plan | None = getattr(_module(graph.platform.device.kind), "plan", None)
    return graph if choose is None else choose(graph)


def family_metrics(timelines: Sequence[Timeline]) -> dict[str, Bracket]:
    """Metrics that only this device family has (none for most)."""
    measure: Metrics | None = getattr(_module(timelines[0].graph.platform.device.kind), "metrics", None)
    return {} if measure is None else dict(measure(timelines))


def active_power_w(device: Device, efficiency: str = "calibrated") -> Num:
    """Watts above idle that a device draws while it runs, beside the energy of its operations and bytes.

    0 for families that measure a whole board and in the bare roofline.
    """
    ask: Callable[[Device], Num] | None = getattr(_module(device.kind), "active_power_w", None)
    return 0.0 if ask is None or efficiency == "datasheet" else ask(device)


def takes(device: Device) -> tuple[str, ...]:
    """Kinds of mapper decisions that the cost model of a device uses (none for most families)."""
    ask: Callable[[Device], tuple[str, ...]] | None = getattr(_module(device.kind), "takes", None)
    return () if ask is None else ask(device)


def tiles(operator: Operator, platform: Platform) -> Tiles | None:
    """(rows, columns, splits of K) among which a mapper must pick for an operator.

    None: any tiling is priced. Empty: the family's kernel of this operator takes no decision.
    """
    ask: Callable[..., Tiles | None] | None = getattr(_module(platform.device.kind), "tiles", None)
    return None if ask is None else ask(operator, platform)


_OWN_SECTIONS: Final = ("fpga", "mesh", "pim", "cpu", "phone", "flash", "offload", "cxl")


# kind -> section without which its family cannot price anything (CPUs and phones fall back to the generic model)
REQUIRED_SECTIONS: Final = {
    "fpga": "fpga", "wafer": "mesh", "flash": "flash", "hybrid": "offload", "pim": "pim", "cxl": "cxl",
    "split": "split",
}  # fmt: skip


def missing_section(device: Device) -> str | None:
    """The section that the family of a device needs and its file lacks, if any."""
    needed = REQUIRED_SECTIONS.get(device.kind)
    return needed if needed is not None and needed not in device.extra else None


def has_own_model(device: Device) -> bool:
    """Whether a section of its file prices the device, so that it needs no calibration of kernels."""
    return any(name in device.extra for name in _OWN_SECTIONS)


def weights_held(device: Device) -> float:
    """Share of the weights that main memory holds: all of them, except where they lie in flash."""
    ask: Callable[[Device], float] | None = getattr(_module(device.kind), "weights_held", None)
    return 1.0 if ask is None else ask(device)


def cache_room(device: Device, ranks: int) -> Num | None:
    """Bytes for the caches of one of `ranks` devices where they lie on other devices; None: in its own memory."""
    ask: Callable[[Device, int], Num | None] | None = getattr(_module(device.kind), "cache_room", None)
    return None if ask is None else ask(device, ranks)


def _module(kind: str) -> ModuleType:
    if kind not in FAMILIES:
        raise unknown_name("device kind", kind, FAMILIES)
    return importlib.import_module(FAMILIES[kind])
