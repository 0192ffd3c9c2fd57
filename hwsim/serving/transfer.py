"""A link that several transfers share: each gets an equal part of the bandwidth (processor sharing)."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.clock import Clock


class SharedLink:
    """`n` concurrent transfers run at bandwidth / n each; `latency_s` passes before the first byte arrives.

    Virtual time V grows by bandwidth/n a second; a transfer of b bytes that starts at V ends at V + b, so a change of
    n touches no transfer (the classical processor-sharing argument).
    """

    def __init__(self, clock: Clock, bandwidth_bytes_per_s: float, latency_s: float = 0.0) -> None:
        if not bandwidth_bytes_per_s > 0 or latency_s < 0:
            raise InputError("a link needs a bandwidth above 0 and a latency of at least 0")
        self.clock, self.bandwidth, self.latency_s = clock, bandwidth_bytes_per_s, latency_s
        self.moved_bytes = 0.0
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._virtual = self._since_s = 0.0
        self._number = self._version = 0

    @property
    def active(self) -> int:
        return len(self._heap)

    def send(self, size_bytes: float, done: Callable[[float], None]) -> None:
        """Start a transfer; `done(now_s)` is called when its last byte has arrived."""
        if size_bytes <= 0:
            self.clock.at(self.clock.now + self.latency_s, lambda event: done(self.clock.now))
            return
        self._advance()
        self._number += 1
        self.moved_bytes += size_bytes
        heappush(self._heap, (self._virtual + size_bytes, self._number, done))
        self._plan()

    def _advance(self) -> None:
        now_s = self.clock.now
        if self._heap:
            self._virtual += (now_s - self._since_s) * self.bandwidth / len(self._heap)
        self._since_s = now_s

    def _plan(self) -> None:
        self._version += 1
        if self._heap:
            left = max(0.0, self._heap[0][0] - self._virtual)
            self.clock.at(self.clock.now + left * len(self._heap) / self.bandwidth, self._arrive, self._version)

    def _arrive(self, event: Any) -> None:
        if event.value != self._version:
            return
        self._advance()
        target, _, done = heappop(self._heap)
        self._virtual = max(self._virtual, target)
        self._plan()
        self.clock.at(self.clock.now + self.latency_s, lambda _: done(self.clock.now))
