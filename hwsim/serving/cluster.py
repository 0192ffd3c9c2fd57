"""Replicas behind a router, fed by a source of requests, on one SimPy clock."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hwsim import laws
from hwsim.errors import InfeasibleError, LawViolation
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
    in_system: requests that arrived and are neither finished nor rejected.
    area: integral over time of the number of requests between replicas (s); replicas integrate their own.
    """

    def __init__(self, clock: Clock, router: Router, record: Record) -> None:
        self.clock, self.router, self.record = clock, router, record
        self.replicas: list[Any] = []
        self.everyone: list[Any] = []
        self.source: Any = None
        self.reference: Any = None  # iteration time of the machine that slowdowns are told against
        self.listens = self.dynamic = False
        self.central = bool(getattr(router, "central", False))
        self.selective = bool(getattr(router, "selective", False))
        self.in_system = self.arrived = self.finished = self.rejected = 0
        self.area = self.between_s = 0.0
        self.between = 0
        self.admission: Callable[[Request, Sequence[Any], float], bool] | None = None
        self.after_prefill: Callable[[Request, Any, float], bool] | None = None
        self.limbo: list[Request] = []
        self.failed_s: dict[int, float] = {}  # replica -> time of its last failure
        self.down: set[int] = set()
        self.prefilled_by: dict[int, int] = {}  # request -> replica that gave its cache to a decode replica
        self.warnings: list[str] = []

    def add(self, replica: Any) -> None:
        """A replica joins and takes requests from now on."""
        self.replicas.append(replica)
        self.everyone.append(replica)

    def run(self, source: Source) -> None:
        """Run until every request is finished or rejected. Raises LawViolation if requests got lost."""
        self.source = source
        self.listens = bool(getattr(source, "listens", False))
        enabled = gc.isenabled()
        gc.disable()  # nothing here makes reference cycles; collections would cost a fifth of the run
        try:
            source.start(self)
            self.clock.run()
        finally:
            if enabled:
                gc.enable()
        if self.limbo:
            raise InfeasibleError(
                f"{len(self.limbo)} requests wait for a replica and none is coming back",
                fix="give an outage an end, or more replicas",
            )
        self.verify()

    def verify(self) -> None:
        """LAW-6 and LAW-7 over the whole run."""
        self.record.close()
        self.finished = int((self.record.column("state") == FINISHED).sum())
        if self.in_system or self.arrived != self.finished + self.rejected:
            raise LawViolation(
                "LAW-7: requests got lost",
                seen=f"{self.arrived} arrived, {self.finished} done, {self.rejected} rejected, {self.in_system} left",
            )
        for replica in self.everyone:
            replica.check_empty()
        arrival, end = self.record.column("arrival_s"), self.record.column("end_s")
        done = self.record.column("state") == FINISHED
        area = self.area + math.fsum(replica.area for replica in self.everyone)
        laws.equal("LAW-6", "area under N(t) against the sum of sojourns", area, math.fsum((end - arrival)[done]))

    def dealt(self) -> bool:
        """Whether a trace can be dealt to the replicas before the run: nothing depends on their state."""
        fixed = len(self.replicas) == 1 or getattr(self.router, "static", False)
        return (
            fixed
            and not self.dynamic
            and not self.central
            and self.admission is None
            and all(hasattr(r, "inbox") for r in self.replicas)
        )

    def only_arrivals(self) -> bool:
        """Whether nothing but arrivals couples the replicas: no control, no transfers, no events of anyone else."""
        alone = not self.dynamic and not self.central and self.admission is None and self.after_prefill is None
        return (
            alone and not self.listens and not self.clock._queue and all(hasattr(r, "catch_up") for r in self.replicas)
        )

    # ---- arrivals ----

    def arrive(self, request: Request) -> None:
        """A request arrives now: reject it or route it."""
        now_s = self.clock.now
        self.arrived += 1
        if self.admission is not None and not self.admission(request, self.replicas, now_s):
            self._reject(request)
            return
        self.in_system += 1
        self.dispatch(request, now_s)

    def dispatch(self, request: Request, now_s: float) -> None:
        """Send a request to a replica, or keep it until one lives."""
        candidates = self.replicas
        if not candidates:
            self.limbo.append(request)
            self.leave_replica(now_s)
            return
        alone = len(candidates) == 1 and not (self.central or self.selective)
        replica = candidates[0] if alone else self.router.pick(request, candidates)
        if replica is None:
            self.limbo.append(request)
            self.leave_replica(now_s)
            return
        self.record.replica[request.index] = replica.index
        replica.accept(request, now_s)

    def expects_more(self) -> bool:
        """Whether the source has arrivals to come."""
        return bool(getattr(self.source, "pending", 0))

    def take_down(self, replica: Any) -> None:
        """A replica fails: its requests lose their cache and are routed again."""
        now_s = self.clock.now
        if replica not in self.replicas:
            return
        self.replicas = [r for r in self.replicas if r is not replica]
        self.failed_s[replica.index] = now_s
        self.down.add(replica.index)
        for request in sorted(replica.stop(now_s), key=lambda lost: (lost.arrival_s, lost.index)):
            self.dispatch(request, now_s)

    def retire(self, replica: Any) -> None:
        """A replica takes no more requests and drains; it is paid until it is empty."""
        self.replicas = [r for r in self.replicas if r is not replica]
        replica.retired_s = self.clock.now

    def bring_up(self, replica: Any) -> None:
        """A replica (new or repaired) takes requests from now on, first those that waited for one."""
        self.down.discard(replica.index)
        if replica not in self.replicas:
            self.replicas = [*self.replicas, replica]
        self._leave_limbo()

    def _leave_limbo(self) -> None:
        """Route those that wait between replicas."""
        waiting, self.limbo = self.limbo, []
        for request in waiting:
            target = self.router.pick(request, self.replicas) if self.replicas else None
            if target is None:
                self.limbo.append(request)
            else:
                self.enter_replica(request, target, self.clock.now)

    def deliver(self, request: Request, source: Any, target: Any, sent_s: float) -> None:
        """A KV cache that left `source` at `sent_s` reaches `target`; where one of them failed since, it is lost and
        the request starts anew where the router says."""
        failed = any(self.failed_s.get(replica.index, -1.0) >= sent_s for replica in (source, target))
        if not failed and target.index not in self.down:
            request.kv_ready = True
            self.enter_replica(request, target, self.clock.now)
            return
        request.restart(request.prefill + 1, keep_partial=False)
        self.limbo.append(request)
        self._leave_limbo()

    def leave_replica(self, now_s: float) -> None:
        """A request is now between replicas (its cache travels, or it waits for a replica)."""
        self.area += self.between * (now_s - self.between_s)
        self.between_s = now_s
        self.between += 1

    def enter_replica(self, request: Request, replica: Any, now_s: float) -> None:
        """A request that was between replicas reaches one."""
        self.area += self.between * (now_s - self.between_s)
        self.between_s = now_s
        self.between -= 1
        self.record.replica[request.index] = replica.index
        replica.accept(request, now_s)

    def _reject(self, request: Request) -> None:
        self.rejected += 1
        self.record.state[request.index] = REJECTED
        if self.listens and self.source is not None:
            self.source.finished(request, self.clock.now)

    # ---- what replicas report ----

    def on_finish(self, request: Request, replica: Any, now_s: float) -> None:
        index, record = request.index, self.record
        record.end_s[index] = now_s
        if request.restarts:
            record.restarts[index] = request.restarts
        self.in_system -= 1
        if self.central and self.limbo and replica in self.replicas:
            self.enter_replica(self.limbo.pop(0), replica, now_s)
        if self.listens and self.source is not None:
            self.source.finished(request, now_s)


