"""Branch and bound over loop orders; under each, pairs of chains are completed by one look into a table of the third.

For a pair of chains of two dimensions, every limit on the third is a box: tile extents up to what each memory still
holds, spreads up to what each fan-out leaves. A table keeps, for every box, the least energy, steps and words of
the third dimension's entries inside it: one look gives a lower bound for the pair, and only pairs whose bound
beats the best known triple are joined exactly. The search is complete, so what remains is proved.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hwsim.mapping.joins.case import Case, Way
from hwsim.mapping.joins.chains import Entries
from hwsim.mapping.joins.outlook import SLACK, Outlook
from hwsim.mapping.joins.prune import useful
from hwsim.mapping.machine import IRRELEVANT, RELEVANT
from hwsim.mapping.problem import Tiling

Array = np.ndarray[Any, Any]
PAIRS_AT_ONCE: Final = 1_000_000
TRIPLES_AT_ONCE: Final = 500_000
FIRST_PAIRS: Final = 8  # the best-looking pairs are joined first: they often close the rest
LARGEST_TABLE: Final = 100_000
QUEUE_SHARE: Final = 0.5  # of a budget that ranking the loop orders may take
SAME: Final = 1e-12  # relative: values closer than this are equal

Value = Callable[[Any, Any], Any]


@dataclass
class Found:
    """The incumbent of a search, and the lower bound when it stopped early."""

    value: float = math.inf
    energy: float = math.inf
    tiling: Tiling | None = None
    bound: float = math.inf
    finished: bool = True
    orders: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class _Table:
    """Least energy, steps and words of entries of one dimension and holding, by boxes of (tiles, spreads).

    `coarse`: how many neighbouring values of an axis share a place, so that a table stays small.
    """

    axes: tuple[Array, ...]
    coarse: tuple[int, ...]
    energy: Array
    steps: Array
    words: Array


@dataclass
class Search:
    """One search: minimise value(energy, cycles) subject to cycles <= cap. `timed`: cycles matter at all."""

    case: Case
    value: Value
    timed: bool = True
    cap: float = math.inf
    deadline: float = math.inf
    best: Found = field(default_factory=Found)
    outlook: Outlook | None = None  # of an earlier search of the same case, for what it has worked out
    _tables: dict[tuple[int, int, int], _Table] = field(default_factory=dict)

    def run(self) -> Found:
        """Search every loop order, the most promising first."""
        outlook = self.outlook = self.outlook or Outlook(self.case, self.timed, self._bound)
        outlook.bound = self._bound
        if math.isfinite(self.deadline) and self.best.tiling is None:
            self._first(outlook)
        queue, rest = self._queue(outlook)
        for bound, ways in queue:
            if bound >= self.best.value * (1 - SAME):
                break
            if self._late():
                self._stop(bound)
                break
            self.best.orders += 1
            self._order(ways, outlook, bound)
        if rest < self.best.value * (1 - SAME):
            self._stop(rest)
        return self.best

    def _late(self) -> bool:
        return time.perf_counter() > self.deadline and self.best.tiling is not None

    def _first(self, outlook: Outlook) -> None:
        """Some legal tiling before anything that takes long: all loops at the last level, nothing reused."""
        ways = [self.case.ways(level) for level in range(1, self.case.last + 1)]
        for last in reversed(ways[-1]):
            self._order((*(row[0] for row in ways[:-1]), last), outlook, 0.0)
            self.best.bound, self.best.finished = math.inf, True  # the order is looked at again in its turn
            if self.best.tiling is not None:
                return

    def _stop(self, bound: float) -> None:
        self.best.finished = False
        self.best.bound = min(self.best.bound, bound)

    def _queue(self, outlook: Outlook) -> tuple[list[tuple[float, tuple[Way, ...]]], float]:
        """Loop orders by their bounds, and a bound of those that there was no time to look at."""
        words = [self.case.ways(level) for level in range(1, self.case.last + 1)]
        now = time.perf_counter()
        half = now + (self.deadline - now) * QUEUE_SHARE
        found, rest = [], math.inf
        for ways in itertools.product(*words):
            if time.perf_counter() > half and self.best.tiling is not None:
                rest = float(self.value(self.case.least_energy, self.case.floor))
                break
            found.append((outlook.order(ways), ways))
        return sorted((row for row in found if row[0] < math.inf), key=lambda row: row[0]), rest

    def _bound(self, costs: Array) -> Array:
        """Least values of costs (energy; with time words per port and log steps), inf beyond the cap."""
        energy = costs[0] + self.case.constant
        if self.timed:
            cycles = self._cycle_bound(np.exp(costs[-1]) * SLACK, np.moveaxis(costs[1:-1], 0, -1))
        else:
            cycles = np.full(np.shape(energy), float(self.case.floor))
        value: Array = np.where(cycles <= self.cap, self.value(energy, cycles), math.inf)
        return value

    def _cycle_bound(self, steps: Any, words: Any, used: Callable[[int], Array] | None = None) -> Any:
        return np.maximum(self.case.cycles(steps, words, used or self._instances), self.case.floor)

    def _instances(self, level: int) -> Array:
        fans = [self.case.machine.levels[at].fanout for at in self.case.fanouts if at >= level]
        return np.array(float(math.prod(fans)))

    def _order(self, ways: tuple[Way, ...], outlook: Outlook, bound: float) -> None:
        self._tables.clear()
        found = outlook.parts(ways, self.best.value * (1 - SAME))
        if min(len(part.chain) for part in found) == 0:
            return
        parts = []
        for d, part in enumerate(found):
            entries = outlook.entries(d, part)
            parts.append(useful(entries, self.case.axes(entries), self.timed))
        c = int(np.argmax([len(p.energy) for p in parts]))
        a, b = (d for d in range(3) if d != c)
        rows = max(1, PAIRS_AT_ONCE // len(parts[b].energy))
        for start in range(0, len(parts[a].energy), rows):
            some = np.arange(start, min(start + rows, len(parts[a].energy)))
            for holding in range(len(self.case.pricers[c].holdings)):
                if self._late():
                    self._stop(bound)
                    return
                self._pairs(ways, (a, b, c), (parts[a].take(some), parts[b]), parts[c], holding)

    def _pairs(
        self, ways: tuple[Way, ...], dims: tuple[int, int, int], pair: tuple[Entries, Entries], third: Entries, h: int
    ) -> None:
        """Bound all pairs by the table of the third dimension, then join the hopeful ones exactly."""
        rest = float(third.energy.min()) + self.case.constant
        i, j = np.nonzero(np.add.outer(pair[0].energy, pair[1].energy) + rest < self._energy_limit())
        if not len(i):
            return
        self.best.pairs += len(i)
        x, y = pair[0].take(i), pair[1].take(j)
        table = self._table(dims[2], third, h)
        if table is None:
            return
        cell, good = self._boxes(dims, x, y, table, h)
        some = np.flatnonzero(good & np.isfinite(table.energy[cell]))
        x, y, cell = x.take(some), y.take(some), cell[some]
        energy = x.energy + y.energy + table.energy[cell] + self.case.constant
        steps = x.steps.astype(float) * y.steps * table.steps[cell]
        words = x.words + y.words + table.words[cell]
        cycles = self._cycle_bound(steps, words, lambda level: self._widest(level, x, y))
        bound = np.where(cycles <= self.cap, self.value(energy, cycles), math.inf)
        keep = np.flatnonzero(bound < self.best.value * (1 - SAME))
        keep = keep[np.lexsort((energy[keep], bound[keep]))]
        self._join(ways, dims, (x.take(keep), y.take(keep)), third.take(np.flatnonzero(third.held == h)), bound[keep])

    def _energy_limit(self) -> float:
        """Energy above which no triple can win whatever its cycles."""
        floor = float(self._cycle_bound(1.0, np.zeros(len(self.case.rates))))
        if not math.isfinite(self.best.value):
            return math.inf
        if self.value(1e300, floor) < self.best.value:  # energy does not matter
            return math.inf
        low, high = 0.0, 1e300
        for _ in range(2000):
            middle = math.sqrt(max(low, 1.0) * high)
            if self.value(middle, floor) < self.best.value:
                low = middle
            else:
                high = middle
            if high <= low * (1 + 1e-13):
                break
        return high * (1 + 1e-12)

    def _widest(self, level: int, x: Entries, y: Entries) -> Array:
        """Most instances of a level that a pair can use."""
        out: Array = np.ones(len(x.energy))
        for at in self.case.fanouts:
            if at >= level:
                mine = x.spread[at + 1] * y.spread[at + 1]
                out = out * mine * (self.case.machine.levels[at].fanout // mine).clip(1)
        return out

    def _table(self, d: int, part: Entries, h: int) -> _Table | None:
        key = (d, h, id(part))
        if key not in self._tables:
            mine = part.take(np.flatnonzero(part.held == h))
            if not len(mine.energy):
                return None
            values, cells = zip(*(np.unique(row, return_inverse=True) for row in self.case.axes(mine)), strict=True)
            coarse = _coarse([len(v) for v in values])
            shape = tuple(-(-len(v) // f) for v, f in zip(values, coarse, strict=True))
            places = tuple(cell // f for cell, f in zip(cells, coarse, strict=True))
            flat: Array = np.asarray(np.ravel_multi_index(places, shape))
            columns = [mine.energy, mine.steps.astype(float), *mine.words.T]
            tables = [_box_minima(flat, column, shape) for column in columns]
            words = np.stack(tables[2:], axis=1) if len(tables) > 2 else np.zeros((len(tables[0]), 0))
            self._tables[key] = _Table(tuple(values), coarse, tables[0], tables[1], words)
        return self._tables[key]

    def _boxes(self, dims: tuple[int, int, int], x: Entries, y: Entries, table: _Table, h: int) -> tuple[Array, Array]:
        """Cell of the table that bounds each pair's third dimension, and whether there is one."""
        limits = []
        for levels, room in self.case.memories:
            limits += self._tile_limits(dims, (x, y), h, levels, room)
        for at in self.case.fanouts:
            limits.append(self.case.machine.levels[at].fanout // (x.spread[at + 1] * y.spread[at + 1]))
        cell: Array = np.zeros(len(x.energy), dtype=np.int64)
        good: Array = np.ones(len(x.energy), dtype=bool)
        for values, f, limit in zip(table.axes, table.coarse, limits, strict=True):
            at_ = np.searchsorted(values, limit, side="right") - 1
            good &= at_ >= 0
            cell = cell * -(-len(values) // f) + np.maximum(at_, 0) // f
        return cell, good

    def _tile_limits(
        self, dims: tuple[int, int, int], pair: tuple[Entries, Entries], h: int, levels: list[int], room: float
    ) -> list[Array]:
        """Largest extent of the third dimension's tile at each of the levels of one memory."""
        case, by_dim = self.case, dict(zip(dims, pair, strict=False))
        fixed: Array = np.zeros(len(pair[0].energy))
        slope = {level: np.zeros(len(fixed)) for level in levels}
        for v in range(3):
            x, y = RELEVANT[v]
            for level in levels:
                if IRRELEVANT[v] == dims[2]:
                    if case.pricers[dims[2]].holdings[h][level]:
                        fixed = fixed + case.machine.widths[v] * by_dim[x].tile[level] * by_dim[y].tile[level]
                    continue
                held = case.held(IRRELEVANT[v])[by_dim[IRRELEVANT[v]].held, level]
                other = y if x == dims[2] else x
                slope[level] = slope[level] + held * case.machine.widths[v] * by_dim[other].tile[level]
        total = sum(slope.values())
        limits = []
        for level in levels:  # the extents at the other levels are at least 1
            left = room * (1 + 1e-12) - fixed - (total - slope[level])
            some = np.where(slope[level] > 0, left / np.where(slope[level] > 0, slope[level], 1.0), math.inf)
            limits.append(np.where(left >= 0, some, -1.0))
        return limits

    def _join(
        self,
        ways: tuple[Way, ...],
        dims: tuple[int, int, int],
        pair: tuple[Entries, Entries],
        third: Entries,
        bound: Array,
    ) -> None:
        """Cost hopeful pairs with every entry of the third dimension, best-looking pairs first."""
        most = max(1, TRIPLES_AT_ONCE // max(len(third.energy), 1))
        start, size = 0, FIRST_PAIRS
        while start < len(bound) and bound[start] < self.best.value * (1 - SAME):
            if self._late():
                self._stop(float(bound[start]))
                return
            rows = np.arange(start, min(start + min(size, most), len(bound)))
            x, y = (_as_rows(p.take(rows)) for p in pair)
            ordered = dict(zip(dims, (x, y, third), strict=True))
            energy, cycles, legal = self.case.figures((ordered[0], ordered[1], ordered[2]))
            value = np.where(legal & (cycles <= self.cap), self.value(energy, cycles), math.inf)
            self._keep(ways, dims, (x, y, third), value, energy)
            start, size = start + len(rows), size * 4

    def _keep(
        self,
        ways: tuple[Way, ...],
        dims: tuple[int, int, int],
        parts: tuple[Entries, Entries, Entries],
        value: Array,
        energy: Array,
    ) -> None:
        at = int(np.argmin(value))
        least = float(value.flat[at])
        if not least < self.best.value * (1 - SAME):
            return
        row, column = np.unravel_index(at, value.shape)
        where = [(row, 0), (row, 0), (column,)]
        picked, held = {}, {}
        for d, part, place in zip(dims, parts, where, strict=True):
            picked[d], held[d] = int(part.chain[place]), int(part.held[place])
        self.best.tiling = self.case.tiling(ways, (picked[0], picked[1], picked[2]), (held[0], held[1], held[2]))
        self.best.value, self.best.energy = least, float(np.broadcast_to(energy, value.shape).flat[at])


def _as_rows(part: Entries) -> Entries:
    """Entries as a column against which another dimension's entries broadcast."""
    return Entries(
        part.chain[..., None],
        part.held[..., None],
        part.tile[..., None],
        part.spread[..., None],
        part.energy[..., None],
        part.words[:, None, :],
        part.steps[:, None],
    )


def _coarse(lengths: list[int]) -> tuple[int, ...]:
    """How many values of each axis share a place of a table of at most `LARGEST_TABLE` places."""
    coarse = [1] * len(lengths)
    while math.prod(-(-n // f) for n, f in zip(lengths, coarse, strict=True)) > LARGEST_TABLE:
        coarse[max(range(len(lengths)), key=lambda i: lengths[i] / coarse[i])] *= 2
    return tuple(coarse)


def _box_minima(flat: Array, column: Array, shape: tuple[int, ...]) -> Array:
    """Least of a column over entries whose cell is at most each cell in every axis; shape flattened."""
    table = np.full(math.prod(shape), math.inf)
    np.minimum.at(table, flat, column)
    grid = table.reshape(shape)
    for axis in range(grid.ndim):
        grid = np.minimum.accumulate(grid, axis=axis)
    return grid.ravel()
