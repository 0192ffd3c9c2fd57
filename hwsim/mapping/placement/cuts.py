"""Shortest paths over the cuts of a chain: what boundaries a good solution can have, and a referee for the program.

f_d[b]: least cost of stages 0..d over the first b operators; g_d[b]: of the stages after d over the rest. A boundary
after stage d at b costs at least f_d[b] + g_d[b] (or their maximum, for the busiest stage).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.placement.chain import Chain, cost_of_stages, kinds
from hwsim.mapping.placement.stages.segments import legal, prefix, within

Array = np.ndarray[Any, Any]
TIES = 1e-9  # relative: boundaries of equally good solutions stay


def windows(chain: Chain, order: tuple[int, ...], objective: str) -> tuple[Array, Array]:
    """First and last stage that each operator may lie in.

    Raises InfeasibleError where no contiguous stages fit.
    """
    n, stages = len(chain.names), len(order)
    costs = [stage_costs(chain, order, d, objective) for d in range(stages)]
    if len(set(kinds(chain))) == 1:
        costs[0][0, 0] = np.inf  # among equal devices the first one can always be used
    join = np.maximum if objective == "throughput" else np.add
    front = _sweep(costs, join)
    back = [f[::-1] for f in _sweep([c[::-1, ::-1].T for c in costs[::-1]], join)][::-1]
    if not math.isfinite(front[-1][n]):
        raise InfeasibleError(f"no contiguous stages of {chain.name} fit")
    known = _known(chain, order, costs, front, join, objective)
    earliest, latest = np.zeros(n, dtype=int), np.full(n, stages - 1)
    for d in range(stages - 1):
        at = np.flatnonzero(join(front[d], back[d + 1]) <= known * (1 + TIES))
        earliest[at[-1] :] = d + 1
        latest[: at[0]] = np.minimum(latest[: at[0]], d)
    return earliest, latest


def shortest(chain: Chain, order: tuple[int, ...], objective: str) -> tuple[float, Array]:
    """Least cost and its stages. Raises InfeasibleError where nothing fits."""
    costs = [stage_costs(chain, order, d, objective) for d in range(len(order))]
    join = np.maximum if objective == "throughput" else np.add
    front = _sweep(costs, join)
    if not math.isfinite(front[-1][len(chain.names)]):
        raise InfeasibleError(f"no contiguous stages of {chain.name} fit")
    return float(front[-1][-1]), _trace(costs, front, join)


def stage_costs(chain: Chain, order: tuple[int, ...], d: int, objective: str) -> Array:
    """Cost of stage d over operators a..b-1 with what it receives, shape (n + 1, n + 1); inf where impossible."""
    site, n = order[d], len(chain.names)
    energy = objective == "energy"
    cost = within(prefix((chain.energy_j if energy else chain.time_s)[:, site]))
    if d > 0:
        cost[1:n, :] += (chain.hop_j if energy else chain.hop_s)(order[d - 1], site)[:, None]
    return np.where(legal(chain, site), np.maximum(cost, 0.0), np.inf)


def _sweep(costs: list[Array], join: Any) -> list[Array]:
    """Least cost of the first d + 1 stages over the first b operators, for every d."""
    at = np.full(len(costs[0]), np.inf)
    at[0] = 0.0
    out = []
    for cost in costs:
        at = join(at[:, None], cost).min(axis=0)
        out.append(at)
    return out


def _known(
    chain: Chain, order: tuple[int, ...], costs: list[Array], front: list[Array], join: Any, objective: str
) -> float:
    """Cost of the shortest path, which is legal."""
    stages = _trace(costs, front, join)
    return max(cost_of_stages(chain, stages, order).value(objective), float(front[-1][-1]))


def _trace(costs: list[Array], front: list[Array], join: Any) -> Array:
    n = len(costs[0]) - 1
    stages, end = np.zeros(n, dtype=int), n
    for d in range(len(costs) - 1, -1, -1):
        before = front[d - 1] if d else np.where(np.arange(n + 1) == 0, 0.0, np.inf)
        start = int(np.argmin(join(before, costs[d][:, end])))
        stages[start:end] = d
        end = start
    return stages
