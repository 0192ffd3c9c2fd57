"""The distinct matrix multiplies of a workload graph, with how often each is executed.

Attention is taken as its two batched products over the whole rectangle of queries and keys (a causal mask saves
nothing here), the query heads of one KV head stacked as rows; an expert layer as equal shares of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from hwsim.errors import InputError
from hwsim.ir.workload import Operator, WorkloadGraph
from hwsim.mapping.problem import Gemm


@dataclass(frozen=True, slots=True)
class Work:
    """One distinct GEMM: `count` executions in the graph by the operators named `used_by`."""

    gemm: Gemm
    count: int
    used_by: tuple[str, ...]


def works_of(graph: WorkloadGraph) -> tuple[Work, ...]:
    """Distinct GEMMs in order of appearance; operators without a matrix multiply are left out.

    Raises InputError for a grid of scenarios (arrays) and for a graph without any matrix multiply.
    """
    found: dict[tuple[int, int, int, int], tuple[int, tuple[str, ...]]] = {}
    for operator in graph.operators:
        for name, gemm, times in products(operator):
            count, names = found.get(gemm, (0, ()))
            found[gemm] = (count + times * operator.repeat, (*names, name))
    if not found:
        raise InputError(f"{graph.name} has no matrix multiply to map", where="WORKLOAD")
    return tuple(
        Work(Gemm(m, n, k, batch, names[0]), count, names) for (batch, m, n, k), (count, names) in found.items()
    )


def merge(graphs: Sequence[WorkloadGraph]) -> tuple[Work, ...]:
    """Distinct GEMMs of several phases; names carry their phase where there is more than one. Raises as `works_of`."""
    if len(graphs) == 1:
        return works_of(graphs[0])
    operators = tuple(replace(op, name=f"{g.phase}.{op.name}") for g in graphs for op in g.operators)
    return works_of(replace(graphs[0], operators=operators))


def products(operator: Operator) -> list[tuple[str, tuple[int, int, int, int], int]]:
    """(name, (batch, m, n, k), executions) of the matrix multiplies inside one operator."""
    d = {key: _whole(operator, key, value) for key, value in operator.dims.items() if operator.kind in _READERS}
    return _READERS[operator.kind](operator.name, d) if operator.kind in _READERS else []


def _whole(operator: Operator, key: str, value: object) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return ceil(value)
    raise InputError("a tiling maps one scenario, not a grid", where=f"{operator.name}.{key}", seen=repr(value)[:60])


def _gemm(name: str, d: dict[str, int]) -> list[tuple[str, tuple[int, int, int, int], int]]:
    return [(name, (d.get("batch", 1), d["m"], d["n"], d["k"]), 1)]


def _attention(name: str, d: dict[str, int]) -> list[tuple[str, tuple[int, int, int, int], int]]:
    context = d["context"] if "context" in d else d["q_len"] + d.get("prefix", 0)
    context = min(context, d["window"]) if d.get("window") else context
    rows = d.get("q_len", 1) * (d["n_heads"] // d["n_kv_heads"])
    batch = d["batch"] * d["n_kv_heads"]
    value = d.get("v_head_dim") or d["head_dim"]
    return [
        (f"{name}.qk", (batch, rows, context, d["head_dim"]), 1),
        (f"{name}.av", (batch, rows, value, context), 1),
    ]


def _moe(name: str, d: dict[str, int]) -> list[tuple[str, tuple[int, int, int, int], int]]:
    active = max(d["active_experts"], 1)
    rows = ceil(d["tokens"] * d["topk"] / active)
    return [
        (f"{name}.up", (active, rows, d["inter"], d["hidden"]), d["matrices"] - 1),
        (f"{name}.down", (active, rows, d["hidden"], d["inter"]), 1),
    ]


_READERS = {"gemm": _gemm, "attention_prefill": _attention, "attention_decode": _attention, "moe": _moe}
