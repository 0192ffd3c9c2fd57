"""Time of one engine iteration: what the serving simulator asks of the cost model.

An iteration runs `decodes` sequences that together hold `context` tokens in the KV cache, and prefill chunks
``(tokens, past)``: `tokens` new ones after `past` that are already cached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final, Protocol

from hwsim.errors import InputError

UNBOUNDED: Final = 1 << 60
Chunk = tuple[int, int]


class IterationTime(Protocol):
    """Seconds of an iteration; implementations are pure functions of their arguments."""

    def iteration_s(self, decodes: int, context: int, chunks: Sequence[Chunk]) -> float:
        """Seconds of one mixed iteration; `context` sums over the decoding sequences."""

    def chunk_s(self, decodes: int, context: int, tokens: int, past: int) -> float:
        """The same with one chunk: ``iteration_s(decodes, context, [(tokens, past)])``, most frequent by far."""

    def decode_line(self, decodes: int, context: int) -> tuple[float, float, int]:
        """(first, step, valid): a decode-only iteration takes `first` s, each next one `step` s more as every
        sequence grows by a token; the line holds for `valid` iterations."""


@dataclass(frozen=True, slots=True)
class ClosedFormTime:
    """t = base + max(floor, per_token x tokens) + per_context x sum(context) + pair x sum(chunk (past + chunk/2)).

    Weights are read once an iteration (`floor_s`) or the tokens are compute-bound (`token_s` each); decode attention
    reads the cached context, prefill attention works on query-key pairs. All parameters in seconds.
    """

    base_s: float
    floor_s: float
    token_s: float
    context_s: float
    pair_s: float

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"iteration time: {name} must be a finite number >= 0", seen=repr(value))

    def iteration_s(self, decodes: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens, pairs = decodes, 0.0
        for new, past in chunks:
            tokens += new
            pairs += new * (past + new / 2)
        work_s, floor_s = self.token_s * tokens, self.floor_s
        if work_s < floor_s:
            work_s = floor_s
        return self.base_s + work_s + self.context_s * context + self.pair_s * pairs

    def chunk_s(self, decodes: int, context: int, tokens: int, past: int) -> float:
        work_s, floor_s = self.token_s * (decodes + tokens), self.floor_s
        if work_s < floor_s:
            work_s = floor_s
        return self.base_s + work_s + self.context_s * context + self.pair_s * (tokens * (past + tokens / 2))

    def decode_line(self, decodes: int, context: int) -> tuple[float, float, int]:
        work_s, floor_s, context_s = self.token_s * decodes, self.floor_s, self.context_s
        if work_s < floor_s:
            work_s = floor_s
        return self.base_s + work_s + context_s * context, context_s * decodes, UNBOUNDED


@dataclass(frozen=True, slots=True)
class ScaledTime:
    """Another iteration time, stretched and with host overhead (CPU, framework) added to each iteration.

    `share` is the fraction of the device that runs the iteration (SM partition): time divides by it.
    """

    inner: IterationTime
    overhead_s: float = 0.0
    overhead_per_sequence_s: float = 0.0
    share: float = 1.0

    def iteration_s(self, decodes: int, context: int, chunks: Sequence[Chunk]) -> float:
        extra = self.overhead_s + self.overhead_per_sequence_s * (decodes + len(chunks))
        return self.inner.iteration_s(decodes, context, chunks) / self.share + extra

    def chunk_s(self, decodes: int, context: int, tokens: int, past: int) -> float:
        extra = self.overhead_s + self.overhead_per_sequence_s * (decodes + 1)
        return self.inner.chunk_s(decodes, context, tokens, past) / self.share + extra

    def decode_line(self, decodes: int, context: int) -> tuple[float, float, int]:
        first, step, valid = self.inner.decode_line(decodes, context)
        extra = self.overhead_s + self.overhead_per_sequence_s * decodes
        return first / self.share + extra, step / self.share, valid


def elapsed_s(first_s: float, step_s: float, iterations: int) -> float:
    """Seconds of `iterations` iterations whose times form an arithmetic series."""
    return iterations * first_s + step_s * (iterations * (iterations - 1) // 2)


def iterations_until(first_s: float, step_s: float, time_s: float) -> int:
    """Smallest count i >= 1 with ``elapsed_s(first, step, i) >= time_s``: the boundary at which an arrival is seen.

    Solves step/2 i^2 + (first - step/2) i = time and repairs the rounding by at most a few unit steps.
    """
    linear = first_s - step_s / 2
    if step_s > 1e-12 * first_s:
        root = (sqrt(linear * linear + 2 * step_s * time_s) - linear) / step_s
    else:
        root = time_s / first_s
    count = ceil(root - 1e-9)
    if count < 1:
        count = 1
    while count * first_s + step_s * (count * (count - 1) // 2) < time_s:
        count += 1
    while count > 1:
        before = count - 1
        if before * first_s + step_s * (before * (before - 1) // 2) < time_s:
            break
        count = before
    return count
