"""Laws of the serving simulator: Lindley, Little, conservation at every event, exact arithmetic of jumps and blocks."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import InfeasibleError
from hwsim.serving.arrivals import generate, stream
from hwsim.serving.cluster import TraceSource
from hwsim.serving.iteration_time import ClosedFormTime, elapsed_s, iterations_until
from hwsim.serving.kv import BlockPool
from hwsim.serving.replica import Replica
from hwsim.serving.request import Request
from hwsim.serving.simulate import load_trace, simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.traces import Trace
from tests.serving.helpers import replica, run, trace_of


def fifo(arrival: np.ndarray, service: np.ndarray, servers: int = 1) -> Trace:
    """A FIFO station: one request a server, its service time in whole microseconds as prompt tokens."""
    return Trace("fifo", array("d", arrival), array("l", service.tolist()), array("l", [1] * len(service)))


def station(servers: int = 1) -> ClusterSpec:
    spec = ReplicaSpec(ClosedFormTime(0, 0, 1e-6, 0, 0), "orca", {"cap": 1}, 1 << 40, 1, 0.0)
    return ClusterSpec([spec] * servers, "central" if servers > 1 else "round_robin")


def test_lindley_recursion_over_1e5_customers() -> None:
    draw = stream(7, 9)
    arrival = np.cumsum(draw.exponential(1.0, 100_000))
    service = np.maximum(1, np.round(draw.exponential(0.8e6, 100_000))).astype(np.int64)
    result = simulate(fifo(arrival, service), station())
    waits = np.zeros(len(arrival))
    seconds, gaps = service * 1e-6, np.diff(arrival)
    for i in range(1, len(arrival)):
        waits[i] = max(0.0, waits[i - 1] + seconds[i - 1] - gaps[i - 1])
    assert np.abs(result.column("scheduled_s") - arrival - waits).max() < 1e-6


@given(first=st.floats(1e-4, 1), step=st.floats(0, 1e-3), time=st.floats(1e-6, 50))
def test_boundary_of_an_arrival_is_the_first_not_before_it(first: float, step: float, time: float) -> None:
    count = iterations_until(first, step, time)
    assert elapsed_s(first, step, count) >= time
    assert count == 1 or elapsed_s(first, step, count - 1) < time


@given(
    size=st.integers(1, 32),
    joins=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 200), st.integers(2, 100)), max_size=8),
)
def test_block_count_equals_a_walk_over_the_requests(size: int, joins: list[tuple[int, int, int]]) -> None:
    pool = BlockPool(10_000, size, 0.0)
    passed, members = 0, []
    for index, (gap, prompt, output) in enumerate(joins):
        passed += gap
        request = Request(index, 0.0, prompt, output)
        pool.admit(request)
        pool.join(request, passed)
        members.append((request, passed))
    for later in range(40):
        at = passed + later
        assert pool.used(at) == sum(-(-(r.prompt + at - joined) // size) for r, joined in members)
    wanted = 30
    total = pool.total = pool.used(passed) + 3
    safe = pool.safe_iterations(passed, wanted)
    brute = next((k for k in range(wanted) if pool.used(passed + k + 1) > total - 1), wanted)
    assert safe == brute or pool.committed < total


def conserved(cluster: Any) -> None:
    """LAW-7 now: requests, KV blocks, and the counters that stand for lists."""
    ended = int(np.isfinite(cluster.record.column("end_s")).sum())
    assert cluster.arrived == ended + cluster.in_system
    assert cluster.in_system == sum(r.in_system for r in cluster.replicas)
    for engine in cluster.replicas:
        assert 0 <= engine.kv_used <= engine.kv.total
        decoded = engine.decodes * engine.ended()
        assert engine.context + decoded == sum(engine.processed(r) for r in engine._order.values())
        assert engine.decodes == len(engine._order)


@pytest.mark.parametrize("clocked", [True, False])
def test_conservation_of_requests_and_blocks_at_every_event(clocked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the clock, and where replicas catch up at arrivals: there at every boundary, under all replicas' eyes."""
    trace = generate(12.0, 300, seed=2, prompt=("uniform", 300.0), output=("uniform", 150.0))
    spec = ClusterSpec([replica("sarathi", kv_blocks=220, options={"cap": 32, "chunk": 256})] * 2, "least_outstanding")
    cluster = spec.build(len(trace))
    load_trace(cluster, trace)
    cluster.dynamic = clocked
    events = 0
    advance = Replica._advance

    def watched(self: Replica, now_s: float) -> None:
        nonlocal events
        advance(self, now_s)
        events += 1
        conserved(cluster)

    if not clocked:
        monkeypatch.setattr(Replica, "_advance", watched)
    TraceSource(trace.arrival_s, trace.prompt, trace.output).start(cluster)
    while cluster.clock._queue:
        cluster.clock.step()
        events += 1
        conserved(cluster)
    cluster.verify()
    assert events > 300
    assert cluster.record.column("restarts").sum() > 0


