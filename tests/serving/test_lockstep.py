"""Data-parallel ranks whose experts are shared: steps together, as long as the slowest, dummies where idle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.errors import HwsimError, InputError
from hwsim.serving.arrivals import generate
from hwsim.serving.clock import Clock
from hwsim.serving.cluster import Cluster, TraceSource
from hwsim.serving.control import Migration
from hwsim.serving.kv import BlockPool
from hwsim.serving.lockstep import LockStep, Rank
from hwsim.serving.record import Record
from hwsim.serving.routers import make_router
from hwsim.serving.simulate import load_trace, simulate
from hwsim.serving.spec import ClusterSpec
from hwsim.serving.staged import make_staged_policy
from tests.serving.helpers import TIME, replica, run, trace_of

TRACE = generate(20.0, 150, seed=3, process="bursty", prompt=("uniform", 500.0), output=("uniform", 120.0))
ROWS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 900), st.integers(1, 120)), min_size=1, max_size=30)


def alone(trace: Any, policy: str, blocks: int) -> Cluster:
    """A group of one rank."""
    clock = Clock()
    cluster = Cluster(clock, make_router("round_robin"), Record(len(trace)))
    load_trace(cluster, trace)
    rank = Rank(clock, TIME, make_staged_policy(policy, cap=16), BlockPool(blocks), cluster, 1)
    LockStep(clock, [rank])
    cluster.add(rank)
    cluster.run(TraceSource(trace.arrival_s, trace.prompt, trace.output))
    return cluster


@settings(max_examples=30)
@given(rows=ROWS, policy=st.sampled_from(["vllm", "sarathi"]), blocks=st.sampled_from([100, 2000]))
def test_one_rank_is_a_plain_replica(rows: list[tuple[int, int, int]], policy: str, blocks: int) -> None:
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    plain = run(trace, replica(policy, kv_blocks=blocks, options={"cap": 16}))
    group = alone(trace, policy, blocks)
    for column in ("scheduled_s", "first_s", "end_s"):
        assert np.abs(plain.column(column) - group.record.column(column)).max() < 1e-9
    assert (plain.column("restarts") == group.record.column("restarts")).all()


def test_a_decoding_rank_waits_for_the_prompt_of_another_by_hand() -> None:
    """Rank 0 decodes from 0 on; rank 1 gets a long prompt in its second step and takes part in the third."""
    first = TIME.iteration_s(0, 0, [(100, 0)])
    step = TIME.iteration_s(1, 101, [])
    result = run(trace_of([(0.0, 100, 4), (first + step / 2, 2000, 2)]), replica("vllm", ranks=2))
    long = TIME.iteration_s(0, 0, [(2000, 0)])
    both = max(TIME.iteration_s(1, 103, []), TIME.iteration_s(1, 2001, []))
    assert result.column("first_s")[1] == pytest.approx(first + step + long, rel=1e-12)
    assert result.column("end_s").tolist() == pytest.approx([first + step + long + both] * 2, rel=1e-12)
    ranks = result.cluster.everyone
    assert [rank.dummies for rank in ranks] == [0, 2]
    assert ranks[0].busy_s == ranks[1].busy_s == pytest.approx(result.makespan_s, rel=1e-12)


@settings(max_examples=20)
@given(rows=ROWS, ranks=st.integers(2, 4), policy=st.sampled_from(["sarathi", "vllm_v1", "lightllm"]))
def test_no_rank_is_ahead_of_another_and_nothing_is_lost(
    rows: list[tuple[int, int, int]], ranks: int, policy: str
) -> None:
    trace = trace_of([(t / 1000, p, o) for t, p, o in rows])
    spec = replica(policy, options={"cap": 16}, block_tokens=1 if policy == "lightllm" else 16, kv_blocks=20000)
    together = run(trace, spec.with_(ranks=ranks), 1)
    assert together.counts()["finished"] == len(rows)
    engines = together.cluster.everyone
    assert len({rank.iterations + rank.dummies for rank in engines}) == 1  # all take part in every step
    assert len({round(rank.busy_s, 9) for rank in engines}) == 1


@settings(max_examples=20)
@given(rows=ROWS, ranks=st.integers(2, 4), policy=st.sampled_from(["sarathi", "lightllm"]))
def test_waiting_for_the_slowest_gains_nothing(rows: list[tuple[int, int, int]], ranks: int, policy: str) -> None:
    """Where all requests are there at once, batches do not depend on the clock. (Later arrivals may find a fuller
    batch by waiting for the slowest, and so end earlier than on ranks of their own.)"""
    trace = trace_of([(0.0, p, o) for _, p, o in rows])
    spec = replica(policy, options={"cap": 16}, block_tokens=1 if policy == "lightllm" else 16, kv_blocks=20000)
    together, apart = run(trace, spec.with_(ranks=ranks), 1), run(trace, spec, ranks)
    assert together.makespan_s >= apart.makespan_s - 1e-9


def test_several_groups_migration_and_memory() -> None:
    mover = Migration(gap=0.01, period_s=0.1)
    spec = replica("sarathi", kv_blocks=300, options={"cap": 16}, ranks=2)
    result = simulate(TRACE, ClusterSpec([spec, spec], "least_outstanding"), prepare=mover.prepare)
    assert result.counts()["finished"] == len(TRACE)
    assert mover.moved > 0
    assert len(result.cluster.everyone) == 4
    with pytest.raises(InputError, match="one pipeline stage"):
        run(TRACE, spec.with_(stages=2))


COMMON: dict[str, Any] = {"requests": 30, "rate": 8.0, "prompt": 200, "output": 20, "efficiency": "datasheet"}


def test_experts_over_all_ranks_from_the_front_door() -> None:
    """The ranks hold one copy of the experts together, so that a model fits that no rank could hold alone."""
    run_ = hwsim.simulate("qwen3-30b-a3b", "a100-sxm4-40gb", dp=4, **COMMON).to_dict()
    assert run_["counts"]["finished"] == 30
    assert run_["hardware"]["devices"] == 4
    assert run_["parallel"] == {"tp": 1, "pp": 1, "dp": 4}
    assert len(run_["replicas"]) == 4
    with pytest.raises(HwsimError):
        hwsim.simulate("qwen3-30b-a3b", "a100-sxm4-40gb", replicas=4, **COMMON)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("llama-2-7b", {"dp": 2}, "experts"),
        ("qwen3-30b-a3b", {"dp": 2, "failures": "0:1s"}, "without the others"),
        ("qwen3-30b-a3b", {"dp": 0}, "from 1 to"),
        ("qwen3-30b-a3b", {"dp": 2, "pp": 2}, "pipeline"),
    ],
)
def test_what_ranks_cannot_do_is_named(model: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate(model, "a100-sxm4-80gb", **COMMON, **options)
    assert words in caught.value.render()
