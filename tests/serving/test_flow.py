"""Short cuts of the engine change nothing: loops without events, iterations with one chunk, rows of tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.frontends.formats import Formats
from hwsim.serving.arrivals import generate
from hwsim.serving.engine_time import TabulatedTime, from_engine
from hwsim.serving.iteration_time import ClosedFormTime, ScaledTime
from hwsim.serving.record import Occupancy
from hwsim.serving.resolve import resolve
from hwsim.serving.traces import Trace
from tests.serving.helpers import TIME, replica, run, trace_of

ROWS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 200)), min_size=1, max_size=30)


def on_the_clock(cluster: Any) -> None:
    """As if something else could happen: every run of iterations is an event."""
    cluster.dynamic = True


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    policy=st.sampled_from(["vllm", "sarathi", "orca", "vllm_v1", "lightllm", "static"]),
    blocks=st.sampled_from([300, 6000]),
    replicas=st.sampled_from([(1, "round_robin"), (2, "round_robin"), (2, "least_outstanding"), (3, "slo_aware")]),
)
def test_loops_without_events_equal_the_clock_to_the_last_bit(
    rows: list[tuple[int, int, int]], policy: str, blocks: int, replicas: tuple[int, str]
) -> None:
    compare(trace_of([(t / 1000, p, o) for t, p, o in rows]), policy, blocks, *replicas)


@pytest.mark.parametrize("replicas", [(1, "round_robin"), (2, "least_outstanding")])
@pytest.mark.parametrize("policy", ["vllm", "sarathi", "orca", "vllm_v1"])
def test_the_same_under_load_with_prompts_of_many_chunks(policy: str, replicas: tuple[int, str]) -> None:
    trace = generate(6.0, 150, seed=4, prompt=("uniform", 1000.0), output=("uniform", 60.0))
    compare(trace, policy, 2000, *replicas)


def compare(trace: Trace, policy: str, blocks: int, count: int, router: str) -> None:
    """One loop against one event a run of iterations."""
    options = {"cap": 8} | ({"chunk": 128} if policy in ("sarathi", "vllm_v1") else {})
    size = 1 if policy == "lightllm" else 16
    reserve = 3200 if policy == "orca" else 0
    spec = replica(policy, kv_blocks=blocks * 16 // size, block_tokens=size, options=options, reserve_tokens=reserve)
    fast = run(trace, spec, count, router)
    slow = run(trace, spec, count, router, prepare=on_the_clock)
    for name in ("scheduled_s", "first_s", "end_s", "restarts", "replica"):
        assert np.array_equal(fast.column(name), slow.column(name), equal_nan=True), name
    assert [e.iterations for e in fast.cluster.everyone] == [e.iterations for e in slow.cluster.everyone]
    (gaps, weights), (expected, counts) = (r.cluster.record.gaps.weighted() for r in (fast, slow))
    assert weights.sum() == counts.sum() == sum(o - 1 for o in trace.output)
    assert (gaps * weights).sum() == pytest.approx((expected * counts).sum(), rel=1e-9)


def test_chunks_of_a_prompt_alone_are_one_iteration_each() -> None:
    """By hand: 1,000 tokens in chunks of 300 beside nothing, then nine decodes."""
    spec = replica("sarathi", options={"cap": 8, "chunk": 300})
    result = run(trace_of([(0.5, 1000, 10)]), spec)
    sizes = [(300, 0), (300, 300), (300, 600), (100, 900)]
    prefill = sum(TIME.iteration_s(0, 0, [size]) for size in sizes)
    decode = sum(TIME.iteration_s(1, 1001 + i, []) for i in range(9))
    assert result.ttft_s[0] == pytest.approx(prefill, rel=1e-12)
    assert result.e2e_s[0] == pytest.approx(prefill + decode, rel=1e-12)
    assert result.cluster.everyone[0].iterations == 13


@pytest.fixture(scope="module")
def tables() -> TabulatedTime:
    model, platform, scenario, _ = resolve("llama-3.2-1b", "h100", {"efficiency": "datasheet"})
    formats = Formats.of(scenario.weights, None, None)
    return from_engine(model, platform, scenario, formats, max_batch=32, max_tokens=2048, max_context=8192).time


@settings(max_examples=100)
@given(decodes=st.integers(0, 300), mean=st.integers(1, 20000), tokens=st.integers(1, 9000), past=st.integers(0, 30000))
def test_one_chunk_costs_what_a_list_of_one_costs(
    tables: TabulatedTime, decodes: int, mean: int, tokens: int, past: int
) -> None:
    closed = ClosedFormTime(0.001, 0.006, 2.7e-5, 4.9e-8, 1.3e-9)
    for time in (closed, ScaledTime(closed, 1e-4, 1e-6, 0.7), tables, ScaledTime(tables, 1e-4)):
        several = time.iteration_s(decodes, decodes * mean, [(tokens, past)])
        assert time.chunk_s(decodes, decodes * mean, tokens, past) == several > 0


def test_samples_of_a_long_run_start_at_the_stride_that_thinning_ends_at() -> None:
    samples = Occupancy()
    samples.expect(1000.0)
    assert samples.stride_s == pytest.approx(0.8)
    short = Occupancy()
    short.expect(10.0)
    assert short.stride_s == pytest.approx(0.1)
