"""What a serving run is made of: replicas, router, service levels. Plain data; `build` makes the moving parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hwsim.errors import InputError, unknown_name
from hwsim.serving.clock import Clock
from hwsim.serving.cluster import Cluster
from hwsim.serving.energy import IterationEnergy
from hwsim.serving.iteration_time import IterationTime
from hwsim.serving.kv import BlockPool
from hwsim.serving.lockstep import LockStep, Rank
from hwsim.serving.pipeline import PipelineReplica
from hwsim.serving.plugins import Plugin, make
from hwsim.serving.policies import make_policy
from hwsim.serving.prefix import PrefixCache, Tier
from hwsim.serving.queues import make_queue
from hwsim.serving.record import Record
from hwsim.serving.replica import Replica
from hwsim.serving.routers import ByModel, Router, make_router
from hwsim.serving.staged import make_staged_policy


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One engine: its iteration time, batching policy and KV memory; power in watts, price in USD/s.

    Attributes
    ----------
    policy, options: name and arguments of the batching policy (cap, chunk, max_tokens, patience); a path to a Python
        file, a class or an instance is taken too (`hwsim.serving.plugins`).
    kv_blocks, block_tokens, watermark: size of the paged cache; `reserve_tokens` > 0 reserves whole sequences.
    stages, stage_share: pipeline stages, and the part of an iteration's time that each takes (default: 1 / stages).
    busy_w, idle_w: one level while iterations run, and between them. With `energy` iterations instead take `running_w`
        and the joules of their passes.
    queue: order of admission, ``fcfs``, ``sjf`` or ``priority``.
    prefix_tiers: memories of the prefix cache, nearest first (none: no cache), in blocks of `prefix_block_tokens`.
    swap_s_per_block: time to copy a block to the host and again back; None: preemption recomputes.
    front_end_s, front_end_token_s: time of a request outside the engine loop, and what each prompt token adds to it
        (tokenizer); they shift scheduling, first and last token alike.
    model: which requests it serves, where a cluster serves several models.
    ranks: data-parallel ranks that step together (`hwsim.serving.lockstep`); memory, power and price are of one.
    kv_bytes_per_token: size of the KV cache of a token, for copies between replicas (0: the copier's own figure).
    exact_vidur: a preempted half-done prefill shrinks to its processed part, as in Vidur.
    """

    time: IterationTime
    policy: str | Plugin | Any = "vllm"
    options: Mapping[str, int] = field(default_factory=dict)
    kv_blocks: int = 1 << 16
    block_tokens: int = 16
    watermark: float = 0.01
    reserve_tokens: int = 0
    stages: int = 1
    stage_share: float | None = None
    queue: str = "fcfs"
    exact_vidur: bool = False
    busy_w: float = 0.0
    idle_w: float = 0.0
    running_w: float = 0.0
    energy: IterationEnergy | None = None
    usd_per_s: float = 0.0
    name: str = "replica"
    prefix_block_tokens: int = 512
    prefix_tiers: Sequence[Tier] = ()
    swap_s_per_block: float | None = None
    front_end_s: float = 0.0
    front_end_token_s: float = 0.0
    model: str = ""
    kv_bytes_per_token: float = 0.0
    ranks: int = 1

    def with_(self, **changes: Any) -> ReplicaSpec:
        return replace(self, **changes)

    def _require_stageable(self) -> None:
        """Raise InputError for what replicas of several stages cannot do."""
        if self.stages > 1 and self.ranks > 1:
            raise InputError("ranks that step together have one pipeline stage", where="stages", seen=str(self.stages))
        if self.swap_s_per_block is not None:
            raise InputError("replicas of several pipeline stages preempt by recomputing", where="swap_s_per_block")
        if str(self.policy) in ("static", "faster_transformer") and not self.reserve_tokens:
            raise InputError("static batches over pipeline stages need a reservation", where="reserve_tokens")

    def build(self, clock: Clock, cluster: Cluster, index: int) -> Any:
        """The replica, not yet part of the cluster."""
        kv = BlockPool(self.kv_blocks, self.block_tokens, self.watermark, self.reserve_tokens)
        engine: Any
        if self.stages > 1 or self.ranks > 1:
            self._require_stageable()
            staged = make(self.policy, "policy", make_staged_policy, self.options, "form")
            kind = Rank if self.ranks > 1 else PipelineReplica
            engine = kind(clock, self.time, staged, kv, cluster, self.stages, self.stage_share)
            engine.index = index
        else:
            policy = make(self.policy, "policy", make_policy, self.options)
            engine = Replica(clock, self.time, policy, kv, cluster, index)
            engine.ordered = self.queue != "fcfs"
            engine.swap_s_per_block = self.swap_s_per_block
        engine.waiting = make_queue(self.queue)
        if self.prefix_tiers:
            engine.prefix = PrefixCache(self.prefix_block_tokens, self.prefix_tiers)
        engine.keep_partial = self.exact_vidur
        engine.spec = self
        return engine


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Limits in seconds; None where there is none. A request is good if it keeps every given limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"the limit {name} must be above 0", seen=repr(value))


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Replicas behind a router."""

    replicas: Sequence[ReplicaSpec]
    router: str | Plugin | Any = "round_robin"
    router_options: Mapping[str, int] = field(default_factory=dict)

    def build(self, requests: int) -> Cluster:
        """Clock, record of `requests` rows, router and replicas. Raises InputError without replicas."""
        if not self.replicas:
            raise InputError("a cluster needs at least one replica")
        clock = Clock()

        def router() -> Router:
            made: Router = make(self.router, "router", make_router, self.router_options)
            return made

        several = any(spec.model for spec in self.replicas)
        cluster = Cluster(clock, ByModel(router) if several else router(), Record(requests))
        for spec in self.replicas:
            group = [spec.build(clock, cluster, len(cluster.everyone) + rank) for rank in range(spec.ranks)]
            for replica in group:
                cluster.add(replica)
            if spec.ranks > 1:
                LockStep(clock, group)
        return cluster

    def asked_models(self, models: Sequence[str] | None) -> Sequence[str] | None:
        """The models that requests ask for, None where all replicas serve one. Raises UnknownNameError, InputError."""
        served = {spec.model for spec in self.replicas}
        if served == {""}:
            return None
        if models is None:
            raise InputError("a cluster of several models needs a trace that names one for each request", where="model")
        for name in dict.fromkeys(models):
            if name not in served:
                raise unknown_name("model in the cluster", name, served)
        return models
