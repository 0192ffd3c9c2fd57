"""A placement as a path: items are placed one after another, a state is all that later items need to know.

Of a tensor with consumers left, the state holds the site of its producer and the sites it was sent to; of a shared
weight, the sites that hold it. Every placement is one path through the layers and its cost the sum over its steps, so
dynamic programming is exact; what the memories hold is a vector that adds up along the path beside the cost.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hwsim.mapping.placement.problem import SLACK, Flow, GraphProblem

Array = np.ndarray[Any, Any]
MOST_STEPS: Final = 600_000  # steps of all layers together
KEY_BITS: Final = 62


@dataclass(frozen=True, slots=True)
class Group:
    """Rows in the order of their states: `order`, the first place of each state in it, and the states."""

    order: Array
    first: Array
    states: Array

    def rows(self, state: int) -> Array:
        """Rows of a state."""
        at = int(np.searchsorted(self.states, state))
        end = self.first[at + 1] if at + 1 < len(self.first) else len(self.order)
        out: Array = self.order[self.first[at] : end]
        return out

    def least(self, values: Array, width: int) -> Array:
        """Minimum of the values (rows, kinds) of each state; infinite where a state has none."""
        out = np.full((width, values.shape[1]), np.inf)
        if len(self.first):
            out[self.states] = np.minimum.reduceat(values[self.order], self.first, axis=0)
        return out


@dataclass(slots=True)
class Piece:
    """Paths over consecutive items, one a row: states at both ends and what the path costs and uses.

    `use`: (paths, 1 + resources), the objective first. A path of one item has its `column`; a joined one the rows of
    its two parts.
    """

    start: Array
    end: Array
    use: Array
    column: Array | None = None
    parts: tuple[Piece, Piece] | None = None
    rows: tuple[Array, Array] | None = None
    _groups: list[Group | None] = field(default_factory=lambda: [None, None])

    def group(self, side: int) -> Group:
        """Paths by their start (0) or end (1)."""
        found = self._groups[side]
        if found is None:
            states = self.end if side else self.start
            order = np.argsort(states, kind="stable")
            ranked = states[order]
            first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, dtype=int)
            found = self._groups[side] = Group(order, first, ranked[first])
        return found

    def __len__(self) -> int:
        return len(self.start)

    def pick(self, at: Array) -> Piece:
        """Some of the paths (indices or a mask)."""
        rows = None if self.rows is None else (self.rows[0][at], self.rows[1][at])
        column = None if self.column is None else self.column[at]
        return Piece(self.start[at], self.end[at], self.use[at], column, self.parts, rows)

    def columns(self, at: int) -> list[int]:
        """Columns of the items along one path."""
        if self.column is not None:
            return [int(self.column[at])]
        if self.parts is None or self.rows is None:
            return []
        return self.parts[0].columns(int(self.rows[0][at])) + self.parts[1].columns(int(self.rows[1][at]))


@dataclass(slots=True)
class Layers:
    """The pieces of a path in order, `widths[i]` states before piece i, the room of each resource and its name."""

    pieces: list[Piece]
    widths: list[int]
    room: Array
    names: list[str]

    def with_pieces(self, pieces: list[Piece]) -> Layers:
        return Layers(pieces, self.widths, self.room, self.names)


@dataclass(slots=True)
class _Open:
    """A tensor or shared weight that later items need: its readers, and what sending or storing costs."""

    readers: list[int]
    source: int = -1
    send: Array | None = None
    stored: float = 0.0


@dataclass(slots=True)
class _Walk:
    """The states after the items placed so far: one row a state, one column an open thing."""

    keys: Array
    things: list[_Open] = field(default_factory=list)


def layers_of(
    problem: GraphProblem, allowed: Array, cost: Array, sends: list[Array], deadline: float = math.inf
) -> Layers | None:
    """The layers of all placements on allowed columns; None where they need too many states, or more time.

    Parameters
    ----------
    allowed: mask of columns. cost: objective of each column. sends: per flow, (sites, sites), what sending costs.
    """
    things = _things(problem, sends)
    if things is None:
        return None
    sites = len(problem.sites)
    limited = np.array([np.isfinite(s.memory_bytes) for s in problem.sites])
    room = np.array([s.memory_bytes * (1 + SLACK) for s in problem.sites])
    columns = [np.flatnonzero((problem.column_item == i) & allowed) for i in range(len(problem.items))]
    reach = [_mask(set(problem.column_site[c].tolist())) for c in columns]
    memory = problem.of("memory_bytes")
    walk, pieces, widths = _Walk(np.zeros((1, 0), dtype=np.int64)), [], [1]
    steps = 0
    for item, own in enumerate(columns):
        piece, walk = _step(problem, walk, things, item, own, (cost, memory), reach)
        steps += len(piece)
        if (sites + _bits(sites)) * len(walk.things) > KEY_BITS or steps > MOST_STEPS or not len(piece):
            return None
        if time.perf_counter() > deadline:
            return None
        pieces.append(piece)
        widths.append(len(walk.keys))
    parts = [np.bincount(problem.column_site[c], memory[c], sites) for c in columns]
    most = np.sum(parts, axis=0) + sum(t.stored_bytes for t in problem.shared)
    binding = np.flatnonzero(limited & (most > room))
    for piece in pieces:
        piece.use = piece.use[:, np.concatenate([[0], 1 + binding])]
    names = [f"memory of {problem.sites[s].name}" for s in binding]
    return Layers(pieces, widths, room[binding], names)


def _things(problem: GraphProblem, sends: list[Array]) -> list[_Open] | None:
    """Tensors whose sending costs, and shared weights; None where a consumer comes before its producer."""
    out = []
    for flow, send in zip(problem.flows, sends, strict=True):
        readers = _readers(flow)
        if readers and np.any(send > 0):
            if readers[0] <= flow.source:
                return None
            out.append(_Open(readers, flow.source, send))
    return out + [_Open(sorted(set(t.items)), stored=t.stored_bytes) for t in problem.shared if t.items]


def _readers(flow: Flow) -> list[int]:
    return sorted({*flow.each, *flow.exits, *flow.everywhere})


def _bits(sites: int) -> int:
    return max((sites - 1).bit_length(), 1)


def _mask(sites: set[int]) -> int:
    return sum(1 << s for s in sites)


def _step(
    problem: GraphProblem,
    walk: _Walk,
    things: list[_Open],
    item: int,
    own: Array,
    price: tuple[Array, Array],
    reach: list[int],
) -> tuple[Piece, _Walk]:
    """Every state with every column of an item."""
    sites, states = len(problem.sites), len(walk.keys)
    begun = [t for t in things if item == (t.source if t.source >= 0 else t.readers[0])]
    after = [t for t in walk.things if t.readers[-1] > item] + [t for t in begun if t.readers[-1] > item]
    later = [_mask_of(reach, [r for r in t.readers if r > item]) for t in after]
    cost, memory = price
    starts, ends, uses, columns, keys = [], [], [], [], []
    for at, site in enumerate(sorted(set(problem.column_site[own].tolist()))):
        arrives, stores, moved = _arrive(walk, item, site, _bits(sites))
        keys.append(_keys(walk, moved, after, later, site, item, _bits(sites)))
        mine = own[problem.column_site[own] == site]
        use = np.zeros((len(mine), states, 1 + sites))
        use[:, :, 0] = cost[mine][:, None] + arrives
        stores = stores + sum(t.stored for t in begun if t.source < 0)
        use[:, :, 1 + site] = memory[mine][:, None] + stores
        uses.append(use.reshape(-1, 1 + sites))
        starts.append(np.tile(np.arange(states), len(mine)))
        ends.append(np.tile(at * states + np.arange(states), len(mine)))
        columns.append(np.repeat(mine, states))
    if not keys:
        return Piece(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1 + sites))), walk
    merged, first, inverse = _unique(np.concatenate(keys), sites + _bits(sites))
    end = inverse[np.concatenate(ends)]
    order = np.argsort(end, kind="stable")
    piece = Piece(
        np.concatenate(starts)[order], end[order], np.concatenate(uses)[order], np.concatenate(columns)[order]
    )
    return piece, _Walk(merged[first], after)


def _mask_of(reach: list[int], items: list[int]) -> int:
    out = 0
    for i in items:
        out |= reach[i]
    return out


def _arrive(walk: _Walk, item: int, site: int, bits: int) -> tuple[Array, Array, Array]:
    """What an item on a site costs and stores beside itself, per state, and the keys after it."""
    keys = walk.keys.copy()
    arrives, stores = np.zeros(len(keys)), np.zeros(len(keys))
    for at, thing in enumerate(walk.things):
        if item not in thing.readers:
            continue
        source, held = keys[:, at] & ((1 << bits) - 1), keys[:, at] >> bits
        fresh = (held >> site) & 1 == 0
        if thing.send is not None:
            fresh &= source != site
            arrives += np.where(fresh, thing.send[source, site], 0.0)
        else:
            stores += np.where(fresh, thing.stored, 0.0)
        keys[:, at] = source | ((held | np.where(fresh, 1 << site, 0)) << bits)
    return arrives, stores, keys


def _keys(walk: _Walk, moved: Array, after: list[_Open], later: list[int], site: int, item: int, bits: int) -> Array:
    """Keys of the states after an item on a site; sites that no later reader may take are forgotten."""
    out = np.empty((len(moved), len(after)), dtype=np.int64)
    for at, thing in enumerate(after):
        if thing.source == item:
            out[:, at] = site
        elif thing.source < 0 and thing.readers[0] == item:
            out[:, at] = ((1 << site) & later[at]) << bits
        else:
            old = moved[:, next(k for k, t in enumerate(walk.things) if t is thing)]
            out[:, at] = (old & ((1 << bits) - 1)) | (((old >> bits) & later[at]) << bits)
    return out


def _unique(rows: Array, shift: int) -> tuple[Array, Array, Array]:
    """Different rows: (rows, index of each different one, inverse)."""
    packed = np.zeros(len(rows), dtype=np.int64)
    for at in range(rows.shape[1]):
        packed = (packed << shift) | rows[:, at]
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return rows, first, inverse
