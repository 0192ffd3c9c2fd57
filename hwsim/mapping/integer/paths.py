"""Every way to break ONE dimension of a GEMM over the hierarchy, as a layered graph with exactly additive costs.

A tensor of a GEMM lacks exactly one dimension, and how often it is refetched depends on that dimension's path of
tile extents alone. So energy, words and steps are sums over the arcs of three paths, one a dimension, and an ILP
that picks three paths is exact. A node is a tile extent of one level together with what is still undecided: fetches
whose reuse may go on through the loops farther out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwsim.mapping.machine import DIMS, TENSOR_OF_DIM, TENSORS, Machine
from hwsim.mapping.problem import Gemm

# What the loops of one dimension may claim at one level.
CLOSED, STATIONARY, SOLO = 0, 1, 2
CORRIDOR = 2  # a node is contracted if that at most doubles the arcs at it: LPs like columns better than rows


@dataclass(frozen=True, slots=True)
class Mark:
    """What an arc decides at one level: tile extent, loop factor, spread below, claim of reuse, held or not."""

    level: int
    tile: int
    loop: int
    spread: int
    claim: int
    keep: bool


@dataclass(slots=True, eq=False)
class Arc:
    """A piece of a path. `words` per port, `log_steps` natural log of the clock steps it contributes."""

    source: int
    target: int
    marks: tuple[Mark, ...]
    energy: float
    words: tuple[float, ...]
    log_steps: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Refetches still being counted: from `parent` (-1: not known yet) into `child` (-1: the multipliers)."""

    child: int
    parent: int
    fan: int
    chunk: int
    held: int


@dataclass(frozen=True, slots=True)
class State:
    """Where a path stands after a level. `partial` lists (level, tile, instances) that still start partial sums."""

    tile: int
    running: bool
    fetches: tuple[Fetch, ...]
    partial: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Space:
    """Limits of the search: admissible extents of each dimension, and the ports whose words are counted.

    `extents[d]` are admissible tile extents; `ports` maps a level to its (read port, write port) index or None.
    """

    machine: Machine
    gemm: Gemm
    extents: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    ports: tuple[tuple[int | None, int | None], ...]
    n_ports: int
    largest: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class PathGraph:
    """Arcs of one dimension from node 0 (nothing tiled) to node `sink` (all of it)."""

    dim: int
    arcs: list[Arc] = field(default_factory=list)
    sink: int = -1


def path_graph(space: Space, dim: int) -> PathGraph:
    """All paths of one dimension, useless ones dropped, long corridors contracted."""
    graph = _Builder(space, dim).build()
    graph.arcs = _reachable(graph)
    graph.arcs = _contract(graph)
    graph.arcs = _undominated(graph.arcs)
    return graph


