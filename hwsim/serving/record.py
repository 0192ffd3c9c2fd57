"""What a run leaves behind: one row a request in typed columns, weighted inter-token gaps, sampled occupancy."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from hwsim.serving.request import Request

WAITING: Final = 0
FINISHED: Final = 1
REJECTED: Final = 2
FRESH: Final = 1 << 12  # numbers of a column kept in a list


class Record:
    """Columns of the per-request table (length = requests seen); times in seconds, NaN where it never happened."""

    def __init__(self, capacity: int = 0) -> None:
        nan = array("d", [float("nan")])
        self.arrival_s, self.scheduled_s = nan * capacity, nan * capacity
        self.first_s, self.end_s = nan * capacity, nan * capacity
        self.prompt, self.output = array("l", [0]) * capacity, array("l", [0]) * capacity
        self.restarts, self.replica = array("i", [0]) * capacity, array("i", [0]) * capacity
        self.state = array("b", [WAITING]) * capacity
        self.seen = capacity
        self.gaps = GapStore()

    def add(self, arrival_s: float, prompt: int, output: int) -> int:
        """Append a request that the workload made up during the run; its row."""
        for column in (self.scheduled_s, self.first_s, self.end_s):
            column.append(float("nan"))
        self.arrival_s.append(arrival_s)
        self.prompt.append(prompt)
        self.output.append(output)
        self.restarts.append(0)
        self.replica.append(-1)
        self.state.append(WAITING)
        self.seen += 1
        return self.seen - 1

    def close(self) -> None:
        """Mark rows with an end as finished."""
        ended = np.isfinite(np.asarray(self.end_s))
        np.asarray(self.state)[ended] = FINISHED

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A column as a numpy array (a view)."""
        return np.asarray(getattr(self, name))


class GapStore:
    """Inter-token gaps of all requests as weighted samples: runs of iterations, and single gaps.

    `runs` holds (first, step, count, sequences) a run, `singles` (gap, sequences): lists, which take a row six times
    as fast as an array; `pack` moves them into arrays.
    """

    __slots__ = ("_runs", "_singles", "runs", "singles")

    def __init__(self) -> None:
        self._runs, self._singles = array("d"), array("d")
        self.runs: list[float] = []
        self.singles: list[float] = []

    def add(self, first_s: float, step_s: float, count: int, sequences: int) -> None:
        """A run of `count` iterations of `sequences` sequences; one may be a single gap."""
        if count == 1:
            self.singles.extend((first_s, sequences))
        else:
            self.runs.extend((first_s, step_s, count, sequences))
        if len(self.singles) > FRESH or len(self.runs) > FRESH:
            self.pack()

    def pack(self) -> None:
        """Move fresh rows to where they take 8 bytes a number."""
        self._runs.fromlist(self.runs)
        self._singles.fromlist(self.singles)
        self.runs.clear()
        self.singles.clear()

    def weighted(self, parts: int = 8) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """(gap_s, weight): each run as up to `parts` equal groups at their mean gap; weights sum to the gap count."""
        self.pack()
        first, step, count, sequences = np.asarray(self._runs).reshape(-1, 4).T
        groups = np.arange(parts)[:, None]
        used = np.minimum(count, parts)
        inside = groups < used
        middle = (groups + 0.5) * count / np.maximum(used, 1) - 0.5
        gaps = (first + step * middle)[inside]
        weights = np.where(inside, sequences * count / np.maximum(used, 1), 0.0)[inside]
        single, sequences = np.asarray(self._singles).reshape(-1, 2).T
        return np.concatenate([gaps, single]), np.concatenate([weights, sequences])


class TokenGaps:
    """Who emitted a token when, on one replica: older decodes together, those prefilled since then in groups."""

    __slots__ = ("_singles", "_store", "newer", "older_s", "run", "single")

    def __init__(self, store: GapStore) -> None:
        self._store, self._singles = store, store.singles
        self.run, self.single = store.runs.extend, store.singles.extend
        self.older_s = 0.0
        self.newer: list[tuple[float, int]] = []

    def decoded(self, decodes: int, first_s: float, step_s: float, count: int, begin_s: float, now_s: float) -> None:
        """All `decodes` sequences emitted `count` tokens in a run from `begin_s` to `now_s`."""
        newer = self.newer
        if newer or begin_s != self.older_s:
            older = decodes
            for emitted_s, sequences in newer:
                older -= sequences
                self.single((begin_s - emitted_s + first_s, sequences))
            if older > 0:
                self.single((begin_s - self.older_s + first_s, older))
            if count > 1:
                self.run((first_s + step_s, step_s, count - 1, decodes))
            self.newer = []
        elif count > 1:
            self.run((first_s, step_s, count, decodes))
        else:
            self.single((first_s, decodes))
        self.older_s = now_s

    def first(self, request: Request, now_s: float) -> None:
        """A prefill ended with a token."""
        if len(self._singles) > FRESH:
            self._store.pack()
        request.emitted_s = now_s
        newer = self.newer
        if newer and newer[-1][0] == now_s:
            newer[-1] = (now_s, newer[-1][1] + 1)
        else:
            newer.append((now_s, 1))

    def resumed(self, request: Request, now_s: float) -> None:
        """A request that lost its cache emits again."""
        if request.emitted_s >= 0:
            self.single((now_s - request.emitted_s, 1))

    def joined(self, request: Request) -> None:
        """A request starts to decode here after it emitted elsewhere."""
        self.newer.append((request.emitted_s, 1))

    def forget(self, emitted_s: float) -> None:
        """One of those that emitted at `emitted_s` is gone without decoding here."""
        newer = self.newer
        for position in range(len(newer) - 1, -1, -1):
            if newer[position][0] == emitted_s:
                sequences = newer[position][1] - 1
                newer[position : position + 1] = [(emitted_s, sequences)] if sequences else []
                return

    def left(self, request: Request, fresh: bool) -> None:
        """A decoding request leaves; `fresh` if it has not decoded since its prefill."""
        if fresh:
            self.forget(request.emitted_s)
        else:
            request.emitted_s = self.older_s


class Occupancy:
    """Queue, running requests and KV use over time, thinned to at most `limit` points by doubling the stride."""

    __slots__ = (
        "busy_s", "due_s", "iterations", "kv", "limit", "passed", "queued", "running", "stride_s", "time_s",
    )  # fmt: skip

    def __init__(self, stride_s: float = 0.1, limit: int = 2048) -> None:
        self.stride_s, self.limit, self.due_s = stride_s, limit, 0.0
        self.time_s, self.kv, self.busy_s = array("d"), array("d"), array("d")
        self.queued, self.running = array("l"), array("l")
        self.iterations, self.passed = array("l"), array("l")

    def expect(self, span_s: float) -> None:
        """Start with the stride that thinning would come to in `span_s` seconds."""
        while self.stride_s * self.limit < span_s:
            self.stride_s *= 2

    def take(self, now_s: float, replica: Any) -> None:
        """Note the state of a replica now."""
        queued = len(replica.waiting)
        self.time_s.append(now_s)
        self.queued.append(queued)
        self.running.append(replica.in_system - queued)
        self.kv.append(replica.kv_used / replica.kv.total)
        self.busy_s.append(replica.busy_s)
        self.iterations.append(replica.iterations)
        self.passed.append(getattr(replica, "passed", 0))
        self.due_s = now_s + self.stride_s
        if len(self.time_s) >= self.limit:
            self._thin()

    def _thin(self) -> None:
        for name in ("time_s", "queued", "running", "kv", "busy_s", "iterations", "passed"):
            setattr(self, name, getattr(self, name)[::2])
        self.stride_s *= 2
