"""Pipelined replicas do all that others do: pools, failures, migration, queues, prefix caches, every policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.errors import InputError
from hwsim.serving.arrivals import generate
from hwsim.serving.clock import Clock
from hwsim.serving.cluster import Cluster, TraceSource
from hwsim.serving.control import Failures, Migration, together
from hwsim.serving.disaggregate import Disaggregation
from hwsim.serving.kv import BlockPool
from hwsim.serving.pipeline import PipelineReplica
from hwsim.serving.prefix import PrefixCache, Tier
from hwsim.serving.queues import make_queue
from hwsim.serving.record import Record
from hwsim.serving.replica import Replica
from hwsim.serving.routers import make_router
from hwsim.serving.simulate import load_trace, simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.staged import make_staged_policy
from hwsim.serving.traces import Trace
from tests.serving.helpers import TIME, replica, run, trace_of

TRACE = generate(20.0, 80, seed=3, process="bursty", prompt=("uniform", 500.0), output=("uniform", 120.0))
POLICIES = ("vllm", "sarathi", "orca", "vllm_v1", "lightllm", "faster_transformer")


def spec_of(policy: str, blocks: int = 2000, **changes: Any) -> ReplicaSpec:
    """A replica of `policy` with what it needs."""
    whole = policy in ("orca", "faster_transformer")
    if policy == "lightllm":
        return replica(policy, kv_blocks=blocks * 16, block_tokens=1, options={"cap": 16}, **changes)
    return replica(policy, kv_blocks=blocks, options={"cap": 16}, reserve_tokens=2048 if whole else 0, **changes)


def explicit(trace: Trace, spec: ReplicaSpec, count: int, router: str, prepare: Any = None) -> Cluster:
    """The same cluster with replicas that walk explicit lists, one stage each."""
    clock = Clock()
    cluster = Cluster(clock, make_router(router), Record(len(trace)))
    load_trace(cluster, trace)
    for index in range(count):
        kv = BlockPool(spec.kv_blocks, spec.block_tokens, spec.watermark, spec.reserve_tokens)
        engine = PipelineReplica(clock, TIME, make_staged_policy(spec.policy, **spec.options), kv, cluster, 1)
        engine.index, engine.keep_partial, engine.waiting = index, spec.exact_vidur, make_queue(spec.queue)
        if spec.prefix_tiers:
            engine.prefix = PrefixCache(spec.prefix_block_tokens, spec.prefix_tiers)
        engine.spec = spec  # type: ignore[attr-defined]
        cluster.add(engine)
    if prepare is not None:
        prepare(cluster)
    cluster.run(TraceSource(trace.arrival_s, trace.prompt, trace.output, trace.prefixes, trace.priorities))
    return cluster


def agree(trace: Trace, spec: ReplicaSpec, count: int, router: str = "round_robin", prepare: Any = None) -> Any:
    """Both kinds of replicas give each request the same times, place and restarts."""
    fast = simulate(trace, ClusterSpec([spec] * count, router), prepare=prepare)
    slow = explicit(trace, spec, count, router, prepare)
    for column in ("scheduled_s", "first_s", "end_s"):
        assert np.abs(fast.column(column) - slow.record.column(column)).max() < 1e-9, column
    for column in ("restarts", "replica"):
        assert (fast.column(column) == slow.record.column(column)).all(), column
    gaps, weights = fast.cluster.record.gaps.weighted()
    expected, counts = slow.record.gaps.weighted()
    assert weights.sum() == pytest.approx(counts.sum())
    assert (gaps * weights).sum() == pytest.approx((expected * counts).sum(), rel=1e-9)
    return fast


REQUESTS = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 900), st.integers(1, 100)), min_size=1, max_size=30)


@settings(max_examples=40)
@given(
    rows=REQUESTS,
    policy=st.sampled_from(["vllm", "sarathi", "orca"]),
    blocks=st.sampled_from([150, 2000]),
    prefill=st.integers(1, 2),
    outage=st.sampled_from([None, (0, 0.5, 1.5), (2, 0.3, 2.0), (1, 0.2, 0.9)]),
    mixed=st.sampled_from([0, 1]),
)
def test_pools_and_failures_equal_the_explicit_engine(
    rows: list[tuple[int, int, int]], policy: str, blocks: int, prefill: int, outage: Any, mixed: int
) -> None:
    pools = Disaggregation(prefill, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e9, mixed=mixed)
    parts = [pools.prepare] + ([Failures([outage]).prepare] if outage else [])
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    agree(trace, spec_of(policy, max(blocks, 256) if policy == "orca" else blocks), 3, prepare=together(*parts))


@settings(max_examples=30)
@given(
    rows=REQUESTS,
    policy=st.sampled_from(["vllm", "sarathi", "orca"]),
    outages=st.lists(st.tuples(st.integers(0, 1), st.floats(0.05, 1.0), st.floats(1.1, 3.0)), min_size=1, max_size=2),
    queue=st.sampled_from(["fcfs", "sjf"]),
)
def test_failures_equal_the_explicit_engine(
    rows: list[tuple[int, int, int]], policy: str, outages: list[Any], queue: str
) -> None:
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    agree(trace, spec_of(policy, 400, queue=queue), 2, "least_outstanding", Failures(outages).prepare)


@settings(max_examples=40)
@given(
    rows=REQUESTS,
    policy=st.sampled_from(["vllm", "sarathi", "vllm_v1"]),
    router=st.sampled_from(["least_loaded", "round_robin"]),
    watermark=st.sampled_from([0.0, 0.05]),
    blocks=st.sampled_from([70, 120]),
)
def test_memory_without_a_watermark_and_routers_that_look_at_it(
    rows: list[tuple[int, int, int]], policy: str, router: str, watermark: float, blocks: int
) -> None:
    """Victims may come back an iteration later; the memory that a router sees grows between decisions."""
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    spec = spec_of(policy, blocks).with_(watermark=watermark)
    fast = spec.with_(options={"cap": 16, "chunk": 512, "ahead": 0}) if policy == "vllm_v1" else spec
    found = run(trace, fast, 2, router)
    slow = explicit(trace, spec.with_(options={"cap": 16}), 2, router)
    assert np.abs(found.column("end_s") - slow.record.column("end_s")).max() < 1e-9
    assert (found.column("restarts") == slow.record.column("restarts")).all()


@pytest.mark.parametrize("policy", ["sarathi", "vllm", "vllm_v1"])
def test_caches_from_elsewhere_never_overfill_the_memory(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    begin = Replica._begin

    def watched(self: Replica, *rest: Any) -> None:
        begin(self, *rest)
        used.append(self.kv_used - self.kv.total)

    monkeypatch.setattr(Replica, "_begin", watched)
    pools = Disaggregation(1, kv_bytes_per_token=1e4, bandwidth_bytes_per_s=1e10)
    trace = generate(30.0, 120, seed=5, process="bursty", prompt=("uniform", 300.0), output=("uniform", 120.0))
    result = simulate(trace, ClusterSpec([spec_of(policy, 90, watermark=0.0)] * 3), prepare=pools.prepare)
    assert max(used) == 0
    assert result.counts()["restarts"] > 0


def test_decode_pools_of_every_policy_take_caches_from_elsewhere() -> None:
    for policy in POLICIES:
        pools = Disaggregation(1, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e9)
        result = simulate(TRACE, ClusterSpec([spec_of(policy, 600)] * 3), prepare=pools.prepare)
        assert result.counts()["finished"] == len(TRACE), policy


@pytest.mark.parametrize("policy", ["lightllm", "faster_transformer"])
def test_one_stage_of_the_other_policies_equals_the_fast_engine(policy: str) -> None:
    spec = spec_of(policy, 400)
    assert agree(TRACE, spec, 2, "lor").counts()["finished"] == len(TRACE)


def test_prefix_hits_and_priorities_reach_pipelined_replicas() -> None:
    trace = generate(6.0, 80, seed=2, prompt=("uniform", 600.0), output=("uniform", 40.0))
    trace.prefixes = [tuple(range(1000 * (i % 3), 1000 * (i % 3) + p // 64)) for i, p in enumerate(trace.prompt)]
    tiers = (Tier("hbm", 40), Tier("ddr", 60, 1e5))
    spec = spec_of("sarathi", prefix_tiers=tiers, prefix_block_tokens=64)
    cached = agree(trace, spec, 2)
    plain = agree(trace, spec_of("sarathi"), 2)
    assert cached.ttft_s.mean() < plain.ttft_s.mean()
    two = run(trace, spec.with_(stages=2), 1, "prefix_aware")
    assert two.ttft_s.mean() < run(trace, spec_of("sarathi", stages=2)).ttft_s.mean()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stages", [pytest.param(2, marks=pytest.mark.long), 3])
def test_nothing_is_lost_whatever_happens_to_pipelined_replicas(policy: str, stages: int) -> None:
    outages = Failures([(0, 2.0, 4.0), (1, 3.0, None), (2, 3.01, 7.0)])
    pools = Disaggregation(2, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e9)
    mover = Migration(gap=0.01, period_s=0.2)
    for prepare in (None, outages.prepare, pools.prepare, together(pools.prepare, outages.prepare), mover.prepare):
        spec = spec_of(policy, 600, stages=stages)
        result = simulate(TRACE, ClusterSpec([spec] * 4, "least_outstanding"), prepare=prepare)
        assert result.counts()["finished"] == len(TRACE)
        assert result.cluster.record.gaps.weighted()[1].sum() == pytest.approx(sum(o - 1 for o in TRACE.output))
        assert all(0 <= r.busy_s <= result.makespan_s for r in result.cluster.everyone)
    assert mover.moved > 0 or policy == "faster_transformer"


def test_a_failure_in_mid_flight_by_hand() -> None:
    """Two stages: the prompt's micro-batch is in stage 1 when the replica fails; it runs again from the repair on."""
    step = TIME.iteration_s(0, 0, [(100, 0)]) / 2
    outage = Failures([(0, 1.5 * step, 1.0)])
    result = simulate(trace_of([(0.0, 100, 2)]), ClusterSpec([replica(stages=2)]), prepare=outage.prepare)
    decode = TIME.iteration_s(1, 101, [])
    assert result.column("first_s")[0] == pytest.approx(1.0 + 2 * step, rel=1e-12)
    assert result.column("end_s")[0] == pytest.approx(1.0 + 2 * step + decode, rel=1e-12)
    assert result.cluster.everyone[0].busy_s == pytest.approx(0.75 * step + step + decode / 2, rel=1e-12)


