"""Iteration time from the cost model: tables built once per (model, platform, parallelism), read in O(log knots).

The tasks of a pass split into attention, whose time depends on the cached context, and the rest, which depends on
the number of tokens only. Three broadcast calls of the analytic engine fill three tables: decode passes by
(sequences, mean context), the rest of a prefill by tokens, prefill attention by (tokens, past). A mixed iteration is
the rest at its total tokens + the attention of each part + one host overhead. Exact at the knots; linear between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hwsim.engine import analytic
from hwsim.engine.estimate import Model
from hwsim.errors import InputError
from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.mapping.lower import lower
from hwsim.serving.energy import IterationEnergy
from hwsim.serving.iteration_time import UNBOUNDED, Chunk

Array = np.ndarray[Any, Any]
_ATTENTION: Final = ("attention_prefill", "attention_decode")
_TINY_S: Final = 1e-9
ROW_TILE: Final = 64  # rows of the smallest tile of tensor-core GEMMs: their time steps just after its multiples
WAVES: Final = 1024  # rows up to which half row tiles are knots too
MOST_STEPPED: Final = 65536  # rows up to which knots lie on both sides of every step
WANTED: Final = 0.02  # interpolation error above which the knots are set twice as close
KEPT: Final = 4096  # rows kept of each table
Lines = dict[int, tuple[float, ...]]
OCTAVE: Final = 8  # knots of contexts and chunks in each doubling


@dataclass(frozen=True, slots=True)
class Pricer:
    """Calls the analytic engine for whole arrays of passes.

    `prompt_experts`: time of the experts in passes with prompts over that of the calibrated kernels, beyond the time of
    reading their weights.
    """

    model: Model
    platform: Platform
    scenario: Scenario
    formats: Any
    prompt_experts: float = 1.0

    def split_s(self, phase: str, batch: Any, tokens: Any, past: Any) -> tuple[Array, Array, Array, float]:
        """(attention s, rest s, dynamic energy J, host overhead s) of passes; arrays broadcast together."""
        mapping = Mapping(self.scenario.mapper, self.scenario.tp, self.scenario.pp, self.scenario.ep, self.scenario.dp)
        graph = lower(self.model.graph(phase, batch, tokens, past, self.formats), self.platform, mapping)
        timeline = analytic.run(graph, self.scenario.efficiency, check=False)
        attention: Any = 0.0
        rest: Any = 0.0
        energy: Any = 0.0
        for interval in timeline.intervals:
            seconds = interval.cost.time_s * interval.task.count
            if phase == "prefill" and interval.task.kind == "moe":
                read_s = interval.cost.floor_parts_s.get("hbm", 0.0) * interval.task.count
                seconds = seconds + (self.prompt_experts - 1.0) * np.maximum(0.0, seconds - read_s)
            energy = energy + interval.cost.energy_j * interval.task.count
            if interval.task.kind in _ATTENTION:
                attention = attention + seconds
            else:
                rest = rest + seconds
        return np.asarray(attention), np.asarray(rest), np.asarray(energy), float(np.max(timeline.overhead_s))


@dataclass(frozen=True, slots=True)
class Axis:
    """Sorted knots and their neighbours: positions outside are extrapolated from the last pair."""

    knots: tuple[float, ...]

    def locate(self, value: float) -> tuple[int, float]:
        """(left knot, fraction of the way to the next)."""
        left = min(max(bisect_right(self.knots, value) - 1, 0), len(self.knots) - 2)
        low = self.knots[left]
        return left, (value - low) / (self.knots[left + 1] - low)

    def read(self, line: Sequence[float], value: float) -> float:
        """`line`, given at the knots, at `value`; at least 0."""
        knots = self.knots
        left = bisect_right(knots, value) - 1
        if left >= len(line) - 1:
            left = len(line) - 2
        elif left < 0:
            left = 0
        low = line[left]
        found = low + (line[left + 1] - low) * (value - knots[left]) / (knots[left + 1] - knots[left])
        return found if found > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class TabulatedTime:
    """`IterationTime` read from tables (seconds). Rows of `decode_s` are numbers of sequences, columns contexts."""

    sequences: Axis
    contexts: Axis
    decode_s: tuple[tuple[float, ...], ...]
    decode_attention_s: tuple[tuple[float, ...], ...]
    tokens: Axis
    rest_s: tuple[float, ...]
    chunk: Axis
    past: Axis
    chunk_attention_s: tuple[tuple[float, ...], ...]
    overhead_s: float
    _lines: tuple[Lines, Lines, Lines] = field(default_factory=lambda: ({}, {}, {}))
    _rests: dict[int, float] = field(default_factory=dict)

    def decode_line(self, decodes: int, context: int) -> tuple[float, float, int]:
        row = self._lines[0].get(decodes) or _line(self._lines[0], self.decode_s, self.sequences, decodes)
        knots = self.contexts.knots
        mean = context / decodes
        left = min(max(bisect_right(knots, mean) - 1, 0), len(knots) - 2)
        slope = (row[left + 1] - row[left]) / (knots[left + 1] - knots[left])
        first = row[left] + slope * (mean - knots[left]) + self.overhead_s
        valid = int(knots[left + 1] - mean) + 1 if mean < knots[-1] else UNBOUNDED
        return max(first, _TINY_S), max(slope, 0.0), valid

    def iteration_s(self, decodes: int, context: int, chunks: Sequence[Chunk]) -> float:
        if not chunks:
            return self.decode_line(decodes, context)[0] if decodes else self.overhead_s + _TINY_S
        tokens, attention_s = decodes, 0.0
        for new, past in chunks:
            tokens += new
            attention_s += self._chunk_attention(new, past)
        return self._total(decodes, context, tokens, attention_s)

    def chunk_s(self, decodes: int, context: int, tokens: int, past: int) -> float:
        return self._total(decodes, context, decodes + tokens, self._chunk_attention(tokens, past))

    def _chunk_attention(self, new: int, past: int) -> float:
        lines = self._lines[1]
        return self.past.read(lines.get(new) or _line(lines, self.chunk_attention_s, self.chunk, new), past)

    def _total(self, decodes: int, context: int, tokens: int, attention_s: float) -> float:
        """Overhead, attention of the chunks, attention of the decodes, and the rest at all `tokens`."""
        rest_s = self._rests.get(tokens)
        if rest_s is None:
            rest_s = self._rests[tokens] = self.tokens.read(self.rest_s, tokens)
        total = self.overhead_s + attention_s + rest_s
        if decodes:
            lines = self._lines[2]
            line = lines.get(decodes) or _line(lines, self.decode_attention_s, self.sequences, decodes)
            total += self.contexts.read(line, context / decodes)
        return max(total, _TINY_S)


def _line(lines: Lines, table: Sequence[Sequence[float]], rows: Axis, value: int) -> tuple[float, ...]:
    """The row of a table at `value`, between the knots of its rows; kept in `lines`, which stays small."""
    left, share = rows.locate(value)
    if len(lines) >= KEPT:
        lines.clear()
    low, high = table[left], table[left + 1]
    lines[value] = line = tuple(a * (1 - share) + b * share for a, b in zip(low, high, strict=True))
    return line


@dataclass(frozen=True, slots=True)
class EngineTime:
    """The tables with what they cost in accuracy: relative interpolation error at points between the knots."""

    time: TabulatedTime
    error_median: float
    error_max: float
    points: int
    decode_power_w: float
    energy: IterationEnergy


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the tables go: sequences and tokens of an iteration, and tokens of a context."""

    max_batch: int = 256
    max_tokens: int = 16384
    max_context: int = 131072