_NO_MORE: Final = (0, math.inf, 0, 0)


class TraceSource:
    """Replays sorted columns of arrival time (s), prompt and output tokens.

    Where the router ignores the state of the replicas, each replica gets its share of the trace as an inbox;
    otherwise there is one event for each distinct arrival time.
    """

    listens = False

    def __init__(
        self,
        arrival_s: Sequence[float],
        prompt: Sequence[int],
        output: Sequence[int],
        prefixes: Sequence[tuple[int, ...]] | None = None,
        priorities: Sequence[int] | None = None,
        models: Sequence[str] | None = None,
    ) -> None:
        self.arrival_s, self.prompt, self.output = list(arrival_s), list(prompt), list(output)
        self.prefixes, self.priorities, self.models = prefixes, priorities, models
        self.extra = prefixes is not None or priorities is not None or models is not None
        self._next = 0
        self.progress: Callable[[str], None] | None = None

    def arrived(self, before: int, position: int, size: int) -> None:
        """Tell the progress callback about each 1,024th arrival."""
        if self.progress is not None and before >> 10 != position >> 10:
            self.progress(f"{position:,} of {size:,} requests have arrived")

    def request(self, index: int) -> Request:
        """Row `index` as a fresh request."""
        request = Request(index, self.arrival_s[index], self.prompt[index], self.output[index])
        if self.extra:
            self._annotate(request)
        return request

    def _annotate(self, request: Request) -> None:
        if self.prefixes is not None:
            request.prefix = self.prefixes[request.index]
        if self.priorities is not None:
            request.priority = self.priorities[request.index]
        if self.models is not None:
            request.model = self.models[request.index]

    def start(self, cluster: Cluster) -> None:
        self._cluster = cluster
        size = len(self.arrival_s)
        if size and cluster.dealt():
            replicas = cluster.replicas
            rows: list[Any] = [range(size)]
            if len(replicas) > 1:
                picks = [cluster.router.pick(None, range(len(replicas))) for _ in range(size)]  # type: ignore[arg-type]
                rows = [[i for i, pick in enumerate(picks) if pick == k] for k in range(len(replicas))]
            for replica, mine in zip(replicas, rows, strict=True):
                self._require_possible(replica, mine)
                for row in mine if len(replicas) > 1 else ():
                    cluster.record.replica[row] = replica.index
                replica.foresees = True
                replica.inbox = TraceInbox(self, mine, replica, cluster)
                replica._idle()
        elif size and cluster.only_arrivals():
            self._walk(cluster)
        elif size:
            cluster.clock.at(self.arrival_s[0], self._pump, None, ARRIVAL)

    def _walk(self, cluster: Cluster) -> None:
        """From arrival to arrival: each replica catches up by itself, so that the router sees it as it is then."""
        replicas, clock, times = cluster.replicas, cluster.clock, self.arrival_s
        for replica in replicas:
            replica.local = True
        for index, now_s in enumerate(times):
            for replica in replicas:
                if replica.due_s < now_s:
                    replica.catch_up(now_s)
            clock._now = now_s
            cluster.arrive(self.request(index))
            if not index & 0x3FF:
                self.arrived(index - 1, index, len(times))
            self._next = index + 1
        for replica in replicas:
            replica.catch_up(math.inf)

    def _require_possible(self, replica: Any, rows: Sequence[int]) -> None:
        """Raise InfeasibleError for the first row that can never fit into the replica's KV cache."""
        largest = max((self.prompt[i] + self.output[i] for i in rows), default=0)
        if rows and not (replica.kv.possible(Request(0, 0.0, largest, 0)) and largest):
            for row in rows:
                replica.require_possible(self.request(row))

    @property
    def pending(self) -> int:
        """Rows that have not arrived."""
        return len(self.arrival_s) - self._next

    def _pump(self, event: Any) -> None:
        cluster, times, index = self._cluster, self.arrival_s, self._next
        now_s, size = times[index], len(times)
        while index < size and times[index] == now_s:
            cluster.arrive(self.request(index))
            index += 1
        self.arrived(self._next, index, size)
        self._next = index
        if index < size:
            cluster.clock.at(times[index], self._pump, None, ARRIVAL)

    def finished(self, request: Request, now_s: float) -> None:
        return None


