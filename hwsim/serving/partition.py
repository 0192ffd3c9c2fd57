"""Prefill and decode side by side on one device, each on its share of the SMs (semi-PD).

Both sides read one copy of the weights and one KV cache, so nothing is transferred. Decode speed saturates at a small
share because it is bound by memory; prefill speed follows its share. A controller moves the border with the SLO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.cluster import Cluster
from hwsim.serving.control import every
from hwsim.serving.disaggregate import Disaggregation
from hwsim.serving.iteration_time import ScaledTime
from hwsim.serving.spec import ReplicaSpec, ServiceLevel


@dataclass(slots=True)
class Partition:
    """Replica 0 prefills and replica 1 decodes on the same device; use with `halves`.

    Attributes
    ----------
    share: fraction of the SMs that prefill gets at the start.
    saturation: fraction of the SMs at which decode reaches full speed.
    level: limits that drive the controller (None: the border stays). `switch_s` is paid at each move.
    """

    share: float = 0.5
    saturation: float = 0.4
    level: ServiceLevel | None = None
    step: float = 0.1
    period_s: float = 1.0
    switch_s: float = 0.0
    moves: int = 0
    rest: float = 0.0

    def prepare(self, cluster: Cluster) -> None:
        """Split the device. Raises InputError unless the cluster has two replicas and shares lie in (0, 1)."""
        if len(cluster.everyone) != 2 or not 0 < self.share < 1 or not 0 < self.saturation <= 1:
            raise InputError("a partition needs two replicas and shares in (0, 1)", seen=f"share {self.share}")
        self.rest = self.share
        prefill, decode = cluster.everyone
        inner = (prefill.time, decode.time)
        Disaggregation(prefill=1, kv_bytes_per_token=0.0, latency_s=0.0).prepare(cluster)
        self._apply(prefill, decode, inner)
        if self.level is not None:
            every(cluster, self.period_s, lambda now_s: self._control(prefill, decode, inner, now_s))

    def _apply(self, prefill: Any, decode: Any, inner: tuple[Any, Any]) -> None:
        prefill.time = ScaledTime(inner[0], share=self.share)
        decode.time = ScaledTime(inner[1], share=min(1.0, (1 - self.share) / self.saturation))

    def _control(self, prefill: Any, decode: Any, inner: tuple[Any, Any], now_s: float) -> None:
        """Give prefill more when its oldest request has used half its limit; less when decodes run late."""
        limit = self.level.ttft_s if self.level is not None else None
        tpot = self.level.tpot_s if self.level is not None else None
        oldest = now_s - prefill.waiting[0].arrival_s if prefill.waiting else 0.0
        late = bool(tpot and decode.decodes and decode.time.decode_line(decode.decodes, decode.context)[0] > tpot)
        wanted = self.share
        if late:
            wanted = max(0.1, self.share - self.step)
        elif limit and oldest > limit / 2:
            wanted = min(0.9, self.share + self.step)
        elif self.share > self.rest and oldest == 0.0:
            wanted = max(self.rest, self.share - self.step)
        if wanted != self.share:
            self.share = wanted
            self.moves += 1
            self._apply(prefill, decode, inner)
            prefill.load_s += self.switch_s
            decode.load_s += self.switch_s
            decode.replan(now_s)


def halves(spec: ReplicaSpec) -> list[ReplicaSpec]:
    """The two sides of one device: half of its power and price each; both see the whole KV memory's half."""
    half = spec.with_(
        kv_blocks=max(1, spec.kv_blocks // 2), busy_w=spec.busy_w / 2, idle_w=spec.idle_w / 2,
        running_w=spec.running_w / 2, usd_per_s=spec.usd_per_s / 2,
    )  # fmt: skip
    return [half.with_(name=f"{spec.name}-prefill"), half.with_(name=f"{spec.name}-decode")]
