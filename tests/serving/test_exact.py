"""The fast engine against exact reference cases, and against the slow engine that walks explicit lists."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.serving.clock import Clock
from hwsim.serving.cluster import Cluster, TraceSource
from hwsim.serving.kv import BlockPool
from hwsim.serving.pipeline import PipelineReplica
from hwsim.serving.record import Record
from hwsim.serving.routers import make_router
from hwsim.serving.simulate import load_trace
from hwsim.serving.staged import make_staged_policy
from hwsim.serving.traces import Trace
from hwsim.validation.serving import validate_serving
from tests.serving.helpers import TIME, replica, run, trace_of


@pytest.mark.shared
def test_every_request_of_the_reference_cases(shared: Path) -> None:
    document = validate_serving(shared / "serving")
    assert [case["name"] for case in document["cases"]] == ["orca", "sarathi512", "sarathi512_lowmem", "vllm"]
    for case in document["cases"]:
        assert max(case["ttft_s"], case["e2e_s"], case["delay_s"]) < 1e-6, case
        assert case["restarts"] == 0
        assert case["iterations"] == case["expected_iterations"]


def slow(trace: Trace, policy: str, options: dict[str, int], blocks: int, replicas: int, router: str) -> Cluster:
    """The same system on explicit lists, one event an iteration."""
    clock = Clock()
    cluster = Cluster(clock, make_router(router), Record(len(trace)))
    load_trace(cluster, trace)
    for index in range(replicas):
        kv = BlockPool(blocks, 16, 0.01, 4096 if policy == "orca" else 0)
        engine = PipelineReplica(clock, TIME, make_staged_policy(policy, **options), kv, cluster, 1)
        engine.index, engine.keep_partial = index, True
        cluster.add(engine)
    cluster.run(TraceSource(trace.arrival_s, trace.prompt, trace.output))
    return cluster


REQUESTS = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 1500), st.integers(1, 300)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(
    rows=REQUESTS,
    policy=st.sampled_from(["vllm", "sarathi", "orca"]),
    blocks=st.sampled_from([150, 260, 5000]),
    replicas=st.integers(1, 3),
    router=st.sampled_from(["round_robin", "lor", "random"]),
)
def test_fast_engine_equals_explicit_lists(
    rows: list[tuple[int, int, int]], policy: str, blocks: int, replicas: int, router: str
) -> None:
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    options = {"cap": 8} | ({"chunk": 256} if policy == "sarathi" else {})
    blocks = max(blocks, 256) if policy == "orca" else blocks
    reserve = 4096 if policy == "orca" else 0
    spec = replica(policy, kv_blocks=blocks, options=options, exact_vidur=True, reserve_tokens=reserve)
    fast = run(trace, spec, replicas, router)
    reference = slow(trace, policy, options, blocks, replicas, router)
    for column in ("scheduled_s", "first_s", "end_s"):
        assert np.abs(fast.column(column) - reference.record.column(column)).max() < 1e-9
    assert (fast.column("restarts") == reference.record.column("restarts")).all()
    assert (fast.column("replica") == reference.record.column("replica")).all()
    gaps, weights = fast.cluster.record.gaps.weighted()
    expected, counts = reference.record.gaps.weighted()
    assert weights.sum() == pytest.approx(counts.sum())
    assert (gaps * weights).sum() == pytest.approx((expected * counts).sum(), rel=1e-9)


def test_low_memory_restarts_happen_in_the_differential_test() -> None:
    trace = trace_of([(0.01 * i, 400, 250) for i in range(12)])
    spec = replica("sarathi", kv_blocks=150, options={"cap": 8, "chunk": 256}, exact_vidur=True)
    fast = run(trace, spec)
    reference = slow(trace, "sarathi", {"cap": 8, "chunk": 256}, 150, 1, "round_robin")
    assert fast.column("restarts").sum() == reference.record.column("restarts").sum() > 0


def test_two_stages_follow_the_tandem_recurrence_by_hand() -> None:
    """Two single-token requests: stage 1 of the first overlaps stage 0 of the second."""
    trace = trace_of([(0.0, 100, 1), (0.001, 100, 1)])
    spec = replica("sarathi", options={"cap": 8, "chunk": 512}, stages=2, stage_share=1.0)
    result = run(trace, spec)
    step = TIME.iteration_s(0, 0, [(100, 0)])
    assert result.column("end_s")[0] == pytest.approx(2 * step, rel=1e-12)
    assert result.column("end_s")[1] == pytest.approx(3 * step, rel=1e-12)


def test_lightllm_waits_its_patience_between_prefills() -> None:
    """The second request arrives in decoding and joins only after `patience` decode iterations."""
    trace = trace_of([(0.0, 10, 100), (0.0072, 10, 5)])
    spec = replica("lightllm", options={"cap": 8, "patience": 10}, kv_blocks=10_000, block_tokens=1)
    result = run(trace, spec)
    prefill = TIME.iteration_s(0, 0, [(10, 0)])
    decode = sum(TIME.iteration_s(1, 11 + i, []) for i in range(10))
    assert result.column("scheduled_s")[1] == pytest.approx(prefill + decode, rel=1e-9)


def test_record_has_one_row_a_request() -> None:
    result = run(trace_of([(0.0, 5, 3)]), replica())
    assert array("l", result.column("output")) == array("l", [3])
    first = TIME.iteration_s(0, 0, [(5, 0)])
    assert result.ttft_s[0] == pytest.approx(first, rel=1e-12)
    assert result.e2e_s[0] == pytest.approx(first + sum(TIME.iteration_s(1, 6 + i, []) for i in range(2)), rel=1e-12)
