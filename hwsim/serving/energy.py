"""Energy and power of replicas, worked out after a run: nothing of it costs time inside one.

A decode pass takes what the cost model says for its sequences and mean context, a prompt what a pass with it takes.
Which of them ran when follows from the counters of the occupancy samples (busy seconds, iterations, those that decoded)
and the table of requests: a request decodes once in each decode iteration between its first and last token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]
_LONG: Final = (256, 512)  # prompts between which the energy of a pass grows by that of its tokens alone
_POINT: Final = 1e-6  # width of an interval that is a point, in seconds or iterations


@dataclass(frozen=True, slots=True, eq=False)
class IterationEnergy:
    """Dynamic joules of passes, beside idle and running power, from the tables of the cost model.

    Attributes
    ----------
    sequences, contexts, decode_j: axes and joules of decode passes. prompts, prompt_j: the same of prompts alone.
    room_w: most dynamic watts that the power limit leaves.
    """

    sequences: Array
    contexts: Array
    decode_j: Array
    prompts: Array
    prompt_j: Array
    room_w: float = float("inf")

    def times(self, factor: float, room_w: float) -> IterationEnergy:
        """The same on `factor` devices that share a pass, under another limit."""
        return replace(self, decode_j=self.decode_j * factor, prompt_j=self.prompt_j * factor, room_w=room_w)

    @property
    def pass_j(self) -> float:
        """Joules of a pass with prompts that its tokens do not add: reading the weights."""
        short, long = np.interp(_LONG, self.prompts, self.prompt_j)
        return float(np.clip(2 * short - long, 0.0, short))

    def of_prompts(self, tokens: Array) -> Array:
        """Joules that prompts add to their pass."""
        line = np.interp(tokens, self.prompts, self.prompt_j)
        return np.maximum(line - self.pass_j, 0.0)

    def of_decodes(self, sequences: Array, context: Array) -> Array:
        """Joules of a decode pass; `context` is the mean of a sequence. Bilinear, inside the tables' reach."""
        row, down = _locate(self.sequences, sequences)
        column, right = _locate(self.contexts, context)
        upper = self.decode_j[row, column] * (1 - right) + self.decode_j[row, column + 1] * right
        lower = self.decode_j[row + 1, column] * (1 - right) + self.decode_j[row + 1, column + 1] * right
        return np.asarray(upper * (1 - down) + lower * down)