def test_pools_of_two_stages_by_hand() -> None:
    pools = Disaggregation(1, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e9, latency_s=0.0)
    result = simulate(trace_of([(0.0, 1000, 3)]), ClusterSpec([replica(stages=2)] * 2), prepare=pools.prepare)
    prefill = TIME.iteration_s(0, 0, [(1000, 0)])
    decode = sum(TIME.iteration_s(1, 1001 + i, []) for i in range(2))
    assert result.ttft_s[0] == pytest.approx(prefill, rel=1e-12)
    assert result.e2e_s[0] == pytest.approx(prefill + 0.1 + decode, rel=1e-9)


def test_migration_between_pipelined_replicas_by_hand() -> None:
    """One request decodes on replica 0 of two stages; the copy of 1,003 tokens and then of one stop it for 50 ms."""
    mover = Migration(kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e10, downtime_s=0.05, gap=0.001, period_s=0.05)
    spec = ClusterSpec([replica(stages=2)] * 2)
    trace = trace_of([(0.0, 1000, 10)])
    still, moved = simulate(trace, spec), simulate(trace, spec, prepare=mover.prepare)
    assert mover.moved >= 1
    late = moved.e2e_s[0] - still.e2e_s[0]
    tokens = late - 0.05 * mover.moved  # what was generated while the bulk was copied
    assert 0 <= tokens * 1e10 / 1e5 <= 2 * mover.moved + 1e-6
    assert tokens * 1e10 / 1e5 == pytest.approx(round(tokens * 1e10 / 1e5), abs=1e-4)


