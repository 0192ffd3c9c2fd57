"""The matrices that a fused projection, or a fused mixture of experts, stands for.

Graphs fuse projections that share an input (query, key and value; gate and up). Devices that compile one instruction
group or one mesh layout a matrix need the single widths, because each is padded to the tile by itself.
"""

from __future__ import annotations

from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num


def widths(graph: MappedGraph) -> dict[str, tuple[Num, ...]]:
    """Task name -> output widths of its matrices; a projection that is not fused has its own width alone."""
    heads = {t.operator.segment: t.operator.dims for t in graph.tasks if t.kind.startswith("attention")}
    return {task.name: _widths(task, heads.get(task.operator.segment)) for task in graph.tasks if task.kind == "gemm"}


def _widths(task: Task, heads: object) -> tuple[Num, ...]:
    width = task.operator.dims["n"]
    name = task.name.rpartition(".")[2]
    if name.endswith("gate_up"):
        return (width / 2, width / 2)
    if name == "gates":
        return (width / 3,) * 3
    if name == "qkv" and isinstance(heads, dict):
        query = heads["n_heads"] * heads["head_dim"]
        key, value = heads["n_kv_heads"] * heads["head_dim"], heads["n_kv_heads"] * heads["v_head_dim"]
        return (query, key, value) if query + key + value == width else (width,)
    return (width,)


def expert_products(task: Task) -> tuple[tuple[tuple[Num, Num, Num], ...], Num]:
    """(rows, depth, width) of the products of one active expert, and the number of active experts.

    Assumption: tokens spread evenly over the experts that they touch, so each sees tokens x picked / active rows.
    """
    dims = task.operator.dims
    active, hidden, inner = dims["active_experts"], dims["hidden"], dims["inter"]
    rows = dims["tokens"] * dims["topk"] / active
    return (*((rows, hidden, inner),) * (int(dims["matrices"]) - 1), (rows, inner, hidden)), active