def _locate(knots: Array, values: Array) -> tuple[Array, Array]:
    """(left knot, fraction of the way to the next) of values, held inside the knots."""
    inside = np.clip(values, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
    return left, (inside - knots[left]) / (knots[left + 1] - knots[left])


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """Watts between edges in seconds: `power_w[i]` from `time_s[i]` to `time_s[i + 1]`."""

    time_s: Array
    power_w: Array

    @property
    def energy_j(self) -> float:
        """Integral of the trace."""
        return float(np.sum(self.power_w * np.diff(self.time_s)))


def power_trace(replica: Any, record: Any, prefilled_by: dict[int, int], start_s: float, end_s: float) -> PowerTrace:
    """Power of a replica that is switched on from `start_s` to `end_s`."""
    spec, counters = replica.spec, _Counters.of(replica, start_s, end_s)
    edges = counters.time_s
    if len(edges) < 2:
        return PowerTrace(edges, np.zeros(0))
    width_s, busy_s = np.diff(edges), np.diff(counters.busy_s)
    energy = spec.energy
    if energy is None:
        return PowerTrace(edges, spec.idle_w + (spec.busy_w - spec.idle_w) * busy_s / width_s)
    dynamic_j = _dynamic_j(energy, counters, _Rows.of(replica, record, prefilled_by))
    dynamic_j = np.minimum(dynamic_j, energy.room_w * busy_s)
    return PowerTrace(edges, spec.idle_w + ((spec.running_w - spec.idle_w) * busy_s + dynamic_j) / width_s)


def _dynamic_j(energy: IterationEnergy, at: _Counters, rows: _Rows) -> Array:
    """Dynamic joules between the edges: decode passes, passes with prompts only, and the tokens of prompts."""
    begin, end = at.reading(at.decoded, rows.first_s), at.reading(at.decoded, rows.end_s)
    tokens = spread(begin, end, rows.decoded, at.decoded)
    context = spread(begin, end, rows.decoded * rows.context, at.decoded)
    passes = np.diff(at.decoded)
    decoding = (passes > 0) & (tokens > 0)
    sequences = np.where(decoding, tokens / np.maximum(passes, _POINT), 1.0)
    mean = np.where(decoding, context / np.maximum(tokens, _POINT), 1.0)
    total = np.where(decoding, passes * energy.of_decodes(sequences, mean), 0.0)
    total += np.diff(at.prefilled) * energy.pass_j
    begin, end = at.reading(at.busy_s, rows.scheduled_s), at.reading(at.busy_s, rows.prefilled_s)
    return np.asarray(total + spread(begin, end, energy.of_prompts(rows.prompt) * rows.computed, at.busy_s))


def spread(begin: Array, end: Array, amount: Array, edges: Array) -> Array:
    """Sum of `amount`, each spread evenly from `begin` to `end`, between successive edges. Sorted sums, no pairs."""
    wide = end - begin > _POINT
    low, high, slope = begin[wide], end[wide], amount[wide] / (end - begin)[wide]
    total = np.maximum(np.diff(_ramps(low, slope, edges) - _ramps(high, slope, edges)), 0.0)
    point = begin[~wide]
    inside = (point >= edges[0]) & (point <= edges[-1])
    bins = np.maximum(np.searchsorted(edges, point[inside], side="left") - 1, 0)
    return np.asarray(total + np.bincount(bins, amount[~wide][inside], len(edges) - 1))


def _ramps(corner: Array, slope: Array, edges: Array) -> Array:
    """Sum over ramps that rise by `slope` from `corner` on, at the edges."""
    order = np.argsort(corner, kind="stable")
    sorted_corner = corner[order]
    below = np.searchsorted(sorted_corner, edges, side="left")
    slopes = np.concatenate([[0.0], np.cumsum(slope[order])])
    moments = np.concatenate([[0.0], np.cumsum(slope[order] * sorted_corner)])
    return np.asarray(slopes[below] * edges - moments[below])


@dataclass(frozen=True, slots=True)
class _Counters:
    """Counters of a replica at the edges of its trace: busy seconds, iterations with decodes, those without."""

    time_s: Array
    busy_s: Array
    decoded: Array
    prefilled: Array

    @classmethod
    def of(cls, replica: Any, start_s: float, end_s: float) -> _Counters:
        samples = replica.samples
        inside = [i for i, time_s in enumerate(samples.time_s) if start_s < time_s < end_s]
        edges = np.array([start_s, *(samples.time_s[i] for i in inside), end_s])

        def column(values: Any, last: float) -> Array:
            return np.maximum.accumulate(np.array([0.0, *(min(values[i], last) for i in inside), float(last)]))

        decoded = getattr(replica, "passed", replica.iterations)
        seen = samples.passed if hasattr(replica, "passed") else samples.iterations
        alone = [max(0, i - d) for i, d in zip(samples.iterations, seen, strict=True)]
        keep = np.concatenate([[True], np.diff(edges) > 0]) if end_s > start_s else np.array([True, False])
        edges, busy_s = edges[keep], column(samples.busy_s, replica.busy_s)[keep]
        return cls(
            edges,
            edges + np.minimum.accumulate(busy_s - edges),  # pipelines note a pass when it starts: as it runs instead
            column(seen, decoded)[keep],
            column(alone, max(0, replica.iterations - decoded))[keep],
        )

    def reading(self, counter: Array, time_s: Array) -> Array:
        """What a counter read at some times."""
        return np.asarray(np.interp(time_s, self.time_s, counter))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Requests that worked on a replica. `computed` is the share of prompt tokens that no prefix cache held."""

    scheduled_s: Array
    prefilled_s: Array
    prompt: Array
    first_s: Array
    end_s: Array
    decoded: Array
    context: Array
    computed: float

    @classmethod
    def of(cls, replica: Any, record: Any, prefilled_by: dict[int, int]) -> _Rows:
        first, end = record.column("first_s"), record.column("end_s")
        where = record.column("replica")
        origin = where.copy()
        if prefilled_by:
            origin[list(prefilled_by)] = list(prefilled_by.values())
        prefills = (origin == replica.index) & np.isfinite(first)
        decodes = (where == replica.index) & np.isfinite(end) & (record.column("output") > 1)
        prompt, output = record.column("prompt"), record.column("output")
        cache = replica.prefix
        hit = cache.hit_tokens / cache.asked_tokens if cache is not None and cache.asked_tokens else 0.0
        return cls(
            record.column("scheduled_s")[prefills],
            first[prefills],
            prompt[prefills],
            first[decodes],
            end[decodes],
            output[decodes] - 1,
            prompt[decodes] + output[decodes] / 2,
            1.0 - hit,
        )
