"""Joining pieces of near-optimal paths: only pairs that some placement within the target can use.

With the excess of a path over the Lagrangian bound written as (reduced costs of its pieces) + (prices x room left),
all terms non-negative, pieces whose reduced costs alone pass the target never pair up. The last join looks for pairs
whose uses leave little room: uses are put into cells as wide as the most room the target allows, and one half of
every pair has at most half of the reduced cost.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsim.mapping.placement.paths.bounds import Sweep
from hwsim.mapping.placement.paths.states import Array, Layers, Piece

MOST_PATHS: Final = 1_500_000  # paths of one joined piece
MOST_PAIRS: Final = 30_000_000  # pairs looked at by one last join
CHUNK: Final = 500_000
COMPARED: Final = 1500  # paths up to which all pairs are compared
SIEVED_FROM: Final = 300  # paths from which the other prices are worth asking
SAMPLE: Final = 400
SIEVES: Final = 6  # price vectors asked of all paths, the best on a sample


class TooManyError(Exception):
    """More paths than one join may hold, or no time left for it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Bounds of a set of placements: prices (the best first), both sweeps under them, and the target."""

    layers: Layers
    prices: Array
    swept: Sweep
    bound: float
    target: float
    deadline: float = math.inf

    @property
    def weights(self) -> Array:
        return np.vstack([np.ones(len(self.prices)), self.prices.T])

    @property
    def least(self) -> float:
        """Priced cost of the shortest path under the best prices."""
        return float(self.bound + self.prices[0] @ self.layers.room)

    @property
    def margin(self) -> float:
        return self.target - self.bound


def halves(frame: Frame, most: int = MOST_PATHS) -> tuple[Piece, Piece, int]:
    """All paths within the target as two joined pieces, and the boundary between them. Raises TooManyError."""
    pieces = [(p, i, i + 1) for i, p in enumerate(frame.layers.pieces)]
    if len(pieces) == 1:
        pieces.append((_nothing(frame), 1, 1))
    while len(pieces) > 2:
        sizes = np.array([len(p[0]) for p in pieces], dtype=float)
        at = int(np.argmin(sizes[:-1] * sizes[1:]))
        (left, first, middle), (right, _, last) = pieces[at], pieces[at + 1]
        joined = join(frame, left, right, (first, middle, last), most)
        pieces[at : at + 2] = [(joined, first, last)]
    return pieces[0][0], pieces[1][0], pieces[0][2]


def _nothing(frame: Frame) -> Piece:
    width = frame.layers.widths[-1]
    return Piece(np.arange(width), np.zeros(width, dtype=int), np.zeros((width, 1 + len(frame.layers.room))))


def join(frame: Frame, left: Piece, right: Piece, at: tuple[int, int, int], most: int = MOST_PATHS) -> Piece:
    """Pairs of paths that meet in a state and are within the target; `at`: first, middle, last boundary."""
    if time.perf_counter() > frame.deadline:
        raise TooManyError
    first, middle, last = at
    weights, (ahead, behind) = frame.weights[:, 0], frame.swept
    before = ahead[first][left.start, 0] + left.use @ weights
    after = right.use @ weights + behind[last][right.end, 0]
    floor = behind[middle][:, 0]
    slip = abs(frame.least) * 1e-12
    span = 4 * frame.margin + 8 * slip
    keys = right.start * span + np.clip(after - floor[right.start], 0.0, 2 * frame.margin)
    order = np.argsort(keys)
    ranked = keys[order]
    spare = frame.least + frame.margin - before - floor[left.end]
    low = np.searchsorted(ranked, left.end * span - slip)
    high = np.searchsorted(ranked, left.end * span + np.clip(spare, 0.0, frame.margin) + slip, side="right")
    count = np.where(spare < -slip, 0, np.maximum(high - low, 0))
    if int(count.sum()) > most:
        raise TooManyError
    mine, theirs = _pairs(low, count)
    theirs = order[theirs]
    rows = (mine.astype(np.int32), theirs.astype(np.int32))
    out = Piece(left.start[mine], right.end[theirs], left.use[mine] + right.use[theirs], None, (left, right), rows)
    return _undominated(_without_twins(_sieved(frame, out, first, last), frame.layers.widths[last]), frame)


def _pairs(low: Array, count: Array) -> tuple[Array, Array]:
    """(index of a range, position in it) for all positions low .. low + count - 1."""
    owner = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, low[owner] + offset


def _sieved(frame: Frame, piece: Piece, first: int, last: int) -> Piece:
    """Without paths that another price vector rules out."""
    if len(piece) < SIEVED_FROM or len(frame.prices) == 1:
        return piece
    ahead, behind = frame.swept
    limits = frame.target + frame.prices @ frame.layers.room + abs(frame.target) * 1e-11
    weights = frame.weights

    def over(use: Array, start: Array, end: Array, k: Any) -> Array:
        out: Array = ahead[first][start, k] + use @ weights[:, k] + behind[last][end, k] > limits[k]
        return out

    sample = np.linspace(0, len(piece) - 1, min(len(piece), SAMPLE)).astype(int)
    some = piece.pick(sample)
    out = ahead[first][some.start] + some.use @ weights + behind[last][some.end] > limits
    kept, use, start, end = np.arange(len(piece)), piece.use, piece.start, piece.end
    for _ in range(SIEVES):
        k = int(np.argmax(out.sum(axis=0)))
        if out[:, k].sum() * 50 < len(out):
            break
        good = ~over(use, start, end, k)
        kept, use, start, end = kept[good], use[good], start[good], end[good]
        out = out[~out[:, k]]
    return piece.pick(kept) if len(kept) < len(piece) else piece


def _undominated(piece: Piece, frame: Frame) -> Piece:
    """Without paths that another one between the same states replaces at no more cost and no more use of anything."""
    if not 1 < len(piece) <= COMPARED:
        return piece
    order = np.lexsort((piece.use[:, 0], piece.end, piece.start))
    start, end, use = piece.start[order], piece.end[order], piece.use[order]
    same = (start[:, None] == start) & (end[:, None] == end)
    beaten = np.triu(same, 1)  # row before column: costs no more
    for r in range(1, use.shape[1]):
        beaten &= use[:, r][:, None] <= use[:, r]
    return piece.pick(np.sort(order[~beaten.any(axis=0)]))


def _without_twins(piece: Piece, width: int) -> Piece:
    """One of paths that agree in both ends and everything they use (equal layers in another order)."""
    if len(piece) < 2:
        return piece
    mixed = piece.use @ np.sqrt(np.arange(2.0, 2.0 + piece.use.shape[1]))
    order = np.lexsort((mixed, piece.start * width + piece.end)) if len(piece) < SAMPLE else np.argsort(mixed)
    a, b = order[1:], order[:-1]
    near = np.flatnonzero(np.abs(mixed[a] - mixed[b]) <= 1e-13 * np.abs(mixed[a]))
    if not len(near):
        return piece
    a, b = a[near], b[near]
    same = (piece.start[a] == piece.start[b]) & (piece.end[a] == piece.end[b])
    same &= np.all(np.abs(piece.use[a] - piece.use[b]) <= 1e-13 * (1 + np.abs(piece.use[a])), axis=1)
    keep = np.ones(len(piece), dtype=bool)
    keep[a[same]] = False
    return piece.pick(keep)


@dataclass(frozen=True, slots=True)
class Pair:
    """The cheapest legal pair of halves that was seen."""

    cost: float = math.inf
    left: int = -1
    right: int = -1


def best_pair(frame: Frame, left: Piece, right: Piece, boundary: int, stretch: float = 1.0) -> Pair:
    """The cheapest pair within the target that keeps every room; pairs above it may come back too.

    `stretch` > 1 looks that many times farther above the bound, among the same paths: no proof, but a first answer.
    Raises TooManyError.
    """
    frame = replace(frame, target=frame.bound + stretch * frame.margin)
    ahead, behind = frame.swept
    weights = frame.weights[:, 0]
    mine = np.maximum(left.use @ weights + behind[boundary][left.end, 0] - frame.least, 0.0)
    theirs = np.maximum(right.use @ weights + ahead[boundary][right.start, 0] - frame.least, 0.0)
    offset = ahead[boundary][:, 0] + behind[boundary][:, 0] - frame.least
    found = Pair()
    small = np.flatnonzero(mine <= offset[left.end] / 2 + frame.margin / 2 * (1 + 1e-9))
    cost, a, b = _search(frame, (left, left.end, mine, small), (right, right.start, theirs), offset)
    found = Pair(cost, a, b)
    small = np.flatnonzero(theirs <= offset[right.start] / 2 + frame.margin / 2 * (1 + 1e-9))
    cost, b, a = _search(frame, (right, right.start, theirs, small), (left, left.end, mine), offset)
    return Pair(cost, a, b) if cost < found.cost else found


Side = tuple[Piece, Array, Array]


def _search(frame: Frame, few: tuple[Piece, Array, Array, Array], many: Side, offset: Array) -> tuple[float, int, int]:
    """The cheapest legal pair of one of the `few` with any of the `many`: (cost, row, row)."""
    piece, state, reduced, rows = few
    other, its_state, its_reduced = many
    if not len(rows) or not len(other):
        return math.inf, -1, -1
    priced = np.flatnonzero(frame.prices[0] > 0)
    span = 4 * frame.margin + 1e-9 * abs(frame.bound)
    cells = _Cells(other, its_state, priced, frame)
    keys = cells.index * span + np.minimum(its_reduced, 2 * frame.margin)
    order = np.argsort(keys)
    ranked = keys[order]
    best = (math.inf, -1, -1)
    spare = frame.margin - reduced[rows] + offset[state[rows]] + 1e-12 * abs(frame.least)
    looked = 0
    for shift in range(2 ** len(priced)):
        cell = cells.opposite(piece.use[rows], state[rows], [(shift >> k) & 1 for k in range(len(priced))])
        at = np.flatnonzero((cell >= 0) & (spare >= 0))
        low = np.searchsorted(ranked, cell[at] * span)
        high = np.searchsorted(ranked, cell[at] * span + np.minimum(spare[at], frame.margin * 1.999), side="right")
        count = np.maximum(high - low, 0)
        looked += int(count.sum())
        if looked > MOST_PAIRS or time.perf_counter() > frame.deadline:
            raise TooManyError
        for part in _chunks(count):
            own, position = _pairs(low[part], count[part])
            a, b = rows[at[part][own]], order[position]
            best = min(best, _cheapest(frame, piece, other, a, b))
    return best


def _chunks(count: Array) -> list[slice]:
    """Ranges of entries with at most about `CHUNK` pairs together."""
    if not len(count):
        return []
    block = (np.cumsum(count) - 1) // CHUNK
    edges = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
    return [slice(a, b) for a, b in zip(edges, np.r_[edges[1:], len(count)], strict=True)]


def _cheapest(frame: Frame, piece: Piece, other: Piece, a: Array, b: Array) -> tuple[float, int, int]:
    legal = np.ones(len(a), dtype=bool)
    for r, room in enumerate(frame.layers.room):
        legal &= piece.use[a, 1 + r] + other.use[b, 1 + r] <= room
    good = np.flatnonzero(legal)
    if not len(good):
        return math.inf, -1, -1
    cost = piece.use[a[good], 0] + other.use[b[good], 0]
    at = int(np.argmin(cost))
    return float(cost[at]), int(a[good[at]]), int(b[good[at]])


class _Cells:
    """Paths in cells by state and use of the priced resources, numbered densely."""

    def __init__(self, piece: Piece, state: Array, priced: Array, frame: Frame) -> None:
        self.priced, self.room = priced, frame.layers.room[priced]
        self.width = frame.margin / frame.prices[0][priced] * (1 + 1e-6) + 1e-9 * self.room
        cell = np.floor(piece.use[:, 1 + priced] / self.width)
        self.low = cell.min(axis=0, initial=0.0) if len(piece) else np.zeros(len(priced))
        self.most = cell.max(axis=0, initial=0.0)
        self.span = self.most - self.low + 1
        self.known, self.index = np.unique(self._number(cell, state), return_inverse=True)

    def _number(self, cell: Array, state: Array) -> Array:
        out = state.astype(float)
        for k, span in enumerate(self.span):
            out = out * span + (cell[:, k] - self.low[k])
        return out

    def opposite(self, use: Array, state: Array, shift: list[int]) -> Array:
        """Cell whose paths fill the room together with `use`, shifted down; -1 where there is none."""
        cell = np.floor((self.room - use[:, 1 + self.priced]) / self.width) - np.array(shift)
        inside = np.all((cell >= self.low) & (cell <= self.most), axis=1)
        number = self._number(np.where(inside[:, None], cell, self.low), state)
        at = np.minimum(np.searchsorted(self.known, number), len(self.known) - 1)
        out: Array = np.where(inside & (self.known[at] == number), at, -1)
        return out
