"""Lower bounds that know the capacities: what a triple of chains costs at least, memory by memory.

The words of a tensor are a sum over the boundaries of its memories, and each boundary's share depends mostly on the
tile in the memory below it. So the least that all three dimensions can pay at one boundary, with tiles and spreads
that fit that memory and fan-out together, is found on small tables of cells (held or not, tile extent, spread); the
sum of these least values over the boundaries bounds the whole triple from below, because every share is at least its
own least value. With one dimension's cell given, the same tables bound each of its entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.mapping.machine import IRRELEVANT, RELEVANT, Machine
from hwsim.mapping.tiling.limits import capacity

Array = np.ndarray[Any, Any]
MOST_PAIRS: Final = 120_000  # pairs of cells of one memory; beyond that cells leave the spread out


@dataclass(frozen=True)
class Cells:
    """Cells of one memory: which each chain of a dimension is in, and which pairs leave how much for the third.

    `spot[d]`: (tile, spread) of every chain; a cell is that, plus the product of `shape[d]` if the tensor is held.
    `order`: two dimensions and the third. `room[held]`: for every pair of cells of the first two the cell of the
    largest tile and spread left to the third, -1 where there is none; shape (cells, cells).
    """

    spot: tuple[Array, Array, Array]
    shape: tuple[tuple[int, int], ...]
    order: tuple[int, int, int]
    room: tuple[Array, Array]

    def count(self, d: int) -> int:
        """Cells of a dimension."""
        return 2 * math.prod(self.shape[d])


def cells_of(machine: Machine, level: int, tiles: list[Array], spreads: list[Array]) -> Cells:
    """Cells of the memory `level`; `tiles` and `spreads` (those over its fan-out) of every chain of M, N, K."""
    values, fans = [np.unique(t) for t in tiles], [np.unique(s) for s in spreads]
    sizes = sorted(2 * len(v) * len(f) for v, f in zip(values, fans, strict=True))
    if sizes[0] * sizes[1] > MOST_PAIRS:
        fans = [np.ones(1, dtype=np.int64)] * 3
    shape = tuple((len(v), len(f)) for v, f in zip(values, fans, strict=True))
    a, b, c = (int(d) for d in np.argsort([math.prod(s) for s in shape], kind="stable"))
    spot = []
    for d in range(3):
        fan = np.searchsorted(fans[d], np.minimum(spreads[d], fans[d][-1]))
        spot.append(np.searchsorted(values[d], tiles[d]) * shape[d][1] + fan)
    grid = _Grid(machine, level, values, fans)
    return Cells((spot[0], spot[1], spot[2]), shape, (a, b, c), (grid.room(a, b, c, False), grid.room(a, b, c, True)))


class _Grid:
    """Tile extents and spreads of all cells of one memory."""

    def __init__(self, machine: Machine, level: int, values: list[Array], fans: list[Array]) -> None:
        self.machine, self.level, self.values, self.fans = machine, level, values, fans

    def _columns(self, d: int) -> tuple[Array, Array, Array]:
        """Held, tile and spread of the cells of a dimension."""
        tile = np.repeat(self.values[d], len(self.fans[d]))
        spread = np.tile(self.fans[d], len(self.values[d]))
        return np.repeat([0.0, 1.0], len(tile)), np.tile(tile, 2), np.tile(spread, 2)

    def room(self, a: int, b: int, c: int, third_held: bool) -> Array:
        """The third dimension's largest cell beside each pair."""
        (held_a, tile_a, fan_a), (held_b, tile_b, fan_b) = self._columns(a), self._columns(b)
        columns = {a: (held_a[:, None], tile_a[:, None]), b: (held_b[None, :], tile_b[None, :])}
        fixed, slope = np.zeros((len(tile_a), len(tile_b))), np.zeros((len(tile_a), len(tile_b)))
        for v in range(3):
            width = self.machine.widths[v]
            x, y = RELEVANT[v]
            if IRRELEVANT[v] == c:
                fixed = fixed + (width * columns[x][1] * columns[y][1] if third_held else 0.0)
            else:
                slope = slope + columns[IRRELEVANT[v]][0] * width * columns[y if x == c else x][1]
        left = capacity(self.machine, self.level) * (1 + 1e-12) - fixed
        most = np.where(slope > 0, left / np.where(slope > 0, slope, 1.0), math.inf)
        tile_at = np.searchsorted(self.values[c], np.where(left >= 0, most, -1.0), side="right") - 1
        fan_at = np.searchsorted(self.fans[c], self._fans_left(fan_a, fan_b), side="right") - 1
        room: Array = np.where((tile_at >= 0) & (fan_at >= 0), tile_at * len(self.fans[c]) + fan_at, -1)
        return room

    def _fans_left(self, fan_a: Array, fan_b: Array) -> Array:
        return self.machine.levels[self.level].fanout // (fan_a[:, None] * fan_b[None, :])