class TraceInbox:
    """One replica's share of a trace (`rows` of it, in order), pulled at its iteration boundaries."""

    __slots__ = ("_cluster", "_head", "_replica", "_rows", "_taken", "_trace", "next_s")

    def __init__(self, trace: TraceSource, rows: Sequence[int], replica: Any, cluster: Cluster) -> None:
        self._trace, self._replica, self._cluster, self._taken = trace, replica, cluster, 0
        columns: list[Any] = [trace.arrival_s, trace.prompt, trace.output]
        if len(rows) < len(trace.arrival_s):
            columns = [[column[row] for row in rows] for column in columns]
        self._rows = zip(rows, *columns, strict=True)
        self._head: tuple[int, float, int, int] = next(self._rows, _NO_MORE)
        self.next_s = self._head[1]

    def pull(self, now_s: float) -> None:
        """Move arrivals up to `now_s` into the replica's queue; N(t) counts them from their arrival on."""
        replica, rows, count, trace = self._replica, self._rows, 0, self._trace
        index, next_s, prompt, output = self._head
        area = replica.in_system * (now_s - replica.counted_s)
        while next_s <= now_s:
            request = Request(index, next_s, prompt, output)
            if trace.extra:
                trace._annotate(request)
            replica.waiting.append(request)
            area += now_s - next_s
            count += 1
            self._head = index, next_s, prompt, output = next(rows, _NO_MORE)
        self.next_s = next_s
        self._cluster.in_system += count
        self._cluster.arrived += count
        replica.in_system += count
        replica.area += area
        replica.counted_s = now_s
        if trace.progress is not None:
            trace.arrived(self._taken, self._taken + count, len(trace.arrival_s))
            self._taken += count