def test_a_cache_on_its_way_to_a_replica_that_fails_is_computed_again() -> None:
    pools = Disaggregation(1, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e8, latency_s=0.0)  # 1 s a request
    parts = together(pools.prepare, Failures([(1, 0.5, None)]).prepare)
    result = simulate(trace_of([(0.0, 1000, 3)]), ClusterSpec([replica()] * 3), prepare=parts)
    prefill, again = TIME.iteration_s(0, 0, [(1000, 0)]), TIME.iteration_s(0, 0, [(1001, 0)])
    decode = TIME.iteration_s(1, 1002, [])
    assert result.e2e_s[0] == pytest.approx(prefill + 1.0 + again + 1.001 + decode, rel=1e-9)
    assert result.column("replica")[0] == 2
    assert result.counts()["restarts"] == 1


def test_what_stages_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="recomputing"):
        run(TRACE, replica(stages=2, swap_s_per_block=0.001))
    with pytest.raises(InputError, match="reservation"):
        run(TRACE, replica("static", stages=2))


def test_pipelined_features_from_the_front_door() -> None:
    common: dict[str, Any] = {"requests": 40, "rate": 8.0, "prompt": 200, "output": 40, "efficiency": "datasheet"}
    for options in (
        {"replicas": 3, "migration": "gap=0.01,period=100ms,stages=2"},
        {"replicas": 2, "failures": "0:1s:3s", "router": "slo_aware", "queue": "sjf"},
        {"replicas": 3, "prefill_pool": 1, "kv_link": "25 GB/s"},
        {"policy": "lightllm", "router": "least_loaded", "replicas": 2},
        {"policy": "static", "autoscale": {"most": 3, "startup": "1 s", "high": 2}},
    ):
        counts = hwsim.simulate("llama-2-7b", "a100-sxm4-80gb", pp=2, **common, **options).to_dict()["counts"]
        assert counts["finished"] == 40, options
