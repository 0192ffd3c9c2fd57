"""Which entries of one dimension can never be needed: another takes no more room, and costs no more."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from hwsim.mapping.joins.chains import Entries

Array = np.ndarray[Any, Any]
LARGEST_GRID: Final = 200_000
LARGEST_GROUP: Final = 1500  # entries compared with each other


def useful(part: Entries, axes: list[Array], timed: bool) -> Entries:
    """Entries that no other beats in every way.

    `axes`: what takes room (tile extents, spreads), one array each. `timed`: cycles matter too, so that spreads must
    be equal and steps and words count as costs; otherwise energy alone does.
    """
    if len(part.energy) < 2:
        return part
    keep = _timed(part, axes) if timed else _by_energy(part, axes)
    return part.take(np.sort(keep))


def _by_energy(part: Entries, axes: list[Array]) -> Array:
    """Cheapest entry of each cell, unless a cell below it in some axis holds one as cheap."""
    kept = []
    for holding in np.unique(part.held):
        at = np.flatnonzero(part.held == holding)
        values, cells = zip(*(np.unique(row[at], return_inverse=True) for row in axes), strict=True)
        shape = tuple(len(v) for v in values)
        flat: Array = np.asarray(np.ravel_multi_index(cells, shape))
        order = np.lexsort((part.energy[at], flat))
        first = order[np.r_[True, np.diff(flat[order]) > 0]]
        if math.prod(shape) > LARGEST_GRID:  # pruning saves time only: not where it would take longer
            kept.append(at[first])
            continue
        grid = np.full(math.prod(shape), math.inf)
        grid[flat[first]] = part.energy[at][first]
        grid = grid.reshape(shape)
        for axis in range(grid.ndim):
            grid = np.minimum.accumulate(grid, axis=axis)
        where = np.stack(np.unravel_index(flat[first], shape))
        beaten = np.zeros(len(first), dtype=bool)
        for axis in range(grid.ndim):
            below = where.copy()
            below[axis] -= 1
            inside = below[axis] >= 0
            low = grid[tuple(np.maximum(below, 0))]
            beaten |= inside & (low <= part.energy[at][first])
        kept.append(at[first[~beaten]])
    return np.concatenate(kept)


def _timed(part: Entries, axes: list[Array]) -> Array:
    """Pareto front of room, energy, steps and words among entries of equal holding and spreads."""
    same = np.unique(np.vstack([part.held, part.spread]), axis=1, return_inverse=True)[1].ravel()
    costs = np.column_stack([*axes, part.energy, part.steps, part.words])
    order = np.lexsort((part.energy, same))
    kept = []
    for group in np.split(order, np.flatnonzero(np.diff(same[order])) + 1):
        if len(group) > LARGEST_GROUP:
            kept.append(group)
            continue
        rows = costs[group]
        less = np.all(rows[:, None, :] <= rows[None, :, :], axis=2)
        equal = less & less.T
        # of equal ones the first stays
        beaten = np.any(less & ~equal, axis=0) | np.any(np.triu(equal, 1), axis=0)
        kept.append(group[~beaten])
    return np.concatenate(kept)
