"""Lagrangian bounds: the memories priced, the shortest path under those prices, and the best prices.

L(prices) = min over paths of (cost + prices x use) - prices x room is a bound for any prices >= 0. The least cost of a
path through a state, by one sweep from each end, bounds all placements through that state. Sweeps take many price
vectors at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsim.mapping.backends import Planes
from hwsim.mapping.placement.paths.states import Array, Layers

TURNS: Final = 8  # most rounds of the cutting planes for prices
STEPS: Final = (0.3, 0.65, 1.0)  # points tried on the way from the best prices to those of the cutting planes
SPREADS: Final = (0.004, 0.012, 0.04, 0.12)  # relative changes of prices whose bounds are taken together
RAISES: Final = 40  # most rounds of raising prices for a first legal placement
FIRST_BOX: Final = 0.1  # half width of the box, of the prices
EVEN: Final = 1e-7  # relative gain of a bound below which prices are good enough

Sweep = tuple[list[Array], list[Array]]


def sweep(layers: Layers, prices: Array) -> Sweep:
    """Least cost to each state from the start and to the end; per boundary (states, price vectors)."""
    behind = [np.zeros((1, len(prices)))]
    weights = np.vstack([np.ones(len(prices)), prices.T])
    for piece, width in zip(layers.pieces[::-1], layers.widths[-2::-1], strict=True):
        behind.append(piece.group(0).least(behind[-1][piece.end] + piece.use @ weights, width))
    return _forward(layers, prices), behind[::-1]


def _forward(layers: Layers, prices: Array) -> list[Array]:
    weights = np.vstack([np.ones(len(prices)), prices.T])
    ahead = [np.zeros((1, len(prices)))]
    for piece, width in zip(layers.pieces, layers.widths[1:], strict=True):
        ahead.append(piece.group(1).least(ahead[-1][piece.start] + piece.use @ weights, width))
    return ahead


def bound_of(layers: Layers, ahead: list[Array], prices: Array) -> Array:
    """L of every price vector."""
    out: Array = ahead[-1][0] - prices @ layers.room
    return out


def shortest_use(layers: Layers, ahead: list[Array], prices: Array, at: int) -> tuple[Array, Array]:
    """Cost and use of the shortest path under price vector `at`, and its row in every piece."""
    weights = np.concatenate([[1.0], prices[at]])
    state, total, rows = 0, np.zeros(1 + len(layers.room)), np.zeros(len(layers.pieces), dtype=int)
    for i in range(len(layers.pieces) - 1, -1, -1):
        piece = layers.pieces[i]
        into = piece.group(1).rows(state)
        best = into[np.argmin(ahead[i][piece.start[into], at] + piece.use[into] @ weights)]
        total += piece.use[best]
        rows[i] = best
        state = int(piece.start[best])
    return total, rows


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices, their bound, and rows (paths, pieces) of the shortest paths that the bound is a mean of."""

    bound: float
    prices: Array
    paths: Array


def best_prices(layers: Layers, prices: Array, turns: int = TURNS) -> Priced:
    """Prices of a (nearly) highest bound, by cutting planes in a box that shrinks around the best ones so far.

    The bound is infinite where no path is left.
    """
    best, at, tried, size = -math.inf, prices, prices[None], FIRST_BOX
    planes, paths = Planes(len(layers.room)), []
    support = np.zeros((0, len(layers.pieces)), dtype=int)
    for turn in range(turns):
        ahead = _forward(layers, tried)
        bounds = bound_of(layers, ahead, tried)
        if not np.all(np.isfinite(bounds)):
            return Priced(math.inf, at, support)
        if bounds.max() > best:
            gain = bounds.max() - best
            best, at = float(bounds.max()), tried[int(np.argmax(bounds))]
            if gain < EVEN * abs(best):
                break
            size *= 2.0 if turn else 1.0
        else:
            size *= 0.4
        for k in range(len(tried)):
            plane, rows = shortest_use(layers, ahead, tried, k)
            planes.add(float(plane[0]), plane[1:] - layers.room)
            paths.append(rows)
        radius = np.maximum(at, 1e-3 * float(at.max(initial=0.0))) * size + 1e-12
        height, point, weight = planes.highest(np.maximum(at - radius, 0.0), at + radius)
        if not math.isfinite(height):
            break
        support = np.array(paths)[weight > 1e-6]
        if height - best <= EVEN * abs(best):
            break
        tried = at + np.array(STEPS)[:, None] * (point - at)
    return Priced(best, at, support)


def legal_path(layers: Layers, prices: Array) -> tuple[float, Array] | None:
    """A path that keeps every room, found by raising the prices of what overflows: (cost, rows); None: not found."""
    at = np.maximum(prices, 1e-2 * float(prices.max(initial=0.0)))
    for _ in range(RAISES):
        use, rows = shortest_use(layers, _forward(layers, at[None]), at[None], 0)
        over = use[1:] > layers.room
        if not over.any():
            return float(use[0]), rows
        short = np.where(over, use[1:] / np.maximum(layers.room, 1e-300) - 1.0, 0.0)
        at = at * (1.0 + np.where(over, np.clip(short, 0.01, 0.3), 0.0))
    return None


def family(prices: Array) -> Array:
    """The prices first, then each of them, and all together, a little up and down; shape (vectors, resources)."""
    active = np.flatnonzero(prices > 0)
    out = [prices]
    for spread in SPREADS:
        for factor in (math.exp(spread), math.exp(-spread)):
            for r in active:
                out.append(np.where(np.arange(len(prices)) == r, prices * factor, prices))
            if len(active) > 1:
                out.append(prices * factor)
    return np.array(out)


def usable(layers: Layers, swept: Sweep, prices: Array, target: float) -> list[Array]:
    """Masks of the paths of each piece that some placement of at most `target` may use, under all of the prices."""
    limits = target + prices @ layers.room + abs(target) * 1e-11
    weights = np.vstack([np.ones(len(prices)), prices.T])
    ahead, behind = swept
    out = []
    for i, piece in enumerate(layers.pieces):
        least = ahead[i][piece.start] + piece.use @ weights + behind[i + 1][piece.end]
        out.append(np.all(least <= limits, axis=1))
    return out


def pruned(layers: Layers, swept: Sweep, prices: Array, target: float) -> Layers:
    """Without the paths that are not usable."""
    masks = usable(layers, swept, prices, target)
    return layers.with_pieces([piece.pick(mask) for piece, mask in zip(layers.pieces, masks, strict=True)])
