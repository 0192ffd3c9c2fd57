"""Timing of one kernel: warm-up, rotation over cold buffers, medians and spread of repeated batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

WARM_UP_CALLS = 3
BATCHES = 7
TARGET_BATCH_S = 0.02  # long against the clock's resolution and the loop's own cost
MAX_CALLS = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds a call: median over batches, and half the distance between the quartiles as a share of it."""

    median_s: float
    spread: float
    calls: int


def sample(call: Callable[[int], object], *, target_s: float = TARGET_BATCH_S, batches: int = BATCHES) -> Sample:
    """Time `call(i)`, where i counts up so that the callee can rotate its buffers."""
    started = time.perf_counter()
    for i in range(WARM_UP_CALLS):
        call(i)
    once = (time.perf_counter() - started) / WARM_UP_CALLS
    count = max(1, min(MAX_CALLS, round(target_s / max(once, 1e-9))))
    times, done = [], WARM_UP_CALLS
    for _ in range(batches):
        started = time.perf_counter()
        for i in range(done, done + count):
            call(i)
        times.append((time.perf_counter() - started) / count)
        done += count
    return summarize(times, count)


def summarize(times: list[float], calls: int) -> Sample:
    """Median and relative quartile half-width of seconds a call."""
    median = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [median, median, median]
    return Sample(median, (quartiles[2] - quartiles[0]) / (2.0 * median) if median > 0 else 0.0, calls)


def copies(buffer_bytes: float, cache_bytes: float, budget_bytes: float) -> int:
    """How many copies of a buffer to rotate over so that each is cold when its turn comes (twice the cache)."""
    wanted = int(2.0 * cache_bytes / max(buffer_bytes, 1.0)) + 1
    return max(1, min(wanted, int(budget_bytes / max(buffer_bytes, 1.0))))
