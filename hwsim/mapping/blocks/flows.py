"""Tight edge variables: what it costs that a tensor's producer and its consumers lie at different places.

With one consumer the joint choice z[d, e] has the marginals of both ends (exact on trees even as an LP); with many, a
tensor is sent once to each place that holds a consumer: y[e] >= x[j, e] - x[i, e] for every consumer j, and where the
cost depends on the pair, z[d, e] <= x[i, d] with sum_d z[d, e] >= x[j, e]. Counts instead of binaries fold layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwsim.mapping.blocks.linear import Sum
from hwsim.mapping.ilp import Program

Array = np.ndarray[Any, Any]
Places = Sequence[Sum]  # one sum a place: how many copies of an end lie there


def edge(
    program: Program, source: Places, sinks: Sequence[Places], costs: Array, copies: int
) -> list[tuple[int, list[Sum]]]:
    """Edge variables of one tensor.

    Parameters
    ----------
    costs: (kinds, places, places) cost of sending one copy, e.g. seconds and joules; zero on the diagonals.
    copies: copies of the tensor.

    Returns
    -------
    (place, sums) pairs: the cost of each kind of what arrives at a place.
    """
    if not sinks or not np.any(costs > 0):
        return []
    if len(sinks) == 1:
        return _joint(program, source, sinks[0], costs, copies)
    if _same_for_all(costs):
        return _arrivals(program, source, sinks, costs, copies)
    return _pairs(program, source, sinks, costs, copies)


def _same_for_all(costs: Array) -> bool:
    """Whether what arrives at a place costs the same from everywhere."""
    n = costs.shape[1]
    off = ~np.eye(n, dtype=bool)
    return n > 1 and all(not np.any(np.ptp(costs[:, off[:, e], e], axis=1)) for e in range(n))


def _arriving(z: Array, costs: Array) -> list[tuple[int, list[Sum]]]:
    return [(e, [Sum(z[:, e], cost[:, e]) for cost in costs]) for e in range(len(z))]


def _joint(program: Program, source: Places, sink: Places, costs: Array, copies: int) -> list[tuple[int, list[Sum]]]:
    n = costs.shape[1]
    z = program.columns(n * n, upper=float(copies), integer=False).reshape(n, n)
    for d in range(n):
        Sum(z[d]).plus(source[d], -1.0).row(program, 0.0, 0.0)
        Sum(z[:, d]).plus(sink[d], -1.0).row(program, 0.0, 0.0)
    return _arriving(z, costs)


def _arrivals(
    program: Program, source: Places, sinks: Sequence[Places], costs: Array, copies: int
) -> list[tuple[int, list[Sum]]]:
    n = costs.shape[1]
    y = program.columns(n, upper=float(copies), integer=False)
    for e in range(n):
        for sink in sinks:
            Sum([y[e]]).plus(sink[e], -1.0).plus(source[e]).row(program, low=0.0)
    return [(e, [Sum([y[e]], float(cost[:, e].max())) for cost in costs]) for e in range(n)]


def _pairs(
    program: Program, source: Places, sinks: Sequence[Places], costs: Array, copies: int
) -> list[tuple[int, list[Sum]]]:
    n = costs.shape[1]
    z = program.columns(n * n, upper=float(copies), integer=False).reshape(n, n)
    for d in range(n):
        for e in range(n):
            Sum([z[d, e]]).plus(source[d], -1.0).row(program, high=0.0)
        for sink in sinks:
            Sum(z[:, d]).plus(sink[d], -1.0).row(program, low=0.0)
    return _arriving(z, costs)
