"""The best fused tiling: complete enumeration of tiles, loop orders and placements, opened best bound first.

For each pair of tiles the least steps and words of the two products, each on its own, bound the objective from below.
Pairs are opened in the order of that bound, all placements of both products against each other; once the next bound
is not below the incumbent, nothing better is left. That is the proof.

The space: tile extents are all integers up to `ALL_UP_TO`; beyond, those that give another number of tiles and
multiples of powers of two; spreads and held blocks are powers of two.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.fused.counts import FusedCounts, Product, Stage, far, footprint, product, total
from hwsim.mapping.fused.geometry import geometry
from hwsim.mapping.fused.problem import ORDERS, SCORES, Attention, FusedTiling, Spread
from hwsim.mapping.machine import Machine
from hwsim.mapping.tiling.goal import goal_of

Array = np.ndarray[Any, Any]
ALL_UP_TO: Final = 64


@dataclass(frozen=True, slots=True)
class FusedDecision:
    """A mapper's answer for an attention, with the counts that hwsim recomputed."""

    tiling: FusedTiling
    counts: FusedCounts
    report: SolverReport


def extents(size: int) -> Array:
    """Tile extents on offer for one dimension, ascending."""
    if size <= ALL_UP_TO:
        return np.arange(1, size + 1)
    counts = np.unique(np.concatenate([np.arange(1, math.isqrt(size) + 1), size // np.arange(1, math.isqrt(size) + 1)]))
    twos = 2 ** np.arange(int(math.log2(size)) + 1)
    return np.unique(np.concatenate([-(-size // counts), twos]))


def placements(stage: Stage, rows: int, cols: int) -> tuple[Array, Array]:
    """(spread, held), each (2, n): powers of two within the array and the registers, up to what covers the extents."""
    spreads = [(s, t) for s in _powers(rows, stage.array) for t in _powers(cols, stage.array // s)]
    spreads = [one for one in spreads if not _grows(one, spreads)]
    most = int(stage.register_words) if math.isfinite(stage.register_words) else rows + cols
    held = [
        (r, c)
        for r in _powers(rows, most)
        for c in _powers(cols, most)
        if (r, c) == (1, 1) or r + c + r * c <= stage.register_words
    ]
    pairs = [(s, h) for s in spreads for h in held]
    return np.array([s for s, _ in pairs]).T, np.array([h for _, h in pairs]).T


def _powers(extent: int, limit: int) -> list[int]:
    """Powers of two up to the first that covers the extent, none above the limit."""
    return [2**i for i in range((extent - 1).bit_length() + 1) if 2**i <= limit]


def _grows(one: tuple[int, int], among: list[tuple[int, int]]) -> bool:
    return any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in among)


@dataclass(frozen=True, slots=True)
class _Pair:
    stage: Stage
    queries: int
    keys: int
    outer: str
    scores: str


def best_attention(
    machine: Machine,
    attention: Attention,
    objective: str = "latency",
    *,
    vector_per_cycle: float = 0.0,
    scores: tuple[str, ...] = SCORES,
    outer: tuple[str, ...] = ORDERS,
) -> FusedDecision:
    """The best fused tiling of `attention` on `machine`, proved over the space above.

    Parameters
    ----------
    objective: ``latency`` (cycles, then energy), ``energy``, ``edp``. vector_per_cycle: see `Stage`.
    scores, outer: restrict the choices (``("on-chip",)``).

    Raises InfeasibleError where no memory holds the smallest tiles.
    """
    begun = time.perf_counter()
    goal = goal_of(objective)
    heap: list[tuple[float, float, int, _Pair]] = []
    for stage in stages(machine, vector_per_cycle):
        for bound in _bounds(attention, stage, goal.value, scores, outer):
            heap.append((*bound[:2], len(heap), bound[2]))
    if not heap:
        raise _does_not_fit(machine, attention)
    heapq.heapify(heap)
    tried, best, least = len(heap), None, (math.inf, math.inf)
    opened = 0
    while heap and (heap[0][0], heap[0][1]) < least:
        pair = heapq.heappop(heap)[3]
        opened += 1
        value, found = _open(attention, pair, goal.value)
        if value < least:
            least, best = value, found
    if best is None:
        raise _does_not_fit(machine, attention)
    name = f"enumeration of {tried} tile pairs, {opened} opened"
    seconds = time.perf_counter() - begun
    report = SolverReport(name, "", "optimal", least[0], least[0], 0.0, seconds)
    return FusedDecision(best, cost(machine, attention, best, vector_per_cycle), report)


def stages(machine: Machine, vector_per_cycle: float) -> list[Stage]:
    """Every memory on the chip that can hold the tiles: all but the last, and but the one beside the multipliers."""
    last = len(machine.levels) - 1
    first = 1 if last > 1 else 0
    return [Stage(machine, level, vector_per_cycle) for level in range(first, last)]


def cost(machine: Machine, a: Attention, t: FusedTiling, vector_per_cycle: float = 0.0) -> FusedCounts:
    """Counts of one fused tiling, as numbers. Raises InfeasibleError where the tiles do not fit."""
    stage = Stage(machine, machine.level(t.level), vector_per_cycle)
    keys = np.array([t.keys])
    needed = float(footprint(a, t.queries, keys, t.scores)[0])
    room = _room(stage)
    if needed > room:
        raise InfeasibleError(
            f"tiles of {a.name} do not fit in {t.level}",
            where=f"{machine.name}.{t.level}",
            seen=f"{needed:g} of {room:g} words needed, {needed - room:g} short",
        )
    g = geometry(a, t.queries, keys)
    parts = tuple(
        product(a, g, name, np.array(p.spread)[:, None], np.array(p.held)[:, None])
        for name, p in (("qk", t.qk), ("av", t.av))
    )
    found = total(a, stage, g, far(a, g, t.outer, t.scores), (parts[0], parts[1]), (t.outer, t.scores))
    plain = [
        {k: float(np.ravel(v)[0]) for k, v in d.items()} for d in (found.words_by, found.cycles_by, found.energy_by)
    ]
    return FusedCounts(plain[0], plain[1], plain[2], float(np.ravel(found.macs)[0]))


def checked(
    machine: Machine, a: Attention, objective: str, vector_per_cycle: float, decision: FusedDecision
) -> FusedDecision:
    """A mapper's fused decision with counts and objective recomputed here.

    Raises InfeasibleError where the tiles do not fit, CheckFailedError where it claimed another objective.
    """
    counts = cost(machine, a, decision.tiling, vector_per_cycle)
    value = goal_of(objective).value(float(counts.energy), float(counts.cycles))
    said = decision.report.objective
    if not math.isnan(said) and abs(said - value) > 1e-9 * abs(value):
        raise CheckFailedError("the mapper's objective is not that of its fused mapping", seen=f"{said} and {value}")
    return replace(decision, counts=counts)


def _room(stage: Stage) -> float:
    level = stage.machine.levels[stage.level]
    return level.words / 2 if level.double_buffer else level.words


def _does_not_fit(machine: Machine, a: Attention) -> InfeasibleError:
    room = max(_room(stage) for stage in stages(machine, 0.0))
    needed = float(footprint(a, 1, np.array([1]), "on-chip")[0])
    return InfeasibleError(
        f"one query and one key of {a.name} fit no memory on the chip of {machine.name}",
        where=machine.name,
        seen=f"{needed:g} words needed, {room:g} in the largest",
        fix="a larger on-chip memory, or a smaller head",
        budget={"needed_words": needed, "shortfall_words": needed - room},
    )


def _bounds(
    a: Attention, stage: Stage, value: Any, scores: tuple[str, ...], outer: tuple[str, ...]
) -> Iterator[tuple[float, float, _Pair]]:
    """(bound, bound of energy, pair) of every tile pair that fits."""
    room = _room(stage)
    for queries in extents(a.rows):
        every = extents(a.keys)
        for kept in scores:
            keys = every[footprint(a, int(queries), every, kept) <= room]
            if not len(keys):
                continue
            g = geometry(a, int(queries), keys)
            parts = tuple(_least(product(a, g, name, *_placed(a, stage, int(queries), int(keys.max()), name)))
                          for name in ("qk", "av"))  # fmt: skip
            for order in outer:
                found = total(a, stage, g, far(a, g, order, kept), (parts[0], parts[1]), (order, kept))
                cycles, energy = np.ravel(found.cycles + 0 * found.energy), np.ravel(found.energy)
                low = np.broadcast_to(value(energy, cycles), energy.shape)
                for k, bound, joules in zip(keys, low, energy, strict=True):
                    yield float(bound), float(joules), _Pair(stage, int(queries), int(k), order, kept)


def _placed(a: Attention, stage: Stage, queries: int, keys: int, name: str) -> tuple[Array, Array]:
    return placements(stage, queries, keys if name == "qk" else a.value_dim)


def _least(p: Product) -> Product:
    """The least of each count on its own: what no placement of the product beats."""
    return _mapped(p, lambda x: x.min(axis=-1, keepdims=True))


def _open(a: Attention, pair: _Pair, value: Any) -> tuple[tuple[float, float], FusedTiling]:
    """The best placements of both products for one pair of tiles."""
    keys = np.array([pair.keys])
    g = geometry(a, pair.queries, keys)
    sets = [_placed(a, pair.stage, pair.queries, pair.keys, name) for name in ("qk", "av")]
    first, second = (product(a, g, name, *one) for name, one in zip(("qk", "av"), sets, strict=True))
    shape = (sets[0][0].shape[1], sets[1][0].shape[1])
    across = (
        _mapped(first, lambda x: np.repeat(x, shape[1], axis=-1)),
        _mapped(second, lambda x: np.tile(x, shape[0])),
    )
    found = total(a, pair.stage, g, far(a, g, pair.outer, pair.scores), across, (pair.outer, pair.scores))
    energy = np.ravel(np.broadcast_to(found.energy, (1, shape[0] * shape[1])))
    cycles = np.ravel(np.broadcast_to(found.cycles, (1, shape[0] * shape[1])))
    values = value(energy, cycles)
    at = int(np.lexsort((energy, values))[0])
    i, j = divmod(at, shape[1])
    chosen = [
        Spread((int(s[0, n]), int(s[1, n])), (int(h[0, n]), int(h[1, n])))
        for (s, h), n in zip(sets, (i, j), strict=True)
    ]
    level = pair.stage.machine.levels[pair.stage.level].name
    tiling = FusedTiling(level, pair.queries, pair.keys, pair.outer, pair.scores, chosen[0], chosen[1])
    return (float(values[at]), float(energy[at])), tiling


def _mapped(p: Product, change: Callable[[Array], Array]) -> Product:
    """Every count that has an axis of placements, changed."""
    return Product(change(p.steps), change(p.near), change(p.fills), p.macs)