class _Builder:
    """Grows the graph level by level; equal states merge."""

    def __init__(self, space: Space, dim: int) -> None:
        self.space, self.dim = space, dim
        self.machine, self.gemm = space.machine, space.gemm
        self.extent = space.gemm.extents[dim]
        self.tensor = TENSOR_OF_DIM[dim]
        self.size = space.gemm.sizes[self.tensor] * space.gemm.batch
        self.width = self.machine.widths[self.tensor]
        self.admissible = frozenset(space.extents[dim])
        self.last = len(self.machine.levels) - 1
        self.spread_levels = [
            i
            for i, level in enumerate(self.machine.levels[:-1])
            if level.fanout > 1 and DIMS[dim] in level.dims and self.extent > 1
        ]
        self.even = all(self.extent % e == 0 for e in self.admissible)
        self.arcs: list[Arc] = []

    def build(self) -> PathGraph:
        start = State(1, False, (Fetch(-1, -1, 1, 1, 1),), ())
        frontier = {start: 0}
        count = 1
        for level in range(self.last + 1):
            reached: dict[State, int] = {}
            for state, node in frontier.items():
                for after, arc in self._steps(level, state, node):
                    if after not in reached:
                        reached[after] = count
                        count += 1
                    arc.target = reached[after]
                    self.arcs.append(arc)
            frontier = reached
        sink = count
        for node in frontier.values():
            self.arcs.append(Arc(node, sink, (), 0.0, (0.0,) * self.space.n_ports, 0.0))
        return PathGraph(self.dim, self.arcs, sink)

    def _steps(self, level: int, state: State, node: int) -> list[tuple[State, Arc]]:
        out = []
        for spread in self._spreads(level, state.tile):
            for loop in self._loops(level, state.tile * spread):
                for claim in self._claims(state, loop, level):
                    for keep in self._keeps(level, state, loop):
                        out.append(self._step(level, state, node, Mark(level, 0, loop, spread, claim, keep)))
        return out

    def _spreads(self, level: int, tile: int) -> list[int]:
        """Admissible spreads over the fan-out just below `level`."""
        if level == 0 or (level - 1) not in self.spread_levels:
            return [1]
        fanout = self.machine.levels[level - 1].fanout
        return sorted({e // tile for e in self.admissible if e % tile == 0 and e // tile <= fanout})

    def _loops(self, level: int, inner: int) -> list[int]:
        if level == self.last:
            return [-(-self.extent // inner)]
        cap = self.space.largest[level][self.dim]
        return sorted(e // inner for e in self.admissible if e % inner == 0 and e <= cap)

    def _claims(self, state: State, loop: int, level: int) -> tuple[int, ...]:
        if not state.running:
            return (CLOSED,)
        if level == self.last:
            return (CLOSED, STATIONARY) if loop > 1 else (CLOSED,)
        if self._is_far(level):  # one loop at most runs between the halves
            return (SOLO,) if loop > 1 else (CLOSED, SOLO)
        return (CLOSED, STATIONARY, SOLO) if loop > 1 else (CLOSED, SOLO)

    def _is_far(self, level: int) -> bool:
        """Whether this is the far half of a split memory."""
        return level > 0 and self.machine.levels[level].memory == self.machine.levels[level - 1].memory

    def _keeps(self, level: int, state: State, loop: int) -> tuple[bool, ...]:
        """Near half: whether the memory holds the tensor. Far half: whether it is there rather than in the near one."""
        item, name = self.machine.levels[level], TENSORS[self.tensor]
        if name not in item.keep:
            return (False,)
        if self._is_far(level):
            own = any(f.child == level - 1 for f in state.fetches)
            return (False, True) if own and loop == 1 else (False,)
        return (True, False) if name in item.bypass else (True,)

    def _step(self, level: int, state: State, node: int, mark: Mark) -> tuple[State, Arc]:
        tile = state.tile * mark.spread * mark.loop
        far, bill = self._is_far(level), _Bill(self)
        pending = []
        for f in state.fetches:
            grown = self._grow(f, level, state, mark, far)
            stays = far and mark.keep and f.child == level - 1
            if grown.parent >= 0 and not stays and (not state.running or mark.claim != SOLO or level == self.last):
                bill.fetch(grown)
            else:
                pending.append(grown)
        if mark.keep and not far and level < self.last:
            pending.append(Fetch(level, -1, 1, tile, 1 if self.even else tile))
        partial = self._partial(level, state, mark, tile, bill)
        running = mark.claim == SOLO or mark.keep
        after = State(tile, running and state.running or mark.keep, tuple(pending), partial)
        if level == self.last:
            after = State(0, False, (), ())
        log_steps = self._log_steps(state.tile, mark.spread)
        placed = Mark(level, tile, mark.loop, mark.spread, mark.claim, mark.keep)
        return after, Arc(node, -1, (placed,), bill.energy, tuple(bill.words), log_steps)

    def _grow(self, f: Fetch, level: int, state: State, mark: Mark, far: bool) -> Fetch:
        """A fetch after the loops of one level: more reuse while it runs, wider while its parent is not met."""
        beyond = f.parent == -1
        wider = mark.spread if beyond else 1
        longer = mark.loop if state.running and mark.claim in (STATIONARY, SOLO) else 1
        parent = level if beyond and mark.keep and not far else f.parent
        return Fetch(f.child, parent, f.fan * wider, f.chunk * wider * longer, f.held)

    def _log_steps(self, tile: int, spread: int) -> float:
        """Log of the factor by which a spread shortens the walk along the dimension.

        Exact where sizes divide, and with partial tiles where one fan-out spreads this dimension; with several it
        is a lower bound of the steps, and the solver loop re-costs what it finds.
        """
        if spread > 1 and len(self.spread_levels) == 1:
            whole, rest = divmod(self.extent, tile * spread)
            return math.log((whole * tile + min(rest, tile)) / self.extent)
        return -math.log(spread)

    def _partial(
        self, level: int, state: State, mark: Mark, tile: int, bill: _Bill
    ) -> tuple[tuple[int, int, int], ...]:
        """Outputs: instances of each holding level that begin a partial sum; billed when no spread over K is left."""
        if self.tensor != 2:
            return ()
        rows = [(at, held, fan * mark.spread) for at, held, fan in state.partial]
        if mark.keep and not self._is_far(level):
            rows.append((level, 1 if self.even else tile, 1))
        if any(j >= level for j in self.spread_levels):
            return tuple(rows)
        for at, held, fan in rows:
            bill.begin(at, fan if self.even else min(fan, -(-self.extent // held)))
        return ()


class _Bill:
    """Energy and words of one arc."""

    def __init__(self, owner: _Builder) -> None:
        self.owner = owner
        self.energy = 0.0
        self.words = [0.0] * owner.space.n_ports

    def fetch(self, f: Fetch) -> None:
        """Bill the words between two neighbouring levels that hold the tensor."""
        o = self.owner
        moved = o.size * -(-o.extent // f.chunk)
        whole, rest = divmod(o.extent, f.chunk)
        fed = o.size * (whole * f.fan + min(f.fan, -(-rest // f.held)))
        if o.tensor == 2:
            self._add(f.parent, moved, moved)
        else:
            self._add(f.parent, moved, 0)
        if f.child >= 0:
            drained = fed if o.tensor == 2 and o.machine.drain_reads else 0
            self._add(f.child, drained, fed)

    def begin(self, level: int, instances: int) -> None:
        """A partial sum that begins is neither read nor filled."""
        words = self.owner.size * instances
        self._add(level, -words, -words if level < self.owner.last else 0)

    def _add(self, level: int, read: float, written: float) -> None:
        o = self.owner
        item = o.machine.levels[level]
        self.energy += o.width * (read * item.read_energy + written * item.write_energy)
        read_port, write_port = o.space.ports[level]
        if read_port is not None:
            self.words[read_port] += o.width * read
        if write_port is not None:
            self.words[write_port] += o.width * written


def _reachable(graph: PathGraph) -> list[Arc]:
    """Arcs that lie on some path to the sink."""
    good = {graph.sink}
    kept = []
    for arc in sorted(graph.arcs, key=lambda a: -a.target):
        if arc.target in good:
            good.add(arc.source)
            kept.append(arc)
    return kept[::-1]


def _contract(graph: PathGraph) -> list[Arc]:
    """Replace nodes with a single way in or out by the composed arcs: fewer rows, the same paths."""
    into: dict[int, dict[int, Arc]] = {}
    out: dict[int, dict[int, Arc]] = {}
    for arc in graph.arcs:
        into.setdefault(arc.target, {})[id(arc)] = arc
        out.setdefault(arc.source, {})[id(arc)] = arc
    for node in sorted(set(into) & set(out)):
        if len(into[node]) * len(out[node]) > CORRIDOR * (len(into[node]) + len(out[node])):
            continue
        first, second = into.pop(node), out.pop(node)
        for arc in first.values():
            del out[arc.source][id(arc)]
        for arc in second.values():
            del into[arc.target][id(arc)]
        for a in first.values():
            for b in second.values():
                joined = _join(a, b)
                out[joined.source][id(joined)] = joined
                into[joined.target][id(joined)] = joined
    return [arc for arcs in out.values() for arc in arcs.values()]


def _join(first: Arc, second: Arc) -> Arc:
    words = tuple(x + y for x, y in zip(first.words, second.words, strict=True))
    return Arc(
        first.source,
        second.target,
        first.marks + second.marks,
        first.energy + second.energy,
        words,
        first.log_steps + second.log_steps,
    )


def _undominated(arcs: list[Arc]) -> list[Arc]:
    """Drop an arc when another with the same tiles claims no more reuse slots and costs no more."""
    groups: dict[tuple[object, ...], list[Arc]] = {}
    for arc in arcs:
        key = (arc.source, arc.target, *((m.level, m.tile, m.loop, m.spread, m.keep) for m in arc.marks))
        groups.setdefault(key, []).append(arc)
    kept = []
    for group in groups.values():
        chosen: list[Arc] = []
        for arc in sorted(group, key=lambda a: (sum(m.claim for m in a.marks), a.energy)):
            if not any(_covers(other, arc) for other in chosen):
                chosen.append(arc)
        kept.extend(chosen)
    return kept


def _covers(a: Arc, b: Arc) -> bool:
    # a lone loop may always be called stationary: the claims are ordered by what they ask of the other dimensions
    claims = all(x.claim <= y.claim for x, y in zip(a.marks, b.marks, strict=True))
    words = all(x <= y for x, y in zip(a.words, b.words, strict=True))
    return claims and a.energy <= b.energy and words
