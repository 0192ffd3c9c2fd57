"""Admission order of waiting requests: first come first served, shortest job first, or by priority."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from hwsim.errors import unknown_name
from hwsim.serving.request import Request

Key = Callable[[Request], tuple[float, ...]]


class Inbox:
    """Arrivals known ahead; this one holds none. `next_s` is the time of the next, in seconds."""

    next_s = math.inf

    def pull(self, now_s: float) -> None:
        """Put all requests that have arrived by `now_s` into the replica's queue."""


class OrderedQueue:
    """The part of `deque` that policies use, sorted by a key; preempted requests go first again."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._items: list[tuple[tuple[float, ...], Request]] = []

    def append(self, request: Request) -> None:
        insort(self._items, ((1.0, *self._key(request), request.index), request), key=_first)

    def appendleft(self, request: Request) -> None:
        self._items.insert(0, ((0.0,), request))

    def popleft(self) -> Request:
        return self._items.pop(0)[1]

    def remove(self, request: Request) -> None:
        self._items = [item for item in self._items if item[1] is not request]

    def clear(self) -> None:
        self._items.clear()

    def __getitem__(self, position: int) -> Request:
        return self._items[position][1]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._items)


def _first(item: tuple[tuple[float, ...], Request]) -> tuple[float, ...]:
    return item[0]


def _shortest(request: Request) -> tuple[float, ...]:
    return (float(request.prefill + request.output),)


def _priority(request: Request) -> tuple[float, ...]:
    return (-float(request.priority), request.arrival_s)


ORDERS: Final[dict[str, Key | None]] = {"fcfs": None, "sjf": _shortest, "priority": _priority}


def make_queue(order: str) -> Any:
    """An empty queue. Raises UnknownNameError."""
    if order not in ORDERS:
        raise unknown_name("queue order", order, ORDERS)
    key = ORDERS[order]
    return deque() if key is None else OrderedQueue(key)
