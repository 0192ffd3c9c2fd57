"""Separate pools for prefill and decode, with the KV cache moved over a shared link (Splitwise, DistServe).

Layers are sent as soon as they are computed, so only the part of the transfer that outlasts the prefill delays the
request: ``layerwise`` sends all but the last layer's share under the prefill where the link keeps up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.cluster import Cluster
from hwsim.serving.request import Request
from hwsim.serving.routers import LeastOutstanding
from hwsim.serving.transfer import SharedLink


@dataclass(slots=True)
class Disaggregation:
    """Replicas 0 .. prefill-1 prefill, the others decode.

    Attributes
    ----------
    kv_bytes_per_token, bandwidth_bytes_per_s, latency_s: what a transfer moves and over what.
    hidden: share of the transfer that overlaps the prefill (0 serial, (layers-1)/layers layer-wise).
    mixed: decode replicas with an empty queue may prefill too when every prefill replica has `mixed` requests waiting
        (0: never; Splitwise's mixed pool).
    """

    prefill: int = 1
    kv_bytes_per_token: float = 131072.0
    bandwidth_bytes_per_s: float = 25e9
    latency_s: float = 10e-6
    hidden: float = 0.0
    mixed: int = 0

    def prepare(self, cluster: Cluster) -> None:
        """Split the cluster's replicas into the pools. Raises InputError unless both pools have a replica."""
        if not 0 < self.prefill < len(cluster.everyone) or not 0 <= self.hidden <= 1:
            raise InputError("both pools need a replica", seen=f"{self.prefill} of {len(cluster.everyone)} prefill")
        _Pools(self, cluster)


class _Pools:
    def __init__(self, spec: Disaggregation, cluster: Cluster) -> None:
        self.spec, self.cluster = spec, cluster
        self.link = SharedLink(cluster.clock, spec.bandwidth_bytes_per_s, spec.latency_s)
        self.prefills = cluster.everyone[: spec.prefill]
        self.decodes = cluster.everyone[spec.prefill :]
        self.router = LeastOutstanding()
        self.front = cluster.router
        cluster.replicas = list(cluster.everyone)
        cluster.router = self  # type: ignore[assignment]
        cluster.dynamic = True
        cluster.after_prefill = self.after_prefill

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        """The prefill replica of an arrival; in a mixed pool an empty decode replica where all prefills are full."""
        if self.spec.mixed and all(len(r.waiting) >= self.spec.mixed for r in self.prefills):
            idle = [r for r in self.decodes if not r.waiting]
            if idle:
                return self.router.pick(request, idle)
        return self.front.pick(request, self.prefills)

    def after_prefill(self, request: Request, replica: Any, now_s: float) -> bool:
        """Take a request off its prefill replica; False if it may decode where it is."""
        if replica not in self.prefills:
            return False
        target = self.router.pick(request, self.decodes)
        replica.hand_over(request, now_s)
        self.cluster.leave_replica(now_s)
        size = request.prefill * self.spec.kv_bytes_per_token * (1 - self.spec.hidden)
        self.link.send(size, lambda time_s: self._arrived(request, target, time_s))
        return True

    def _arrived(self, request: Request, target: Any, now_s: float) -> None:
        request.kv_ready = True
        self.cluster.enter_replica(request, target, now_s)