def least_by_cell(cells: Cells, d: int, where: Array, costs: Array) -> Array:
    """Least cost of the entries in each cell, shape (costs, cells); `where`: cell of each entry, inf where none."""
    table = np.full((len(costs), cells.count(d)), math.inf)
    for row, cost in zip(table, costs, strict=True):
        np.minimum.at(row, where, cost)
    return table


Tables = tuple[Array, Array, Array]


def least_together(cells: Cells, tables: Tables) -> Array:
    """Least sums of three dimensions' shares that fit together, shape (costs,); `tables`: (costs, cells) of each."""
    found = _beside_pairs(cells, tables)
    if found is None:
        return np.full(len(tables[0]), math.inf)
    best, (a, some_a), (b, some_b) = found
    least: Array = ((best + tables[b][:, None, some_b]).min(axis=2) + tables[a][:, some_a]).min(axis=1)
    return least


def least_beside(cells: Cells, tables: Tables) -> list[Array]:
    """By dimension the least that the other two pay beside each of its cells, shape (costs, cells)."""
    beside: list[Array] = [np.full(table.shape, math.inf) for table in tables]
    found = _beside_pairs(cells, tables)
    if found is None:
        return beside
    best, (a, some_a), (b, some_b) = found
    c, x, y = cells.order[2], tables[a][:, some_a, None], tables[b][:, None, some_b]
    beside[a][:, some_a] = (best + y).min(axis=2)
    beside[b][:, some_b] = (best + x).min(axis=1)
    room = [r[np.ix_(some_a, some_b)] for r in cells.room]
    beside[c] = np.concatenate([_at_least(x + y, r, cells.shape[c]) for r in room], axis=1)
    return beside


def _beside_pairs(cells: Cells, tables: Tables) -> tuple[Array, tuple[int, Array], tuple[int, Array]] | None:
    """The third dimension's least beside pairs of cells of the first two that occur, (costs, cells, cells)."""
    a, b, c = cells.order
    costs, half = len(tables[0]), math.prod(cells.shape[c])
    some_a, some_b = (np.flatnonzero(np.isfinite(tables[d][0])) for d in (a, b))
    third = []
    for held, room in enumerate(cells.room):
        grid: Array = tables[c][:, held * half : (held + 1) * half]
        if len(some_a) and len(some_b) and np.isfinite(grid[0]).any():
            grid = grid.reshape(costs, *cells.shape[c])
            grid = np.minimum.accumulate(np.minimum.accumulate(grid, axis=1), axis=2).reshape(costs, half)
            padded = np.concatenate([grid, np.full((costs, 1), math.inf)], axis=1)  # -1: nothing fits
            third.append(padded[:, room[some_a[:, None], some_b]])
    if not third:
        return None
    return third[0] if len(third) == 1 else np.minimum(*third), (a, some_a), (b, some_b)


def _at_least(pairs: Array, room: Array, shape: tuple[int, int]) -> Array:
    """For every cell of the third dimension the least of the pairs that leave room for it; shape (costs, cells)."""
    out = np.full((len(pairs), math.prod(shape) + 1), math.inf)
    flat = room.ravel()
    for row, values in zip(out, pairs.reshape(len(pairs), -1), strict=True):
        np.minimum.at(row, flat, values)  # -1 goes to the last place, which is dropped
    grid = out[:, :-1].reshape(len(pairs), *shape)[:, ::-1, ::-1]
    grid = np.minimum.accumulate(np.minimum.accumulate(grid, axis=1), axis=2)
    return grid[:, ::-1, ::-1].reshape(len(pairs), -1)
