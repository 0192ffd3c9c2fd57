"""The cheapest path that keeps every room, with its proof: rising targets, and branching where joins get too large.

A target a little above the bound admits few paths; they are all looked at. Where none of them is legal, the target is
a proved bound and rises. A set of placements with too many paths is split at a boundary by the states there; both
parts have their own, higher bounds.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsim.mapping.placement.paths.bounds import best_prices, bound_of, family, legal_path, pruned, sweep, usable
from hwsim.mapping.placement.paths.joins import MOST_PATHS, Frame, TooManyError, best_pair, halves, join
from hwsim.mapping.placement.paths.states import Array, Layers, Piece

FIRST: Final = 2e-5  # relative rise of the first target
RISES: Final = ((3_000, 1.7), (30_000, 1.35), (math.inf, 1.2))  # (paths, factor of the next rise)
PATHS_BEFORE_SPLIT: Final = 300_000
MOST_PARTS: Final = 40  # splits of a problem; after that its parts are only joined
PACKED: Final = 400  # paths of a piece up to which neighbours are joined once and for all
TRIED: Final = 2  # boundaries whose parts are bounded before one is chosen
FEW: Final = 60_000  # paths up to which pairs above the target are looked at as well, for an early answer
STRETCH: Final = 5.0  # times the margin above the bound, for that early answer
WORTH: Final = 0.02  # of the margin: least gain of a split


@dataclass(frozen=True, slots=True)
class Found:
    """Columns of the best placement (None: none seen), its cost, and the proved bound."""

    columns: tuple[int, ...] | None
    cost: float
    bound: float


@dataclass(slots=True)
class _Part:
    """A set of placements: its layers, best prices and bound."""

    layers: Layers
    prices: Array
    bound: float
    support: Array


class Search:
    """`layers` must hold every placement of at most `ceiling`."""

    def __init__(self, layers: Layers, prices: Array, ceiling: float, deadline: float = math.inf) -> None:
        self.ceiling, self.deadline = ceiling, deadline
        self.best: tuple[float, tuple[int, ...] | None] = (math.inf, None)
        self.splits = 0
        root = _Part(layers, prices, -math.inf, np.zeros((0, 0), dtype=int))
        self._bounded(root, 1)
        if math.isfinite(root.bound):
            self._begin(root)
            self._pack(root)
        self.parts = [root] if root.bound < ceiling else []
        self.proved = min(root.bound, ceiling)

    def run(self) -> Found:
        """Until proved, the ceiling, the deadline, or joins beyond what memory holds."""
        rise = abs(self.proved) * FIRST
        start = self.proved
        while self.parts and self.proved < min(self.best[0], self.ceiling):
            target = min(start + rise, self.best[0], self.ceiling)
            paths = self._all_within(target)
            if paths is None:
                break
            self.proved = target
            rise *= next(factor for most, factor in RISES if paths <= most)
        if not self.parts:
            self.proved = min(self.best[0], self.ceiling)
        return Found(self.best[1], self.best[0], min(self.proved, self.best[0]))

    def _begin(self, part: _Part) -> None:
        """A first placement, so that an answer exists whatever time is left."""
        found = legal_path(part.layers, part.prices)
        if found is not None:
            pieces = zip(part.layers.pieces, found[1].tolist(), strict=True)
            self.best = (found[0], tuple(c for piece, row in pieces for c in piece.columns(row)))

    def _bounded(self, part: _Part, turns: int) -> None:
        found = best_prices(part.layers, part.prices, turns)
        part.bound, part.prices, part.support = max(found.bound, part.bound), found.prices, found.paths

    def _pack(self, part: _Part) -> None:
        """Join neighbours while that keeps pieces small, for placements up to the ceiling."""
        frame = self._frame(part, min(self.ceiling, self.best[0]))
        pieces = [(p, i, i + 1) for i, p in enumerate(frame.layers.pieces)]
        at = 0
        while at + 1 < len(pieces):
            (left, first, middle), (right, _, last) = pieces[at], pieces[at + 1]
            try:
                joined = join(frame, left, right, (first, middle, last), PACKED)
            except TooManyError:
                at += 1
                continue
            pieces[at : at + 2] = [(joined, first, last)]
        widths = [1, *(part.layers.widths[last] for _, _, last in pieces)]
        part.layers = Layers([p for p, _, _ in pieces], widths, part.layers.room, part.layers.names)
        self._bounded(part, 8)

    def _frame(self, part: _Part, target: float) -> Frame:
        prices = family(part.prices)
        swept = sweep(part.layers, prices)
        layers = pruned(part.layers, swept, prices, target)
        return Frame(layers, prices, swept, float(bound_of(layers, swept[0], prices[:1])[0]), target, self.deadline)

    def _all_within(self, target: float) -> int | None:
        """Look at all paths within the target; how many there were, None where that is too much."""
        queue, seen, later = list(self.parts), 0, []
        while queue:
            part = queue.pop()
            if time.perf_counter() > self.deadline:
                return None
            if part.bound >= min(target, self.best[0]):
                later.append(part)
                continue
            frame = self._frame(part, min(target, self.best[0]))
            if any(not len(p) for p in frame.layers.pieces):
                later.append(part)
                continue
            try:
                seen += self._look(frame, PATHS_BEFORE_SPLIT)
                later.append(part)
            except TooManyError:
                if time.perf_counter() > self.deadline:
                    return None
                parts = self._split(part, frame)
                if parts:
                    queue += parts
                    continue
                try:
                    seen += self._look(frame, MOST_PATHS)
                except TooManyError:
                    return None
                later.append(part)
        self.parts = [p for p in later if p.bound < self.best[0]]
        return seen

    def _look(self, frame: Frame, most: int) -> int:
        left, right, boundary = halves(frame, most)
        pairs = [best_pair(frame, left, right, boundary)]
        if min(pairs[0].cost, self.best[0]) > frame.target and len(left) + len(right) < FEW:
            with contextlib.suppress(TooManyError):
                pairs.append(best_pair(frame, left, right, boundary, STRETCH))
        pair = min(pairs, key=lambda p: p.cost)
        if pair.cost < self.best[0]:
            self.best = (pair.cost, tuple(left.columns(pair.left) + right.columns(pair.right)))
        return len(left) + len(right)

    def _split(self, part: _Part, frame: Frame) -> list[_Part]:
        """Two parts of higher bounds, by the states of a boundary; none where no boundary raises them."""
        if self.splits >= MOST_PARTS:
            return []
        masks = usable(part.layers, frame.swept, frame.prices, min(self.best[0], self.ceiling))
        best: tuple[float, list[_Part]] = (WORTH * frame.margin, [])
        for at, side in self._ways(part, frame):
            sides = [[*masks[:at], masks[at] & s, *masks[at + 1 :]] for s in (side, ~side)]
            parts = [_Part(_only(part.layers, m), part.prices, part.bound, part.support) for m in sides]
            for child in parts:
                self._bounded(child, 6)
            low, high = sorted(min(c.bound, frame.target) - part.bound for c in parts)
            gain = 4 * low + high
            if gain > best[0]:
                best = (gain, [c for c in parts if math.isfinite(c.bound)])
        self.splits += 1
        return best[1]

    def _ways(self, part: _Part, frame: Frame) -> list[tuple[int, Array]]:
        """Ways to split where the shortest paths behind the bound differ, the most promising first."""
        found: list[tuple[float, int, Array]] = []
        for at, piece in enumerate(part.layers.pieces):
            rows = np.unique(part.support[:, at])
            if len(rows) < 2:
                continue
            least = self._row_bounds(part, frame, at)
            for low in _partitions(piece, rows, frame.prices[0]):
                bounds = sorted(min(least[side].min(initial=math.inf), frame.target) for side in (low, ~low))
                found.append((4 * bounds[0] + bounds[1], at, low))
        found.sort(key=lambda f: -f[0])
        return [(at, low) for _, at, low in found[:TRIED]]

    def _row_bounds(self, part: _Part, frame: Frame, at: int) -> Array:
        """Bound of all placements through each path of a piece, the best over the prices."""
        piece, (ahead, behind) = part.layers.pieces[at], frame.swept
        least = ahead[at][piece.start] + piece.use @ frame.weights + behind[at + 1][piece.end]
        out: Array = (least - frame.prices @ part.layers.room).max(axis=1)
        return out


def _partitions(piece: Piece, rows: Array, prices: Array) -> list[Array]:
    """Masks that tell some of the rows of a piece apart: by the state at either end, or by the use of a resource."""
    out = []
    for ends in (piece.start, piece.end):
        if len(np.unique(ends[rows])) > 1:
            out.append(ends == ends[rows[0]])
    spread = np.ptp(piece.use[rows, 1:], axis=0) * np.maximum(prices, 1e-9)
    for r in np.argsort(-spread)[:2]:
        if spread[r] > 0:
            values = np.sort(piece.use[rows, 1 + r])
            gap = int(np.argmax(np.diff(values)))
            out.append(piece.use[:, 1 + r] <= (values[gap] + values[gap + 1]) / 2)
    return out


def _only(layers: Layers, masks: list[Array]) -> Layers:
    """Only some of the paths of each piece."""
    return layers.with_pieces([piece.pick(mask) for piece, mask in zip(layers.pieces, masks, strict=True)])
