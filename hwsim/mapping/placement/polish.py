"""Single moves and pairs of moves on an incumbent that ran out of time: cheaper, still legal, never proved.

For graphs without folded layers, shared weights or tensors kept on chip, and objectives that are sums.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from hwsim.mapping.placement.problem import SLACK, Choice, GraphProblem

Array = np.ndarray[Any, Any]
PARTNERS = 24  # moves that only a full memory forbids, for which a second move is sought at a time
LEAST = 1e-9  # relative gain below which a move is not worth it


def can_polish(problem: GraphProblem, objective: str) -> bool:
    """Whether the moves apply."""
    plain = int(problem.copies.max()) == 1 and not problem.shared and not any(c.keeps for c in problem.columns)
    return plain and objective in ("latency", "energy")


def polish(problem: GraphProblem, choice: Choice, objective: str, budget_s: float) -> Choice:
    """A legal choice that costs no more, after at most about `budget_s` seconds."""
    deadline = time.perf_counter() + budget_s
    state = _State(problem, np.concatenate(choice), objective)
    while time.perf_counter() < deadline:
        if not (state.single() or state.double()):
            break
    return tuple(np.array([c]) for c in state.current)


class _State:
    """A choice with what every single move would change, kept up to date."""

    def __init__(self, problem: GraphProblem, current: Array, objective: str) -> None:
        energy = objective == "energy"
        self.problem, self.current = problem, current.copy()
        self.item, self.site = problem.column_item, problem.column_site
        self.own, self.memory = problem.of("energy_j" if energy else "time_s"), problem.of("memory_bytes")
        self.send = [problem.send_j(f) if energy else problem.send_s(f) for f in problem.flows]
        self.members = [(f.source, *sorted({*f.each, *f.exits, *f.everywhere})) for f in problem.flows]
        self.touching: list[list[int]] = [[] for _ in problem.items]
        for k, members in enumerate(self.members):
            for i in members:
                self.touching[i].append(k)
        self.parts = [self._flow(k) for k in range(len(self.members))]
        self.free = np.array([s.memory_bytes * (1 + SLACK / 2) for s in problem.sites])
        np.subtract.at(self.free, self.site[self.current], self.memory[self.current])
        self.least = LEAST * float(self.own[self.current].sum())

    def _flow(self, k: int) -> Array:
        """Cost of a flow with each member in turn at each site, shape (members, sites)."""
        members, send = self.members[k], self.send[k]
        places = self.site[self.current[list(members)]]
        out = np.empty((len(members), len(send)))
        for m in range(len(members)):
            for s in range(len(send)):
                own = places[0] if m else s
                ends = {int(p) for at, p in enumerate(places) if at not in (0, m)} | ({s} if m else set())
                out[m, s] = sum(send[own, e] for e in ends)
        return out

    def change(self) -> Array:
        """Change of the objective by every column in place of its item's, shape (columns,)."""
        edges = np.zeros((len(self.current), len(self.problem.sites)))
        for members, part in zip(self.members, self.parts, strict=True):
            edges[list(members)] += part
        now = self.current[self.item]
        moved = edges[self.item, self.site] - edges[self.item, self.site[now]]
        out: Array = self.own - self.own[now] + moved
        return out

    def room(self) -> Array:
        """Bytes left on a column's site once it has replaced its item's, shape (columns,)."""
        now = self.current[self.item]
        back = np.where(self.site[now] == self.site, self.memory[now], 0.0)
        out: Array = self.free[self.site] + back - self.memory
        return out

    def single(self) -> bool:
        """Take the best move that fits, if any gains."""
        gain = np.where(self.room() >= 0, self.change(), math.inf)
        best = int(np.argmin(gain))
        if gain[best] > -self.least:
            return False
        self.take(best)
        return True

    def double(self) -> bool:
        """Take a gaining move that lacks room together with one that makes the room."""
        change, room = self.change(), self.room()
        blocked = np.flatnonzero((change < -self.least) & (room < 0))
        for column in blocked[np.argsort(change[blocked])][:PARTNERS]:
            if self._with_partner(int(column), change, room):
                return True
        return False

    def _with_partner(self, column: int, change: Array, room: Array) -> bool:
        """A second move off the site that `column` needs, by an item that shares no tensor with it."""
        at = self.site[column]
        now = self.current[self.item]
        freed = np.where(self.site[now] == at, self.memory[now], 0.0) - np.where(self.site == at, self.memory, 0.0)
        mover = int(self.item[column])
        left = self.site[self.current[mover]]
        spare = np.where(self.site == left, self.memory[self.current[mover]] * (left != at), 0.0)
        near = {i for k in self.touching[mover] for i in self.members[k]} | {mover}
        fits = (freed >= -room[column]) & ((room + spare >= 0) | (self.site == at))
        gain = np.where(fits & ~np.isin(self.item, list(near)), change + change[column], math.inf)
        best = int(np.argmin(gain))
        if gain[best] > -self.least:
            return False
        self.take(best)
        self.take(column)
        return True

    def take(self, column: int) -> None:
        """Make a move."""
        item = int(self.item[column])
        old = self.current[item]
        self.free[self.site[old]] += self.memory[old]
        self.free[self.site[column]] -= self.memory[column]
        self.current[item] = column
        for k in self.touching[item]:
            self.parts[k] = self._flow(k)
