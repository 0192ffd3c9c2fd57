"""Words, cycles and energy of fused attention: one key tile or an array of them, one placement or an array.

Tiles live in one memory of the machine, the buffer. Below it stands the array: all multipliers under one instance of
the buffer, each holding a small block of outputs (output-stationary) in the memory just below. Above it, traffic
passes every farther level; a farther level on the chip that holds Q, K, V and the output of the problems in flight
sends on each of them once only.

Assumptions: perfect overlap of computing, softmax and every port (as for GEMMs, `hwsim.mapping.counts`); multicast is
free; visited pairs are computed whole (masked scores of the diagonal tile too); softmax runs on the vector unit beside
the multipliers, or on the multipliers, one operation a cycle each, where the device has none. Online softmax keeps a
maximum and a sum a row (Milakov & Gimelshein 2018; FlashAttention, Dao et al., arXiv 2205.14135).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hwsim.mapping.fused.geometry import Geometry
from hwsim.mapping.fused.problem import Attention
from hwsim.mapping.machine import Machine

Array = np.ndarray[Any, Any]
STATS: Final = 2  # running maximum and sum of a row
OPS_PER_SCORE: Final = 5  # scale, maximum, subtraction, exponential, sum
OPS_PER_OUTPUT: Final = 1  # rescaling of a partial output when the maximum moves, division by the sum at the end


@dataclass(frozen=True, slots=True)
class Stage:
    """The buffer's place on a machine: its level, units side by side, multipliers and registers of one unit.

    vector_per_cycle: softmax operations a cycle of all units; 0: none beside the multipliers.
    """

    machine: Machine
    level: int
    vector_per_cycle: float = 0.0

    @property
    def units(self) -> int:
        return math.prod(item.fanout for item in self.machine.levels[self.level : -1])

    @property
    def array(self) -> int:
        return math.prod(item.fanout for item in self.machine.levels[: self.level])

    @property
    def register_words(self) -> float:
        """Words beside one multiplier; without such a level one of each tensor."""
        return self.machine.levels[self.level - 1].words if self.level else 3.0


@dataclass(frozen=True, slots=True)
class Far:
    """Words between the buffer and what lies beyond, of one problem: reads into it and updates out of it."""

    reads: Array
    updates: Array

    @property
    def words(self) -> Array:
        return np.asarray(self.reads + self.updates)


def footprint(a: Attention, queries: int, keys: Array, scores: str) -> Array:
    """Words of the buffer: tiles of Q, K, V, scores and output, and the statistics of each row."""
    q, kv, s, o = a.widths
    query, key = queries * a.head_dim * q, keys * a.head_dim * kv
    value, block, out = keys * a.value_dim * kv, queries * keys * s, queries * a.value_dim * o
    if scores == "on-chip":
        return np.asarray(query + key + value + block + out + STATS * queries)
    return np.asarray(np.maximum(query + key + block, block + value + out) + STATS * queries)


def far(a: Attention, g: Geometry, outer: str, scores: str) -> Far:
    """Words that pass between the buffer and the next level."""
    q, kv, s, o = a.widths
    if outer == "queries":
        keys, visits, partial = g.cover, np.asarray(a.rows), 0
    else:
        keys, visits, partial = g.reach, g.row_visits, STATS if scores == "on-chip" else 0
    back = visits - a.rows
    width = a.value_dim * o + np.where(back > 0, partial, 0)
    reads = visits * a.head_dim * q + keys * (a.head_dim + a.value_dim) * kv + back * width
    updates = visits * width
    if scores == "spilled":
        spill = g.scores * s + STATS * a.rows
        reads, updates = reads + spill, updates + spill
    return Far(np.asarray(reads, dtype=np.float64), np.asarray(updates, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Product:
    """One product of all visited pairs under an array of placements: shapes (n, placements).

    steps: clock steps of one unit; near: words asked of the buffer; fills: words put beside multipliers.
    """

    steps: Array
    near: Array
    fills: Array
    macs: Array


def product(a: Attention, g: Geometry, which: str, spread: Array, held: Array) -> Product:
    """Counts of ``qk`` or ``av``; `spread` and `held` have shape (2, placements): along rows, along columns."""
    q, kv, s, _ = a.widths
    steps: Any = 0.0
    near: Any = 0.0
    fills: Any = 0.0
    for i in range(2):
        rows = np.asarray(g.heights[i])[None, None]
        for j in range(2):
            keys, many = g.widths[j][:, None], g.pairs[i, j][:, None]
            cols, depth, first, second = (
                (keys, a.head_dim, q, kv) if which == "qk" else (np.asarray(a.value_dim)[None, None], keys, s, kv)
            )
            turns = [-(-x // (spread[d] * held[d])) for d, x in enumerate((rows, cols))]
            copies = [_copies(x, spread[d], held[d]) for d, x in enumerate((rows, cols))]
            steps = steps + many * depth * _steps(rows, spread[0], held[0]) * _steps(cols, spread[1], held[1])
            near = near + many * depth * (rows * turns[1] * first + cols * turns[0] * second)
            fills = fills + many * depth * (rows * copies[1] * first + cols * copies[0] * second)
    macs = g.scores * (a.head_dim if which == "qk" else a.value_dim)
    return Product(np.asarray(steps, float), np.asarray(near, float), np.asarray(fills, float), macs[:, None])


def _steps(extent: Any, spread: Any, held: Any) -> Any:
    """Steps along one dimension: whole rounds of `held` outputs a unit, then the rest."""
    chunk = spread * held
    return extent // chunk * held + np.minimum(extent % chunk, held)


def _copies(extent: Any, spread: Any, held: Any) -> Any:
    """Units that take part, over all rounds."""
    chunk = spread * held
    return extent // chunk * spread + np.minimum(spread, -(-(extent % chunk) // held))


@dataclass(frozen=True, slots=True)
class FusedCounts:
    """Of all problems of the batch: words by level, cycles by part, pJ by part, share of busy multipliers."""

    words_by: dict[str, Any]
    cycles_by: dict[str, Any]
    energy_by: dict[str, Any]
    macs: Any
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def cycles(self) -> Any:
        worst: Any = 0.0
        for part in self.cycles_by.values():
            worst = np.maximum(worst, part)
        return np.ceil(worst * (1 - 1e-13))

    @property
    def energy(self) -> Any:
        total: Any = 0.0
        for part in self.energy_by.values():
            total = total + part
        return total


def total(
    a: Attention, stage: Stage, g: Geometry, moved: Far, parts: tuple[Product, Product], way: tuple[str, str]
) -> FusedCounts:
    """Everything of a call; `way` is (outer loop, scores); placements of both products broadcast (trailing axes)."""
    first, second = parts
    outer, kept = way
    machine, b = stage.machine, stage.level
    here = machine.levels[b]
    _, _, s, o = a.widths
    macs = (first.macs + second.macs) * a.batch
    scores, row_pairs = g.scores[:, None] * 1.0, g.row_pairs[:, None] * 1.0
    # the products write scores and partial outputs, softmax reads scores and writes weights, outputs return
    own = 3 * scores * s + (2 * row_pairs - a.rows) * a.value_dim * o
    drained = moved.updates[:, None] if machine.drain_reads else 0.0
    near = (first.near + second.near + own + moved.reads[:, None] + drained) * a.batch
    beyond = _beyond(a, stage, moved.words[:, None] * 1.0)
    words = {here.memory: near, **beyond}
    items = a.batch * (g.query_tiles if outer == "queries" else 1)
    rounds = math.ceil(items / stage.units) / items * a.batch
    # spilled scores are read back when the maximum of their row is known: nothing is rescaled
    scaled = (row_pairs if kept == "on-chip" else a.rows) * a.value_dim
    ops = (OPS_PER_SCORE * scores + OPS_PER_OUTPUT * scaled) * a.batch
    cycles = {"compute": (first.steps + second.steps) * rounds, **_vector(stage, ops, items)}
    if not stage.vector_per_cycle:
        cycles = {"compute": cycles["compute"] + cycles["softmax"]}
    used = min(items, stage.units)
    for level in machine.levels[b:]:
        rate = level.read_words_per_cycle
        share = used if level is here else 1
        if math.isfinite(rate):
            cycles[level.memory] = words[level.memory] / share / rate
    energy = {level.memory: words[level.memory] * level.read_energy for level in machine.levels[b:]}
    energy["MAC"] = macs * machine.mac_energy
    energy["softmax"] = ops * machine.mac_energy / 2
    if b:
        register = machine.levels[b - 1]
        fills = first.fills + second.fills
        inside = 4 * macs + (fills - scores - row_pairs * a.value_dim) * a.batch
        energy[register.memory] = inside * register.read_energy
        words[register.memory] = inside
    return FusedCounts(words, cycles, energy, macs)


def _vector(stage: Stage, ops: Any, items: int) -> dict[str, Any]:
    lanes = stage.vector_per_cycle or stage.array * min(items, stage.units)
    return {"softmax": ops / lanes}


def _beyond(a: Attention, stage: Stage, words: Any) -> dict[str, Any]:
    """Words at every level beyond the buffer, near to far."""
    found: dict[str, Any] = {}
    levels = stage.machine.levels[stage.level + 1 :]
    flight = min(stage.units, a.batch)
    now = words * a.batch
    for index, level in enumerate(levels):
        last = index == len(levels) - 1
        below = now
        if not last and a.compulsory_words / a.batch * flight <= level.words:
            now = np.minimum(now, a.compulsory_words)
        found[level.memory] = below if last else below + now
    return found
