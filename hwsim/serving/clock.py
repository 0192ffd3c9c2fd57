"""SimPy environment that schedules callbacks at absolute times.

Simulated time is in seconds. Events of one instant run by priority, then in the order they were scheduled, so
ties have one defined order: arrivals before iteration boundaries, control decisions after both.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import simpy

ARRIVAL: Final = 0
BOUNDARY: Final = 1
CONTROL: Final = 2

Callback = Callable[[Any], None]


class Tick:
    """The least that SimPy asks of a triggered event: an eighth of the cost of a `simpy.Timeout`."""

    __slots__ = ("_ok", "_value", "callbacks")

    def __init__(self, callbacks: list[Callback], value: Any) -> None:
        self.callbacks, self._value, self._ok = callbacks, value, True

    @property
    def value(self) -> Any:
        return self._value


class Clock(simpy.Environment):
    """A plain SimPy environment plus `at`: no drift from adding delays, no process overhead."""

    def at(self, time_s: float, callback: Callback, value: Any = None, priority: int = BOUNDARY) -> None:
        """Call `callback(event)` at `time_s` (seconds, not before now) with `event.value == value`."""
        queue: list[Any] = self._queue
        heappush(queue, (time_s, priority, next(self._eid), Tick([callback], value)))

    def run(self, until: Any = None) -> Any:
        """SimPy's loop without its dispatch for an event whose only content is a callback; same order of events."""
        queue: list[Any] = self._queue
        while until is None and queue:
            if type(queue[0][3]) is Tick:
                self._now, _, _, tick = heappop(queue)
                tick.callbacks[0](tick)
            else:
                self.step()
        return super().run(until) if until is not None else None
