"""Separate pools for prefill and decode, with the KV cache moved over a shared link (Splitwise, DistServe).

Layers are sent as soon as they are computed, so only the part of the transfer that outlasts the prefill delays the
request: ``layerwise`` sends all but the last layer's share under the prefill where the link keeps up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsim.errors import InputError, unknown_name
from hwsim.serving.cluster import Cluster
from hwsim.serving.request import Request
from hwsim.serving.routers import LeastOutstanding
from hwsim.serving.transfer import SharedLink

LINKS: Final = ("fabric", "replica")


@dataclass(slots=True)
class Disaggregation:
    """Replicas 0 .. prefill-1 prefill, the others decode.

    Attributes
    ----------
    kv_bytes_per_token, bandwidth_bytes_per_s, latency_s: what a transfer moves and over what.
    hidden: share of the transfer that overlaps the prefill (0 serial, (layers-1)/layers layer-wise).
    links: ``fabric`` (all transfers share one link) or ``replica`` (each prefill replica sends over its own adapter).
    mixed: decode replicas with an empty queue may prefill too when every prefill replica has `mixed` requests waiting
        (0: never; Splitwise's mixed pool).
    """

    prefill: int = 1
    kv_bytes_per_token: float = 131072.0
    bandwidth_bytes_per_s: float = 25e9
    latency_s: float = 10e-6
    hidden: float = 0.0
    mixed: int = 0
    links: str = "fabric"

    def prepare(self, cluster: Cluster) -> None:
        """Split the cluster's replicas into the pools. Raises InputError unless both pools have a replica."""
        if self.links not in LINKS:
            raise unknown_name("sharing of links", self.links, LINKS)
        if not 0 < self.prefill < len(cluster.everyone) or not 0 <= self.hidden <= 1:
            raise InputError("both pools need a replica", seen=f"{self.prefill} of {len(cluster.everyone)} prefill")
        if cluster.central:
            raise InputError("pools route by themselves; a central queue does not", where="--router", seen="central")
        _Pools(self, cluster)


class _Pools:
    def __init__(self, spec: Disaggregation, cluster: Cluster) -> None:
        self.spec, self.cluster = spec, cluster
        self.prefills = cluster.everyone[: spec.prefill]
        count = len(self.prefills) if spec.links == "replica" else 1
        made = [SharedLink(cluster.clock, spec.bandwidth_bytes_per_s, spec.latency_s) for _ in range(count)]
        self.link_of = {replica.index: made[i % count] for i, replica in enumerate(self.prefills)}
        self.decodes = cluster.everyone[spec.prefill :]
        self.heading = {replica.index: 0 for replica in self.decodes}  # requests whose cache is on its way
        self.router = LeastOutstanding()
        self.front = cluster.router
        cluster.replicas = list(cluster.everyone)
        cluster.router = self  # type: ignore[assignment]
        cluster.dynamic = cluster.selective = True
        cluster.after_prefill = self.after_prefill

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        """The prefill replica of an arrival; in a mixed pool an empty decode replica where all prefills are full.

        None where no prefill replica is up.
        """
        prefills = [r for r in self.prefills if r in replicas]
        if self.spec.mixed and all(len(r.waiting) >= self.spec.mixed for r in prefills):
            idle = [r for r in self.decodes if r in replicas and not r.waiting]
            if idle:
                return self.router.pick(request, idle)
        return self.front.pick(request, prefills) if prefills else None

    def after_prefill(self, request: Request, replica: Any, now_s: float) -> bool:
        """Take a request off its prefill replica; False if it may decode where it is: no decode replica is up."""
        decodes = [r for r in self.decodes if r.index not in self.cluster.down]
        if replica not in self.prefills or not decodes:
            return False
        target = min(decodes, key=lambda r: r.in_system + self.heading[r.index])
        self.heading[target.index] += 1
        replica.hand_over(request, now_s)
        self.cluster.prefilled_by[request.index] = replica.index
        self.cluster.leave_replica(now_s)
        size = request.prefill * self.spec.kv_bytes_per_token * (1 - self.spec.hidden)
        self.link_of[replica.index].send(size, lambda _: self._arrived(request, replica, target, now_s))
        return True

    def _arrived(self, request: Request, source: Any, target: Any, sent_s: float) -> None:
        self.heading[target.index] -= 1
        self.cluster.deliver(request, source, target, sent_s)
