"""What happens to a cluster while it serves: failures, autoscaling, live migration, admission control.

Each is one small class with ``prepare(cluster)``, given to `simulate(..., prepare=...)`; `together` combines them.
Decisions run as control events, after the arrivals and iteration boundaries of their instant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.clock import CONTROL
from hwsim.serving.cluster import Cluster
from hwsim.serving.request import Request
from hwsim.serving.routers import virtual_usage
from hwsim.serving.transfer import SharedLink

Prepare = Callable[[Cluster], None]


def together(*parts: Prepare) -> Prepare:
    """One `prepare` that applies several in turn."""

    def prepare(cluster: Cluster) -> None:
        for part in parts:
            part(cluster)

    return prepare


def every(cluster: Cluster, period_s: float, action: Callable[[float], None]) -> None:
    """Call `action(now_s)` each `period_s` while requests are in the system or still to come."""
    if not period_s > 0:
        raise InputError("a control period must be above 0 s", seen=repr(period_s))

    def tick(event: Any) -> None:
        action(cluster.clock.now)
        if cluster.in_system or cluster.expects_more():
            cluster.clock.at(cluster.clock.now + period_s, tick, None, CONTROL)

    cluster.dynamic = True
    cluster.clock.at(cluster.clock.now + period_s, tick, None, CONTROL)


def _call(action: Callable[[Any], None], replica: Any) -> Callable[[Any], None]:
    """An event callback that does `action` to `replica`."""
    return lambda event: action(replica)


@dataclass(frozen=True, slots=True)
class Failures:
    """Replica `index` stops at `down_s` and takes requests again at `up_s` (None: never).

    Its requests lose their KV cache, keep the tokens they had emitted, and go to other replicas; with none left they
    wait for the repair.
    """

    outages: Sequence[tuple[int, float, float | None]]

    def prepare(self, cluster: Cluster) -> None:
        cluster.dynamic = True
        for index, down_s, up_s in self.outages:
            if not 0 <= index < len(cluster.everyone) or down_s < 0 or (up_s is not None and up_s <= down_s):
                raise InputError(
                    "an outage needs a replica of the cluster and up after down", seen=f"{index}, {down_s}"
                )
            replica = cluster.everyone[index]
            cluster.clock.at(down_s, _call(cluster.take_down, replica), None, CONTROL)
            if up_s is not None:
                cluster.clock.at(up_s, _call(cluster.bring_up, replica), None, CONTROL)


@dataclass(slots=True)
class Autoscale:
    """Adds a replica when the queue per replica exceeds `high`, removes one when it falls below `low`.

    A new replica takes `startup_s` before it serves but is paid from the decision on; a removed one drains first.
    """

    spec: Any
    most: int
    least: int = 1
    high: float = 4.0
    low: float = 0.5
    period_s: float = 5.0
    startup_s: float = 30.0

    def prepare(self, cluster: Cluster) -> None:
        pending: list[float] = []

        def decide(now_s: float) -> None:
            pending[:] = [ready_s for ready_s in pending if ready_s > now_s]
            active = len(cluster.replicas)
            load = sum(r.in_system for r in cluster.replicas) / max(1, active)
            if load > self.high and active + len(pending) < self.most:
                replica = self.spec.build(cluster.clock, cluster, len(cluster.everyone))
                replica.paid_from_s = now_s
                cluster.everyone.append(replica)
                pending.append(now_s + self.startup_s)
                cluster.clock.at(now_s + self.startup_s, _call(cluster.bring_up, replica), None, CONTROL)
            elif load < self.low and active > self.least:
                cluster.retire(min(cluster.replicas, key=lambda r: r.in_system))

        every(cluster, self.period_s, decide)


@dataclass(slots=True)
class Migration:
    """Llumnix: moves running requests from the fullest to the emptiest replicas by a staged copy.

    Every period the k-th fullest replica is paired with the k-th emptiest while their loads (memory in use or asked
    for by the queue) differ by `gap`; each pair moves its shortest request over the source's own adapter, one at a
    time. Stage k copies the tokens generated during stage k-1, so the request keeps decoding; only the last stage and
    a handshake stop it. Here the copy overlaps fully and the downtime is `downtime_s` plus the tokens of one stage.
    """

    kv_bytes_per_token: float = 131072.0
    bandwidth_bytes_per_s: float = 8e9
    downtime_s: float = 0.02
    gap: float = 0.2
    period_s: float = 1.0
    moved: int = 0

    def prepare(self, cluster: Cluster) -> None:
        copying: set[int] = set()
        every(cluster, self.period_s, lambda now_s: self._balance(cluster, copying))

    def _balance(self, cluster: Cluster, copying: set[int]) -> None:
        usage = {r.index: virtual_usage(r) for r in cluster.replicas}
        order = sorted(cluster.replicas, key=lambda r: usage[r.index])
        for target, source in zip(order, reversed(order), strict=True):
            if usage[source.index] - usage[target.index] < self.gap or target is source:
                return
            movable = list(source._order.values())
            if movable and source.index not in copying:
                copying.add(source.index)
                self._copy(cluster, min(movable, key=source.processed), source, target, copying)

    def _copy(self, cluster: Cluster, request: Request, source: Any, target: Any, copying: set[int]) -> None:
        link = SharedLink(cluster.clock, self.bandwidth_bytes_per_s)

        def arrived(now_s: float) -> None:
            copying.discard(source.index)
            self._switch(cluster, request, source, target, now_s)

        link.send(source.processed(request) * self.kv_bytes_per_token, arrived)

    def _switch(self, cluster: Cluster, request: Request, source: Any, target: Any, now_s: float) -> None:
        """The copy is complete: stop the request where it is at an iteration boundary and resume it there."""

        def leave(time_s: float) -> None:
            if source._order.get(request.index) is not request or target not in cluster.replicas:
                return  # it finished, was preempted, or the target is gone: the copy was in vain
            self.moved += 1
            source.move_out(request, time_s)
            cluster.leave_replica(time_s)
            resume_s = time_s + self.downtime_s
            cluster.clock.at(resume_s, lambda _: cluster.enter_replica(request, target, cluster.clock.now))

        source.at_boundary(leave, now_s)


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """Admission control: a request is rejected where every replica has `most` requests in the system."""

    most: int

    def prepare(self, cluster: Cluster) -> None:
        cluster.admission = lambda request, replicas, now_s: any(r.in_system < self.most for r in replicas)


@dataclass(frozen=True, slots=True)
class RejectImpossible:
    """Requests larger than the KV cache are rejected and counted instead of stopping the run."""

    def prepare(self, cluster: Cluster) -> None:
        cluster.admission = lambda request, replicas, now_s: all(r.kv.possible(request) for r in replicas)
