"""A legal placement without a solver, for when a solver's time ends before it has one: the best of a few rules.

Greedy, one device alone, the cheapest candidates with overfull memories emptied where that costs least a byte, and the
smallest candidates packed. Nothing is proved of it; only cheap, legal matters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.mapping.placement.baselines import alone, greedy
from hwsim.mapping.placement.problem import Choice, GraphProblem, cost_of, violations

Array = np.ndarray[Any, Any]


def legal_choice(problem: GraphProblem, objective: str) -> Choice | None:
    """The cheapest legal choice of the rules; None where none of them finds one."""
    rules = (greedy(problem, objective), *(alone(problem, s, objective) for s in range(len(problem.sites))))
    found = [
        c
        for c in (*rules, _emptied(problem, objective), _packed(problem, objective))
        if c is not None and not violations(problem, c)
    ]
    return min(found, key=lambda choice: cost_of(problem, choice).value(objective), default=None)


def _emptied(problem: GraphProblem, objective: str) -> Choice | None:
    """The cheapest candidates, then moves out of overfull memories, the least extra cost a byte first."""
    pool = _Pool(problem, "energy_j" if objective == "energy" else "time_s")
    if not pool.complete:
        return None
    current = pool.best(pool.own)
    for _ in range(2 * len(pool.column)):
        free = pool.free(current)
        if free.min() >= 0:
            return pool.choice(current)
        move = pool.relief(current, free)
        if move is None:
            return None
        current[pool.copy[move]] = pool.column[move]
    return None


def _packed(problem: GraphProblem, objective: str) -> Choice | None:
    """The smallest candidates, the largest first, each on the cheapest site with room for it."""
    pool = _Pool(problem, "energy_j" if objective == "energy" else "time_s")
    if not pool.complete:
        return None
    current = pool.best(pool.memory)
    free = pool.room.copy()
    for copy in np.argsort(-pool.memory[current], kind="stable"):
        columns = pool.column[pool.copy == copy]
        columns = columns[pool.memory[columns] <= free[pool.site[columns]]]
        if not len(columns):
            return None
        least = columns[pool.memory[columns] <= pool.memory[columns].min() * (1 + 1e-12)]
        current[copy] = least[np.argmin(pool.own[least])]
        free[pool.site[current[copy]]] -= pool.memory[current[copy]]
    return pool.choice(current)


class _Pool:
    """Every copy of every item with the columns that it may take (none that keeps tensors on chip)."""

    def __init__(self, problem: GraphProblem, cost: str) -> None:
        usable = np.array([not c.keeps for c in problem.columns])
        self.own, self.memory, self.site = problem.of(cost), problem.of("memory_bytes"), problem.column_site
        self.copies = problem.copies
        self.columns = [np.flatnonzero(usable & (problem.column_item == i)) for i in range(len(problem.items))]
        self.complete = all(len(columns) for columns in self.columns)
        self.owner = np.repeat(np.arange(len(problem.items)), problem.copies)
        self.copy = np.repeat(np.arange(len(self.owner)), [len(self.columns[i]) for i in self.owner])
        self.column = np.concatenate([self.columns[i] for i in self.owner])
        tied = sum(t.stored_bytes for t in problem.shared)  # may be needed on every site
        self.room = np.array([s.memory_bytes - tied for s in problem.sites])

    def best(self, by: Array) -> Array:
        """The least column of every copy."""
        out: Array = np.array([columns[np.argmin(by[columns])] for columns in self.columns])[self.owner]
        return out

    def free(self, current: Array) -> Array:
        """Bytes left on every site; negative where overfull."""
        return self.room - np.bincount(self.site[current], self.memory[current], len(self.room))

    def choice(self, current: Array) -> Choice:
        """As a choice of the problem."""
        return tuple(np.split(current, np.cumsum(self.copies)[:-1]))

    def relief(self, current: Array, free: Array) -> int | None:
        """The cheapest move a byte that relieves the most overfull site, else one that makes room anywhere."""
        old, new = current[self.copy], self.column
        worst = int(np.argmin(free))
        stays = self.site[new] == self.site[old]
        freed = np.where(stays, self.memory[old] - self.memory[new], self.memory[old])
        leaves = ~stays & (self.memory[new] <= free[self.site[new]])
        here = (self.site[old] == worst) & (stays | leaves)
        for good in (here & (freed > 0), stays & (freed > 0)):
            if good.any():
                bytes_ = np.where(good, np.minimum(freed, -free[worst]), 1.0)
                return int(np.argmin(np.where(good, (self.own[new] - self.own[old]) / bytes_, np.inf)))
        return None
