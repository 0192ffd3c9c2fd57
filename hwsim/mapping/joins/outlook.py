"""What loop orders and their entries can at best lead to: bounds of `joins.bounds`, kept by the outer loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hwsim.mapping.joins.bounds import least_beside, least_by_cell, least_together
from hwsim.mapping.joins.case import Case, Way
from hwsim.mapping.joins.chains import NONE, Entries

Array = np.ndarray[Any, Any]
SLACK: Final = 1 - 1e-9  # logarithms of clock steps are added up: a bound keeps below their rounding
ROUNDS: Final = 3  # bounds are taken again from what they left, while that shrinks
SHRUNK: Final = 0.8  # of the paths: where more are left than that, another round is not worth its time
MOST_TRIPLES: Final = 30  # holdings of three tensors that are told apart

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """Chains of one dimension with a holding each; `costs` of shape (costs, entries)."""

    chain: Array
    held: Array
    costs: Array

    def take(self, at: Array) -> Part:
        return Part(self.chain[at], self.held[at], self.costs[:, at])


@dataclass
class Outlook:
    """Bounds for one search. `timed`: words and steps matter beside energy; `bound`: of costs (costs, ...) to values,
    inf where a cap is broken.

    Holdings are told apart (`groups`: their numbers, by dimension), so that a tensor that skips a memory pays for it at
    another; with too many of them they are taken together, and what each dimension pays alone is a second bound.
    """

    case: Case
    timed: bool
    bound: Callable[[Array], Array]
    groups: list[list[Array]] = field(init=False)
    triples: list[Triple] = field(init=False)
    _known: dict[Any, Any] = field(default_factory=dict)
    _alone: dict[tuple[int, int, int, str], Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = [len(pricer.holdings) for pricer in self.case.pricers]
        apart = math.prod(counts) <= MOST_TRIPLES
        self.groups = [[np.array([h]) for h in range(n)] if apart else [np.arange(n)] for n in counts]
        m, n, k = (range(len(group)) for group in self.groups)
        self.triples = list(itertools.product(m, n, k))

    def order(self, ways: tuple[Way, ...]) -> float:
        """The least value that any triple under a loop order can have."""
        return float(self._values(ways).min())

    def _values(self, ways: tuple[Way, ...]) -> Array:
        """The same for each triple of groups."""
        floor: Array = sum(self.alone(ways), np.zeros(1))
        levels = [self._outside(ways, level) for level in range(self.case.last)]
        sums = [sum((level[t] for level in levels), np.zeros(1)) for t in self.triples]
        return self.bound(np.maximum(np.stack(sums, axis=1), floor[:, None]))

    def alone(self, ways: tuple[Way, ...]) -> list[Array]:
        """Least costs of each dimension by itself, with one holding at all its memories."""
        found = []
        for d, pricer in enumerate(self.case.pricers):
            letters = self.case.letters(ways, d)
            held = range(len(pricer.holdings))
            sums = [sum((self._least(d, h, c, letters) for c in range(self.case.last)), np.zeros(1)) for h in held]
            found.append(np.min(sums, axis=0))
        return found

    def _least(self, d: int, holding: int, level: int, letters: str) -> Array:
        key = (d, holding, level, letters[level:])
        if key not in self._alone:
            pricer = self.case.pricers[d]
            share = self._rows(pricer.share(holding, level, letters))[:, pricer.allowed(letters, above=level)]
            self._alone[key] = share.min(axis=1, initial=math.inf)
        return self._alone[key]

    def parts(self, ways: tuple[Way, ...], best: float) -> list[Part]:
        """Of each dimension the entries that can beat `best`; one list is empty where nothing can."""
        alone, values = self.alone(ways), self._values(ways)
        live = [triple for triple, value in zip(self.triples, values, strict=True) if value < best]
        beside = [{t: self._beside(ways, level, t) for t in live} for level in range(self.case.last)]
        parts = []
        for d in range(3):
            part = self._all(ways, d)
            parts.append(part.take(self._hopeful(part, d, beside, alone, best)))
        for _ in range(ROUNDS):
            before = sum(len(part.chain) for part in parts)
            if min(len(part.chain) for part in parts) == 0:
                break
            alone = [part.costs.min(axis=1) for part in parts]
            beside = [self._inside(ways, level, parts, live) for level in range(self.case.last)]
            parts = [part.take(self._hopeful(part, d, beside, alone, best)) for d, part in enumerate(parts)]
            if sum(len(part.chain) for part in parts) > SHRUNK * before:
                break
        return parts

    def entries(self, d: int, part: Part) -> Entries:
        """The entries of a part, as the join takes them."""
        pricer, costs = self.case.pricers[d], part.costs
        return Entries(
            part.chain,
            part.held,
            pricer.tile[:, part.chain],
            pricer.chains.spread[:, part.chain],
            costs[0],
            costs[1:-1].T if self.timed else np.zeros((len(part.chain), pricer.n_ports)),
            pricer.chains.steps[part.chain],
        )

    def _rows(self, costs: Array) -> Array:
        return costs if self.timed else costs[:1]

    def _all(self, ways: tuple[Way, ...], d: int) -> Part:
        """Every entry of a dimension under a loop order."""
        case, pricer = self.case, self.case.pricers[d]
        letters = case.letters(ways, d)
        which = pricer.allowed(letters)
        costs = []
        for h in range(len(pricer.holdings)):
            shares = (self._rows(pricer.share(h, level, letters))[:, which] for level in range(case.last))
            costs.append(sum(shares, np.zeros(1)))
        held = np.repeat(np.arange(len(pricer.holdings)), len(which))
        return Part(np.tile(which, len(pricer.holdings)), held, np.concatenate(costs, axis=1))

    def _cell(self, level: int, d: int, chain: Array, held: Array) -> Array:
        cells = self.case.cells[level]
        there = self.case.held(d)[held, level]
        cell: Array = cells.spot[d][chain] + there * (cells.count(d) // 2)
        return cell

    def _hopeful(
        self, part: Part, d: int, beside: list[dict[Triple, list[Array]]], alone: list[Array], best: float
    ) -> Array:
        """Indices of entries whose bound beats the best value."""
        found = []
        floor: Array = sum((a for other, a in enumerate(alone) if other != d), np.zeros(1))[:, None]
        for group, members in enumerate(self.groups[d]):
            triples = [triple for triple in beside[0] if triple[d] == group]
            if not triples:
                continue
            mine = np.flatnonzero(np.isin(part.held, members))
            cells = [self._cell(level, d, part.chain[mine], part.held[mine]) for level in range(len(beside))]
            # all triples at once first: fewer entries are then looked at for each of them
            quick = [np.min([row[t][d] for t in triples], axis=0)[:, c] for row, c in zip(beside, cells, strict=True)]
            some = np.flatnonzero(self.bound(part.costs[:, mine] + np.maximum(sum(quick, np.zeros(1)), floor)) < best)
            good = np.full(len(some), len(triples) == 1)
            for triple in triples if len(triples) > 1 else ():
                rest = sum((row[triple][d][:, c[some]] for row, c in zip(beside, cells, strict=True)), np.zeros(1))
                good |= self.bound(part.costs[:, mine[some]] + np.maximum(rest, floor)) < best
            found.append(mine[some[good]])
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def _shares(self, ways: tuple[Way, ...], level: int) -> list[list[Array]]:
        """Least shares by cell, dimension and group at one memory, whatever the loops at and below it."""
        key = ("shares", level, ways[level:])
        if key not in self._known:
            tables = []
            for d, pricer in enumerate(self.case.pricers):
                letters = NONE * level + "".join(self.case.letter(way, d) for way in ways[level:])
                which = pricer.allowed(letters, above=level)
                chain = np.tile(which, len(pricer.holdings))
                held = np.repeat(np.arange(len(pricer.holdings)), len(which))
                tables.append(self._tables(level, d, letters, chain, held))
            self._known[key] = tables
        return self._known[key]

    def _outside(self, ways: tuple[Way, ...], level: int) -> dict[Triple, Array]:
        """Least sums at one memory for each triple of groups."""
        key = ("sums", level, ways[level:])
        if key not in self._known:
            rows, cells = self._shares(ways, level), self.case.cells[level]
            sums = {t: least_together(cells, (rows[0][t[0]], rows[1][t[1]], rows[2][t[2]])) for t in self.triples}
            self._known[key] = sums
        return self._known[key]

    def _beside(self, ways: tuple[Way, ...], level: int, triple: Triple) -> list[Array]:
        """Least of the other two dimensions beside each cell."""
        key = (triple, level, ways[level:])
        if key not in self._known:
            rows = self._shares(ways, level)
            m, n, k = triple
            self._known[key] = least_beside(self.case.cells[level], (rows[0][m], rows[1][n], rows[2][k]))
        return self._known[key]

    def _inside(
        self, ways: tuple[Way, ...], level: int, parts: list[Part], live: list[Triple]
    ) -> dict[Triple, list[Array]]:
        """The same among given entries, for some triples of groups."""
        rows = [
            self._tables(level, d, self.case.letters(ways, d), part.chain, part.held) for d, part in enumerate(parts)
        ]
        cells = self.case.cells[level]
        return {(m, n, k): least_beside(cells, (rows[0][m], rows[1][n], rows[2][k])) for m, n, k in live}

    def _tables(self, level: int, d: int, letters: str, chain: Array, held: Array) -> list[Array]:
        """Least shares by cell, for each group of holdings."""
        pricer, found = self.case.pricers[d], []
        cell = self._cell(level, d, chain, held)
        for members in self.groups[d]:
            shares, where = [], []
            for h in members:
                mine = np.flatnonzero(held == h)
                shares.append(self._rows(pricer.share(h, level, letters))[:, chain[mine]])
                where.append(cell[mine])
            found.append(
                least_by_cell(self.case.cells[level], d, np.concatenate(where), np.concatenate(shares, axis=1))
            )
        return found
