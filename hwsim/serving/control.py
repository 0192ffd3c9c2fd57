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
    time. Stage k copies the tokens generated during stage k-1, so the request keeps decoding; once at most
    `last_tokens` are left to copy, or after `stages` stages, it stops at an iteration boundary, and goes on at the
    target after `downtime_s` of handshakes and the copy of what is left (Sun et al., OSDI 2024, section 4.2).
    """

    kv_bytes_per_token: float = 131072.0
    bandwidth_bytes_per_s: float = 8e9
    downtime_s: float = 0.02
    gap: float = 0.2
    period_s: float = 1.0
    stages: int = 3
    last_tokens: int = 16
    moved: int = 0

    def prepare(self, cluster: Cluster) -> None:
        copying: set[int] = set()
        every(cluster, self.period_s, lambda now_s: self._balance(cluster, copying))

    def _balance(self, cluster: Cluster, copying: set[int]) -> None:
        for model in dict.fromkeys(replica.spec.model for replica in cluster.replicas):
            self._pair(cluster, [r for r in cluster.replicas if r.spec.model == model], copying)

    def _pair(self, cluster: Cluster, replicas: Sequence[Any], copying: set[int]) -> None:
        usage = {r.index: virtual_usage(r) for r in replicas}
        order = sorted(replicas, key=lambda r: usage[r.index])
        for target, source in zip(order, reversed(order), strict=True):
            if usage[source.index] - usage[target.index] < self.gap or target is source:
                return
            movable = source.movable()
            if movable and source.index not in copying:
                copying.add(source.index)
                shortest = min(movable, key=lambda r, at=source: (at.processed(r), r.index))  # type: ignore[misc]
                _Move(self, cluster, shortest, source, target, copying).stage(1)


@dataclass(slots=True)
class _Move:
    """One request on its way from `source` to `target`; `copied` tokens of its cache are there already."""

    rule: Migration
    cluster: Cluster
    request: Request
    source: Any
    target: Any
    copying: set[int]
    copied: int = 0

    def stage(self, number: int) -> None:
        """Copy what has been generated since the last stage, then copy again or stop the request."""
        here = self.source.processed(self.request)
        left, self.copied = here - self.copied, here

        def arrived(now_s: float) -> None:
            if not self.source.decodes_here(self.request):
                self.copying.discard(self.source.index)  # it finished or was preempted: the copy was in vain
            elif number < self.rule.stages and self.source.processed(self.request) - here > self.rule.last_tokens:
                self.stage(number + 1)
            else:
                self.copying.discard(self.source.index)
                self.source.when_free(self.request, self._leave, now_s)

        self._send(left, arrived)

    def _send(self, tokens: int, done: Callable[[float], None]) -> None:
        link = SharedLink(self.cluster.clock, self.rule.bandwidth_bytes_per_s)
        link.send(tokens * self._token_bytes(), done)

    def _token_bytes(self) -> float:
        """KV-cache bytes of a token: the replica's own where it knows."""
        return float(self.source.spec.kv_bytes_per_token or self.rule.kv_bytes_per_token)

    def _leave(self, time_s: float) -> None:
        """Stop the request where it is, at an iteration boundary, and send the rest."""
        if not self.source.decodes_here(self.request) or self.target not in self.cluster.replicas:
            return  # it finished, was preempted, or the target is gone: the copy was in vain
        self.rule.moved += 1
        left = self.source.processed(self.request) - self.copied
        self.source.move_out(self.request, time_s)
        self.cluster.leave_replica(time_s)
        copy_s = left * self._token_bytes() / self.rule.bandwidth_bytes_per_s
        resume_s = time_s + copy_s + self.rule.downtime_s
        self.cluster.clock.at(resume_s, lambda _: self._resume(time_s))

    def _resume(self, left_s: float) -> None:
        self.cluster.deliver(self.request, self.source, self.target, left_s)


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """Admission control: a request is rejected where every replica of its model has `most` requests in the system."""

    most: int

    def prepare(self, cluster: Cluster) -> None:
        cluster.admission = lambda request, replicas, now_s: any(
            r.in_system < self.most for r in replicas if r.spec.model == request.model
        )


@dataclass(frozen=True, slots=True)
class RejectImpossible:
    """Requests larger than the KV cache are rejected and counted instead of stopping the run."""

    def prepare(self, cluster: Cluster) -> None:
        cluster.admission = lambda request, replicas, now_s: all(
            r.kv.possible(request) for r in replicas if r.spec.model == request.model
        )