def test_gap_weights_count_every_token_after_the_first() -> None:
    trace = generate(20.0, 500, seed=1)
    for policy in ("vllm", "sarathi"):
        result = run(trace, replica(policy, kv_blocks=3000))
        weights = result.cluster.record.gaps.weighted()[1]
        assert weights.sum() == pytest.approx(sum(o - 1 for o in trace.output))


def test_impossible_request_is_named() -> None:
    with pytest.raises(InfeasibleError, match="request 1 "):
        run(trace_of([(0.0, 10, 5), (0.1, 99_999, 5)]), replica(kv_blocks=100))


def test_request_that_no_policy_can_admit_is_an_error_not_a_hang() -> None:
    spec = replica("sarathi", kv_blocks=1000, options={"cap": 0, "chunk": 64})
    with pytest.raises(InfeasibleError, match="waits at an idle replica"):
        run(trace_of([(0.0, 10, 5)]), spec)


@pytest.mark.long
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["mm1", "md1", "mm3", "ps"])
def test_queueing_theory(kind: str, load: float) -> None:
    """Mean sojourn or wait within three half-widths (batch means) of the exact formula."""
    count = 200_000
    draw = stream(11, 3)
    servers = 3 if kind == "mm3" else 1
    arrival = np.cumsum(draw.exponential(1.0, count))
    mean = load * servers
    service = np.full(count, mean) if kind == "md1" else draw.exponential(mean, count)
    if kind == "ps":
        tokens = np.maximum(2, np.round(service / mean * 2000)).astype(np.int64)
        spec = ReplicaSpec(ClosedFormTime(0, 0, mean / 2000, 0, 0), "orca", {"cap": 1 << 30}, 1 << 40, 1, 0.0)
        trace = Trace("ps", array("d", arrival), array("l", [1] * count), array("l", tokens.tolist()))
        result, values = simulate(trace, ClusterSpec([spec])), None
        theory = mean / (1 - load)
        values = result.e2e_s
    else:
        whole = np.maximum(1, np.round(service * 1e6)).astype(np.int64)
        result = simulate(fifo(arrival, whole), station(servers))
        values = result.column("scheduled_s") - arrival
        theory = {
            "mm1": load * mean / (1 - load),
            "md1": load * mean / (2 * (1 - load)),
            "mm3": erlang_c(3, mean) * mean / (3 * (1 - load)),
        }[kind]
    batches = values.reshape(20, -1).mean(axis=1)
    half = 2.093 * batches.std(ddof=1) / np.sqrt(20)
    assert abs(values.mean() - theory) <= 3 * half + 1e-3 * theory


def erlang_c(servers: int, offered: float) -> float:
    """Probability of waiting in M/M/c."""
    blocking = 1.0
    for k in range(1, servers + 1):
        blocking = offered * blocking / (k + offered * blocking)
    return blocking / (1 - offered / servers * (1 - blocking))
