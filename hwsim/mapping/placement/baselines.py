"""Hand-made rules for operators on devices, beside the program: one device alone, greedy, equal stages."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.mapping.placement.chain import Chain, best_columns
from hwsim.mapping.placement.problem import SLACK, Choice, GraphProblem

Array = np.ndarray[Any, Any]


def alone(problem: GraphProblem, site: int, objective: str = "latency") -> Choice | None:
    """Everything on one site with its best candidates (its memory is not looked at); None where it cannot run all."""
    best = best_columns(problem, objective)[:, site]
    if np.any(best < 0):
        return None
    return tuple(np.full(item.copies, column) for item, column in zip(problem.items, best, strict=True))


def greedy(problem: GraphProblem, objective: str = "latency") -> Choice | None:
    """Operator after operator, layer after layer, on the cheapest site with room, what it receives included.

    The rule of hand-written placements. None where it runs into a full memory.
    """
    best = best_columns(problem, objective)
    own = problem.of("energy_j" if objective == "energy" else "time_s")
    room = np.array([s.memory_bytes for s in problem.sites])
    memory = problem.of("memory_bytes")
    picked = [np.full(item.copies, -1) for item in problem.items]
    for copy in range(int(problem.copies.max())):
        for i, item in enumerate(problem.items):
            if copy >= item.copies:
                continue
            arrives = _received(problem, picked, i, copy, objective)
            cost = [own[c] + arrives[s] if c >= 0 else np.inf for s, c in enumerate(best[i])]
            fits = [s for s, c in enumerate(best[i]) if c >= 0 and memory[c] <= room[s] * (1 + SLACK)]
            if not fits:
                return None
            site = min(fits, key=lambda s: cost[s])
            picked[i][copy] = best[i, site]
            room[site] -= memory[best[i, site]]
    return tuple(picked)


def _received(problem: GraphProblem, picked: list[Array], item: int, copy: int, objective: str) -> Array:
    """Cost of what an operator receives from placed producers, for each site that it might run on."""
    total = np.zeros(len(problem.sites))
    for flow in problem.flows:
        source = picked[flow.source]
        at = -1
        if item in flow.each:
            at = source[copy]
        elif item in flow.wraps and copy > 0:
            at = source[copy - 1]
        elif item in flow.exits and copy == 0:
            at = source[-1]
        if at >= 0:
            send = problem.send_j(flow) if objective == "energy" else problem.send_s(flow)
            total += send[problem.column_site[at]]
    return total


def equal_stages(chain: Chain) -> Array:
    """As many operators on every site, in the order given; shape (n,)."""
    n = len(chain.names)
    return np.minimum(np.arange(n) * len(chain.sites) // n, len(chain.sites) - 1)
