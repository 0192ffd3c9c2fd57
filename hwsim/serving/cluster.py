"""Replicas behind a router, fed by a source of requests, on one SimPy clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hwsim import laws
from hwsim.errors import LawViolation
from hwsim.serving.clock import ARRIVAL, Clock
from hwsim.serving.record import FINISHED, REJECTED, Record
from hwsim.serving.request import Request
from hwsim.serving.routers import Router


class Source(Protocol):
    """Where requests come from: a trace, a process, users that answer."""

    def start(self, cluster: Cluster) -> None:
        """Schedule the first arrivals."""

    def finished(self, request: Request, now_s: float) -> None:
        """A request is done: a closed loop may send the next one."""


class Cluster:
    """Owner of the clock, the replicas and the record; observer of every replica.

    Attributes
    ----------
    replicas: those that take new requests.
    in_system: requests that arrived and are neither finished nor rejected; `area` is its integral over time.
    """

    def __init__(self, clock: Clock, router: Router, record: Record) -> None:
        self.clock, self.router, self.record = clock, router, record
        self.replicas: list[Any] = []
        self.everyone: list[Any] = []
        self.source: Source | None = None
        self.listens = False
        self.in_system = self.arrived = self.finished = self.rejected = 0
        self.area = self.last_s = 0.0
        self.admission: Callable[[Request, Sequence[Any], float], bool] | None = None
        self.after_prefill: Callable[[Request, Any, float], bool] | None = None
        self.limbo: list[Request] = []

    def run(self, source: Source) -> None:
        """Run until every request is finished or rejected. Raises LawViolation if requests got lost."""
        self.source = source
        self.listens = bool(getattr(source, "listens", False))
        source.start(self)
        self.clock.run()
        self.verify()

    def verify(self) -> None:
        """LAW-6 and LAW-7 over the whole run."""
        if self.in_system or self.arrived != self.finished + self.rejected:
            raise LawViolation(
                "LAW-7: requests got lost",
                seen=f"{self.arrived} arrived, {self.finished} finished, {self.rejected} rejected, {self.in_system} left",
            )
        for replica in self.everyone:
            replica.check_empty()
        arrival, end = self.record.column("arrival_s"), self.record.column("end_s")
        done = self.record.column("state") == FINISHED
        laws.equal("LAW-6", "area under N(t) against the sum of sojourns", self.area, float((end - arrival)[done].sum()))

    # ---- arrivals ----

    def arrive(self, request: Request) -> None:
        """A request arrives now: reject it or route it."""
        now_s = self.clock.now
        self.arrived += 1
        if self.admission is not None and not self.admission(request, self.replicas, now_s):
            self._reject(request)
            return
        self.area += self.in_system * (now_s - self.last_s)
        self.last_s = now_s
        self.in_system += 1
        self.dispatch(request, now_s)

    def dispatch(self, request: Request, now_s: float) -> None:
        """Send a request to a replica, or keep it until one lives."""
        candidates = self.replicas
        if not candidates:
            self.limbo.append(request)
            return
        replica = candidates[0] if len(candidates) == 1 else self.router.pick(request, candidates)
        self.record.replica[request.index] = replica.index
        replica.accept(request, now_s)

    def _reject(self, request: Request) -> None:
        self.rejected += 1
        self.record.state[request.index] = REJECTED
        if self.listens and self.source is not None:
            self.source.finished(request, self.clock.now)

    # ---- what replicas report ----

    def on_scheduled(self, request: Request, now_s: float) -> None:
        self.record.scheduled_s[request.index] = now_s

    def on_first_token(self, request: Request, now_s: float) -> None:
        if self.record.first_s[request.index] != self.record.first_s[request.index]:
            self.record.first_s[request.index] = now_s

    def on_prefilled(self, request: Request, replica: Any, now_s: float) -> bool:
        return self.after_prefill is not None and self.after_prefill(request, replica, now_s)

    def on_finish(self, request: Request, replica: Any, now_s: float) -> None:
        index, record = request.index, self.record
        record.end_s[index] = now_s
        record.state[index] = FINISHED
        if request.restarts:
            record.restarts[index] = request.restarts
        self.finished += 1
        self.area += self.in_system * (now_s - self.last_s)
        self.last_s = now_s
        self.in_system -= 1
        if self.listens and self.source is not None:
            self.source.finished(request, now_s)


class TraceSource:
    """Replays sorted columns of arrival time, prompt and output tokens; one event a distinct arrival time."""

    listens = False

    def __init__(
        self,
        arrival_s: Sequence[float],
        prompt: Sequence[int],
        output: Sequence[int],
        prefixes: Sequence[tuple[int, ...]] | None = None,
        priorities: Sequence[int] | None = None,
    ) -> None:
        self.arrival_s, self.prompt, self.output = arrival_s, prompt, output
        self.prefixes, self.priorities = prefixes, priorities
        self._next = 0

    def start(self, cluster: Cluster) -> None:
        self._cluster = cluster
        if len(self.arrival_s):
            cluster.clock.at(self.arrival_s[0], self._pump, None, ARRIVAL)

    def _pump(self, event: Any) -> None:
        cluster, times, index = self._cluster, self.arrival_s, self._next
        now_s, size = times[index], len(times)
        while index < size and times[index] == now_s:
            request = Request(index, now_s, self.prompt[index], self.output[index])
            if self.prefixes is not None:
                request.prefix = self.prefixes[index]
            if self.priorities is not None:
                request.priority = self.priorities[index]
            cluster.arrive(request)
            index += 1
        self._next = index
        if index < size:
            cluster.clock.at(times[index], self._pump, None, ARRIVAL)

    def finished(self, request: Request, now_s: float) -> None:
        return None
