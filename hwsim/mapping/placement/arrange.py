"""From counts of folded layers to layers: which copy of each operator takes which candidate.

Copies of equal layers are nested: all operators run through the sites in one order, so that what stays together in
the counts stays together in the layers. The order of sites is the one of least exact cost.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from hwsim.mapping.placement.problem import Choice, GraphProblem, agree, cost_of, kept_flows, overfull

Array = np.ndarray[Any, Any]
MOST_ORDERS = 24  # orders of sites that are tried: all of up to four


def arrange(problem: GraphProblem, counts: Array, objective: str) -> Choice:
    """The layers behind counts of columns, shape (columns,)."""
    used = sorted(set(problem.column_site[counts > 0].tolist()))
    orders = [used] if int(problem.copies.max()) == 1 else itertools.permutations(used)
    choices = [settled(problem, _nested(problem, counts, o)) for o in itertools.islice(orders, MOST_ORDERS)]
    return min(choices, key=lambda choice: cost_of(problem, choice).value(objective))


def _nested(problem: GraphProblem, counts: Array, order: Any) -> Choice:
    rank = {site: at for at, site in enumerate(order)}
    keys = [(rank.get(c.site, len(rank)), -len(c.keeps), sorted(c.keeps), at) for at, c in enumerate(problem.columns)]
    choice = []
    for i in range(len(problem.items)):
        own = sorted((int(c) for c in np.flatnonzero((problem.column_item == i) & (counts > 0))), key=lambda c: keys[c])
        choice.append(np.repeat(own, counts[own]).astype(int))
    return tuple(choice)


def settled(problem: GraphProblem, choice: Choice) -> Choice:
    """A choice in which nothing is kept on chip by one side only, and nothing beyond the chip's room."""
    picked = tuple(c.copy() for c in choice)
    while True:
        kept = kept_flows(problem, picked)
        drop = [(k, copy) for k, copy, ends in kept if not agree(k, ends)]
        if not drop:
            drop = [_largest(problem, kept, i, copy) for i, copy, _ in overfull(problem, picked)[:1]]
        if not drop:
            return picked
        for k, copy in drop:
            for i in (problem.flows[k].source, *problem.flows[k].each):
                picked[i][copy] = _without(problem, int(picked[i][copy]), k)


def _largest(problem: GraphProblem, kept: Any, item: int, copy: int) -> tuple[int, int]:
    """The largest kept flow that is alive while an item's copy runs."""
    flows = problem.flows
    alive = [k for k, c, _ in kept if c == copy and flows[k].source <= item <= max(flows[k].each)]
    return max(alive, key=lambda k: flows[k].live_bytes), copy


def _without(problem: GraphProblem, column: int, k: int) -> int:
    """The fastest candidate of the same item, site and label that keeps no more, and not flow k."""
    old = problem.columns[column]
    if k not in old.keeps:
        return column
    fits = [
        at
        for at, c in enumerate(problem.columns)
        if (c.item, c.site, c.label) == (old.item, old.site, old.label) and c.keeps <= old.keeps - {k}
    ]
    return min(fits, key=lambda at: problem.columns[at].time_s)
