"""A graph with every copy of every layer an item of its own: larger, but what folding loses is not lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.mapping.blocks.fold import runs, unrolled
from hwsim.mapping.placement.problem import Choice, Flow, GraphProblem, Item

Array = np.ndarray[Any, Any]
Key = tuple[int, int]  # item, copy


def unrolled_problem(problem: GraphProblem) -> GraphProblem:
    """The same problem without repeats, in the order of execution; columns of a copy follow one another as before."""
    order = _order(problem)
    index = {key: at for at, key in enumerate(order)}
    own = [np.flatnonzero(problem.column_item == i) for i in range(len(problem.items))]
    columns = tuple(replace(problem.columns[c], item=at) for at, (i, _) in enumerate(order) for c in own[i])
    if any(c.keeps for c in columns):
        raise ValueError("tensors kept on chip are not unrolled")
    flows = tuple(
        replace(flow, source=index[flow.source, c], each=each, wraps=(), exits=(), everywhere=())
        for flow in problem.flows
        for c in range(problem.items[flow.source].copies)
        if (each := tuple(index[key] for key in _sinks(problem, flow, c)))
    )
    shared = tuple(replace(t, items=tuple(index[i, 0] for i in t.items)) for t in problem.shared)
    items = tuple(Item(f"{problem.items[i].name}.{c}") for i, c in order)
    return replace(problem, items=items, columns=columns, flows=flows, shared=shared)


def folded_choice(problem: GraphProblem, choice: Choice) -> Choice:
    """A choice of the unrolled problem in the columns of `problem`."""
    own = [np.flatnonzero(problem.column_item == i) for i in range(len(problem.items))]
    starts = np.cumsum([0, *(len(own[i]) for i, _ in _order(problem))])
    out = [np.zeros(item.copies, dtype=int) for item in problem.items]
    for at, (i, copy) in enumerate(_order(problem)):
        out[i][copy] = own[i][int(choice[at][0]) - starts[at]]
    return tuple(out)


def _order(problem: GraphProblem) -> list[Key]:
    return unrolled(runs([i.block for i in problem.items], [i.copies for i in problem.items]))


def _sinks(problem: GraphProblem, flow: Flow, copy: int) -> list[Key]:
    """Consumers of one copy of a flow."""
    sinks = [(j, copy) for j in flow.each]
    if copy + 1 < problem.items[flow.source].copies:
        return sinks + [(j, copy + 1) for j in flow.wraps]
    sinks += [(j, 0) for j in flow.exits]
    return sinks + [(j, n) for j in flow.everywhere for n in range(problem.items[j].copies)]