def from_engine(
    model: Model, platform: Platform, scenario: Scenario, formats: Any, *, prompt_experts: float = 1.0, **reach: int
) -> EngineTime:
    """Build the tables; `reach` are fields of `Reach`, `prompt_experts` is of `Pricer`.

    Raises InputError for limits below 2; the engine's own errors pass through.
    """
    limits = Reach(**reach)
    if min(limits.max_batch, limits.max_tokens, limits.max_context) < 2:
        raise InputError("tables need a batch, tokens and context of at least 2")
    pricer = Pricer(model, platform, scenario, formats, prompt_experts)
    for density in (1, 2):
        time, power, joules = _tables(pricer, limits, density)
        errors = _errors(pricer, time)
        if errors.max() <= WANTED:
            break
    return EngineTime(time, float(np.median(errors)), float(errors.max()), len(errors), power, joules)


def _tables(pricer: Pricer, reach: Reach, density: int) -> tuple[TabulatedTime, float, IterationEnergy]:
    """Tables with knots as close as `density` says, the dynamic watts of decoding, and the joules of one device."""
    batches = _row_knots(reach.max_batch, dense_to=64 * density)
    contexts = _knots(1, reach.max_context, dense_to=0, octave=OCTAVE * density)
    tokens = _row_knots(reach.max_tokens, dense_to=64)
    chunks, pasts = _chunk_knots(reach.max_tokens), np.concatenate([[0], _knots(16, reach.max_context, dense_to=0)])
    attention, rest, energy, overhead = pricer.split_s("decode", batches[:, None], 1, contexts[None, :] - 1)
    shape = (len(batches), len(contexts))
    decode_attention = np.broadcast_to(attention, shape)
    decode = np.broadcast_to(attention + rest, shape)
    _, prefill_rest, prompt_j, _ = pricer.split_s("prefill", 1, tokens, 0)
    chunk_attention, _, _, _ = pricer.split_s("prefill", 1, chunks[:, None], pasts[None, :])
    middle = (len(batches) // 2, len(contexts) // 2)
    power = float(np.broadcast_to(energy, shape)[middle] / max(decode[middle], _TINY_S))
    table = TabulatedTime(
        Axis(_plain(batches)),
        Axis(_plain(contexts)),
        _rows(decode),
        _rows(decode_attention),
        Axis(_plain(tokens)),
        tuple(np.broadcast_to(prefill_rest, tokens.shape).tolist()),
        Axis(_plain(chunks)),
        Axis(_plain(pasts)),
        _rows(np.broadcast_to(chunk_attention, (len(chunks), len(pasts)))),
        overhead,
    )
    joules = IterationEnergy(
        batches, contexts, np.broadcast_to(energy, shape), tokens, np.broadcast_to(prompt_j, tokens.shape)
    )
    return table, power, joules


def _errors(pricer: Pricer, time: TabulatedTime) -> Array:
    """Relative error of decode and prefill passes half-way between knots of both axes."""
    batches = np.unique(np.array([(a + b) // 2 for a, b in _pairs(time.sequences)][::3]))
    contexts = np.array([(a + b) // 2 for a, b in _pairs(time.contexts)])
    attention, rest, _, overhead = pricer.split_s("decode", batches[:, None], 1, contexts[None, :] - 1)
    exact = np.broadcast_to(attention + rest + overhead, (len(batches), len(contexts)))
    read = np.array([[time.decode_line(int(n), int(n * c))[0] for c in contexts] for n in batches])
    tokens = np.array([(a + b) // 2 for a, b in _pairs(time.tokens)])
    attention, rest, _, overhead = pricer.split_s("prefill", 1, tokens, 0)
    exact_prefill = np.broadcast_to(attention + rest + overhead, tokens.shape)
    read_prefill = np.array([time.iteration_s(0, 0, [(int(t), 0)]) for t in tokens])
    return np.concatenate([np.abs(read / exact - 1).ravel(), np.abs(read_prefill / exact_prefill - 1)])


def _pairs(axis: Axis) -> list[tuple[int, int]]:
    knots = [int(k) for k in axis.knots]
    return list(zip(knots, knots[1:], strict=False))


def _knots(low: int, high: int, *, dense_to: int, octave: int = OCTAVE) -> Array:
    """Integer knots: every one up to `dense_to`, then `octave` in each doubling up to `high`."""
    dense = np.arange(low, min(dense_to, high) + 1)
    start = max(low, dense_to, 1)
    octaves = max(1, int(np.ceil(octave * np.log2(max(high / start, 1.0001)))))
    return np.unique(np.concatenate([dense, np.round(np.geomspace(start, high, octaves + 1)).astype(int)]))


def _row_knots(high: int, dense_to: int) -> Array:
    """Knots for rows of GEMMs: all up to `dense_to`, then both sides of the multiples of 64, where tiles step.

    Up to `WAVES` rows also the multiples of 32: there the number of waves changes fast. Beyond `MOST_STEPPED` a step is
    less than a thousandth of the time.
    """
    edges = np.concatenate(
        [np.arange(ROW_TILE // 2, WAVES, ROW_TILE // 2), np.arange(ROW_TILE, min(high, MOST_STEPPED), ROW_TILE)]
    )
    if high > MOST_STEPPED:
        edges = np.concatenate([edges, _knots(MOST_STEPPED, high, dense_to=0) // ROW_TILE * ROW_TILE])
    knots = np.concatenate([np.arange(1, dense_to + 1), edges, edges + 1])
    return np.unique(np.append(knots[knots <= high], high))


def _chunk_knots(high: int) -> Array:
    """Knots for new tokens of prefill attention: both sides of multiples of 64, farther apart above 2,048 tokens."""
    near = _row_knots(min(high, 2048), dense_to=1)
    far = _knots(2048, high, dense_to=0) // (2 * ROW_TILE) * 2 * ROW_TILE if high > 2048 else near
    return np.unique(np.append(np.concatenate([near, _knots(1, 64, dense_to=8), far, far + 1]), high))


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _rows(table: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(table, dtype=float).tolist())
