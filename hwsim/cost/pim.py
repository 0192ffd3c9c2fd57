"""Cache arrays that compute bit-serially beside a CPU: look-up-table GEMV (SAIL, arXiv 2509.25853).

Only the abstract's numbers of that paper are public; this is the mechanism, with the bit-serial primitives of Neural
Cache (ISCA 2018): an add of m-bit operands takes m + 1 cycles. A table of the 2^n partial sums of n weights is built in
the columns, and each bit-plane of n activations selects one entry:

- build = (2^n - n - 1) (b_w + ceil(log2 n) + 1);  use = B b_a (1 - reuse repeated) (select + b_c + 1)
- cycles a MAC = (build + use) / (n B), least over the n whose table fits the rows
- time = max(weight bytes / DRAM rate, MACs x cycles / (arrays x share x columns x clock))
- all else stays on the CPU: max(bytes / DRAM rate, bytes / cache rate, operations / the peak of its vector units)

Formulas: docs/formulas/pim.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost import fused
from hwsim.cost.bracketed import bracketed, held
from hwsim.cost.generic import COMPUTE_EFFICIENCY
from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 2.0  # no point of this machine is published
MEMORY_EFFICIENCY: Final = 0.8  # of the DRAM: ai-dynamo/aiconfigurator empirical scale
GROUPS: Final = (1, 2, 3, 4, 5, 6, 7, 8)
IN_ARRAYS: Final = ("gemm", "moe")
_BIT_SERIAL: Final = "arrays compute bit by bit: cycles by the width of the weights and the size of the table"


def plan(graph: MappedGraph) -> MappedGraph:
    """Check that some table fits the rows of an array, and count matrices as the 8-bit work that arrays do.

    Raises InfeasibleError naming the rows that are missing.
    """
    o = _section(graph.platform.device)
    for task in graph.tasks:
        if task.kind in IN_ARRAYS and task.operator.segment != "head":
            bits = _bits(task)
            groups = (o["group"],) if o["group"] else GROUPS
            depth = max(float(np.max(k)) for _, k, _ in _products(task)[0])
            needed = min(_rows(n, bits, o["activation_bits"], depth) for n in groups)
            if needed > o["rows"]:
                raise InfeasibleError(
                    f"a look-up table of {bits:g}-bit weights needs {needed - o['rows']:g} rows more than an array has",
                    where=task.name,
                    seen=f"{needed:g} of {o['rows']}",
                    fix="a smaller pim.group or --weights format",
                    budget={"rows_needed": needed, "rows": o["rows"]},
                )
    return replace(graph, tasks=tuple(_in_arrays(task) for task in graph.tasks))


def _in_arrays(task: Task) -> Task:
    """The task with its operations as int8: arrays take no wider operand. All else runs on the CPU's vector units."""
    if task.kind not in IN_ARRAYS:
        return replace(task, operator=task.operator.with_(unit="vector"))
    return replace(task, operator=task.operator.with_(dtype="int8"), flop={"int8": task.operator.flop})


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution: matrices in the arrays, everything else on the CPU."""
    device, o = platform.device, _section(platform.device)
    demand = floor_parts(task, platform)
    in_arrays = task.kind in IN_ARRAYS
    parts = {
        "memory" if name == device.main_memory.name else name: plain(seconds / MEMORY_EFFICIENCY)
        for name, seconds in demand.items()
        if name in task.traffic_bytes
    }
    parts["pim"] = plain(cycles(task, o) / _speed(o))
    parts["cpu"] = 0.0 if in_arrays else plain(demand.get("compute", 0.0) / COMPUTE_EFFICIENCY)
    energy = dynamic_energy_j(task, platform)
    own = {"compute": parts["pim"]} if in_arrays else None
    floors = held(task, platform, own, instead={"compute": _BIT_SERIAL} if in_arrays else None)
    return bracketed(largest(parts), parts, floors, BAND, energy_j=energy, model="pim")


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Array cycles of the last phase, over all columns."""
    graph = timelines[-1].graph
    o = _section(graph.platform.device)
    total = sum((cycles(t, o) * t.count for t in graph.tasks), 0.0)
    return {"pim_cycles": Bracket(plain(total))}


def cycles(task: Task, o: Mapping[str, Any]) -> Num:
    """Column cycles of one execution: MACs x cycles a MAC, by the best table size; 0 for what the CPU does."""
    if task.kind not in IN_ARRAYS:
        return 0.0
    products, times = _products(task)
    return times * sum((_product_cycles(product, _bits(task), o) for product in products), 0.0)


def _products(task: Task) -> tuple[tuple[tuple[Num, Num, Num], ...], Num]:
    """(rows, depth, width) of the matrices of a task, and how many times they run."""
    if task.kind == "moe":
        return fused.expert_products(task)
    dims = task.operator.dims
    return ((dims["m"] * dims.get("batch", 1), dims["k"], dims["n"]),), 1


def _product_cycles(product: tuple[Num, Num, Num], bits: float, o: Mapping[str, Any]) -> Num:
    rows, depth, width = product
    deepest = float(np.max(depth))
    groups = (o["group"],) if o["group"] else GROUPS
    legal = [n for n in groups if _rows(n, bits, o["activation_bits"], deepest) <= o["rows"]]
    options = [cycles_per_mac(n, bits, rows, deepest, o) for n in legal or groups[:1]]
    return rows * depth * width * np.minimum.reduce([np.asarray(c, float) for c in options])


def cycles_per_mac(group: int, bits: float, batch: Num, depth: float, o: Mapping[str, Any]) -> Num:
    """(build + use) / (group x batch); patterns repeated among the bit-planes of one vector are looked up once.

    Repeats across the vectors of a batch save nothing here: each vector has an accumulator of its own.
    """
    window, planes = o["activation_bits"], np.asarray(batch) * o["activation_bits"]
    build = (2**group - group - 1) * (bits + _log2(group) + 1)
    distinct = 2**group * (1 - (1 - 2.0**-group) ** window)
    repeated = max(1 - distinct / window, 0.0)
    wide = bits + o["activation_bits"] + _log2(depth)
    use = planes * (1 - o["reuse"] * repeated) * (o["select_cycles"] + wide + 1)
    return plain((build + use) / (group * np.asarray(batch)))


def _rows(group: int, bits: float, activation_bits: float, depth: float) -> float:
    return 2**group * (bits + _log2(group)) + bits + activation_bits + _log2(depth)


def _log2(value: float) -> int:
    return math.ceil(math.log2(value)) if value > 1 else 0


def _bits(task: Task) -> float:
    """Weight bits in the arrays: what is kept wider in memory is requantised to 8 on its way."""
    return min(task.operator.weights[0].format.element_bits, 8.0) if task.operator.weights else 8.0


def _speed(o: Mapping[str, Any]) -> float:
    return float(o["arrays"] * o["share"] * o["columns"] * o["clock"])


def _section(device: Device) -> Mapping[str, Any]:
    section: Mapping[str, Any] | None = device.extra.get("pim")
    if section is None:
        raise InfeasibleError(f"{device.name} has no pim section", fix="add pim: to its file")
    return section
