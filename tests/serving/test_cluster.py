"""Clusters: routers, pools, failures, scaling, migration, sessions; nothing lost, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from hwsim.errors import InfeasibleError, InputError, UnknownNameError
from hwsim.serving.arrivals import generate
from hwsim.serving.capacity import search_capacity
from hwsim.serving.clock import Clock
from hwsim.serving.control import Autoscale, Failures, Migration, QueueLimit, RejectImpossible
from hwsim.serving.disaggregate import Disaggregation
from hwsim.serving.partition import Partition, halves
from hwsim.serving.prefix import PrefixCache, Tier
from hwsim.serving.sessions import Applications, Call, closed_loop, serve
from hwsim.serving.simulate import document, simulate
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from hwsim.serving.traces import Trace
from hwsim.serving.transfer import SharedLink
from tests.serving.helpers import TIME, replica, run, trace_of

LEVEL = ServiceLevel(1.0, 0.05)
TRACE = generate(20.0, 400, seed=3, process="bursty", prompt=("uniform", 500.0), output=("uniform", 120.0))


@pytest.mark.parametrize("policy", ["vllm", "sarathi"])
def test_failed_replicas_lose_no_request(policy: str) -> None:
    outages = Failures([(0, 3.0, 9.0), (1, 6.0, None), (2, 7.01, 15.0)])
    spec = ClusterSpec([replica(policy, kv_blocks=2000)] * 3, "least_outstanding")
    result = simulate(TRACE, spec, LEVEL, prepare=outages.prepare)
    assert result.counts()["finished"] == len(TRACE)
    assert result.counts()["restarts"] > 0
    assert result.cluster.record.gaps.weighted()[1].sum() == pytest.approx(sum(o - 1 for o in TRACE.output))


def test_no_replica_left_is_an_error() -> None:
    with pytest.raises(InfeasibleError, match="wait for a replica"):
        simulate(TRACE, ClusterSpec([replica()]), prepare=Failures([(0, 3.0, None)]).prepare)


def test_disaggregated_pools_decode_elsewhere_and_pay_the_transfer() -> None:
    trace = trace_of([(0.0, 1000, 10)])
    pools = Disaggregation(1, kv_bytes_per_token=1e5, bandwidth_bytes_per_s=1e9, latency_s=0.0)
    result = simulate(trace, ClusterSpec([replica()] * 2), prepare=pools.prepare)
    prefill = TIME.iteration_s(0, 0, [(1000, 0)])
    decode = sum(TIME.iteration_s(1, 1001 + i, []) for i in range(9))
    assert result.ttft_s[0] == pytest.approx(prefill, rel=1e-12)
    assert result.e2e_s[0] == pytest.approx(prefill + 1000 * 1e5 / 1e9 + decode, rel=1e-9)
    assert result.column("replica")[0] == 1


def test_shared_link_gives_each_transfer_its_part() -> None:
    clock, ends = Clock(), {}
    link = SharedLink(clock, 10.0)
    link.send(10.0, lambda t: ends.setdefault("a", t))
    clock.at(0.5, lambda _: link.send(10.0, lambda t: ends.setdefault("b", t)))
    clock.run()
    assert ends == {"a": pytest.approx(1.5), "b": pytest.approx(2.0)}


def test_migration_moves_requests_and_autoscaling_adds_replicas() -> None:
    # long outputs all land on replica 0, which round robin cannot see
    rows = [(0.02 * i, 200, 600 if i % 2 == 0 else 2) for i in range(60)]
    spec = ClusterSpec([replica(kv_blocks=2500)] * 2)
    mover = Migration(gap=0.1, period_s=0.2)
    moved = simulate(trace_of(rows), spec, prepare=mover.prepare)
    assert mover.moved > 0
    assert moved.counts()["finished"] == 60
    assert len(set(moved.column("replica")[::2])) == 2
    scaler = Autoscale(replica(kv_blocks=2000), most=4, high=5.0, startup_s=1.0, period_s=0.5)
    grown = simulate(TRACE, ClusterSpec([replica(kv_blocks=2000)]), prepare=scaler.prepare)
    assert 1 < len(grown.cluster.everyone) <= 4
    assert grown.counts()["finished"] == len(TRACE)


def test_admission_control_counts_rejections() -> None:
    result = simulate(TRACE, ClusterSpec([replica()]), LEVEL, prepare=QueueLimit(5).prepare)
    counts = result.counts()
    assert counts["rejected"] > 0
    assert counts["finished"] + counts["rejected"] == len(TRACE)
    assert result.attainment <= counts["finished"] / len(TRACE)
    tiny = simulate(
        trace_of([(0, 10, 5), (0.1, 9999, 5)]), ClusterSpec([replica(kv_blocks=50)]), prepare=RejectImpossible().prepare
    )
    assert tiny.counts()["rejected"] == 1


def test_closed_loop_and_applications_run_to_the_end() -> None:
    result = serve(closed_loop(10, 4, 0.5, prompt=200, output=50), ClusterSpec([replica()]))
    assert result.counts()["finished"] == 40
    calls = [Call("a", 100, 5), Call("b", 50, 5, ("a",), 0.25), Call("c", 60, 5, ("a",)), Call("d", 10, 2, ("b", "c"))]
    source = Applications(calls, [0.0, 10.0])
    result = serve(source, ClusterSpec([replica()]))
    assert result.counts()["finished"] == 8
    lonely = [end - start for end, start in zip(source.ends_s, source.starts_s, strict=True)]
    assert lonely[0] == pytest.approx(lonely[1], rel=1e-9)
    assert lonely[0] > 0.25
    with pytest.raises(InputError, match="wait for each other"):
        serve(Applications([Call("a", 1, 1, ("b",)), Call("b", 1, 1, ("a",))], [0.0]), ClusterSpec([replica()]))


def test_prefix_cache_moves_blocks_down_and_counts_hits() -> None:
    cache = PrefixCache(16, [Tier("hbm", 2), Tier("ddr", 2, 1600.0)])
    cache.insert([1, 2, 3])
    assert cache.peek([1, 2, 3, 9]) == 48
    assert cache.match([1, 2, 3], 100) == (48, pytest.approx(0.01))
    cache.insert([4, 5])
    assert cache.check()
    assert cache.peek([7]) == 0
    assert cache.match([4], 16)[0] == 15


def test_prefix_hits_shorten_the_prefill() -> None:
    trace = trace_of([(0.0, 1024, 2), (1.0, 1024, 2)])
    trace.prefixes = [(1, 2), (1, 3)]
    spec = replica("sarathi", options={"cap": 8, "chunk": 2048}, prefix_tiers=(Tier("hbm", 10),))
    result = run(trace, spec)
    assert result.ttft_s[0] == pytest.approx(TIME.iteration_s(0, 0, [(1024, 0)]), rel=1e-9)
    assert result.ttft_s[1] == pytest.approx(TIME.iteration_s(0, 0, [(512, 512)]), rel=1e-9)


def test_partition_controller_moves_the_border_and_loses_nothing() -> None:
    border = Partition(0.5, level=ServiceLevel(0.2, 0.05), period_s=0.2)
    result = simulate(TRACE, ClusterSpec(halves(replica(kv_blocks=8000))), prepare=border.prepare)
    assert result.counts()["finished"] == len(TRACE)
    assert border.moves > 0


def test_shortest_job_first_lowers_the_mean_and_priorities_are_kept() -> None:
    trace = generate(40.0, 300, seed=5, prompt=("uniform", 300.0), output=("exponential", 200.0))
    means = {q: run(trace, replica("vllm", queue=q, options={"cap": 8})).e2e_s.mean() for q in ("fcfs", "sjf")}
    assert means["sjf"] < means["fcfs"]
    urgent = trace_of([(0.0, 100, 50)] * 20)
    urgent.priorities = urgent.prompt[:0]
    urgent.priorities.extend([0] * 19 + [9])
    result = run(urgent, replica("vllm", queue="priority", options={"cap": 4}))
    assert result.ttft_s[19] == result.ttft_s.min()


def test_capacity_is_bracketed_by_a_rate_that_fails() -> None:
    spec = ClusterSpec([replica("sarathi")])
    found = search_capacity(TRACE, spec, LEVEL, tolerance=0.05)
    assert simulate(TRACE.at_rate(found.rate_per_s), spec, LEVEL).attainment >= 0.9
    assert simulate(TRACE.at_rate(found.failed_rate_per_s), spec, LEVEL).attainment < 0.9
    with pytest.raises(InfeasibleError, match="nearly idle"):
        search_capacity(TRACE, spec, ServiceLevel(1e-6))


@pytest.mark.parametrize("factor", [0.01, 0.7, 1.0, 1.3, 50.0])
def test_capacity_does_not_depend_on_where_the_search_begins(factor: float) -> None:
    spec = ClusterSpec([replica("sarathi")])
    plain = search_capacity(TRACE, spec, LEVEL, tolerance=0.05)
    guessed = search_capacity(TRACE, spec, LEVEL, tolerance=0.05, start_per_s=factor * plain.rate_per_s)
    assert (guessed.rate_per_s, guessed.failed_rate_per_s) == (plain.rate_per_s, plain.failed_rate_per_s)
    assert plain.failed_rate_per_s == pytest.approx(1.05 * plain.rate_per_s)
    assert guessed.result.metrics() == plain.result.metrics()
    assert guessed.result.metrics() == simulate(TRACE.at_rate(plain.rate_per_s), spec, LEVEL).metrics()
    if 0.9 < factor < 1.1:
        assert guessed.runs <= 6 and guessed.runs < plain.runs


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="sarathi"):
        run(TRACE, replica("saratih"))
    with pytest.raises(UnknownNameError, match="round_robin"):
        run(TRACE, replica(), router="roundrobin")


def test_heterogeneous_replicas_share_by_speed() -> None:
    from hwsim.serving.iteration_time import ScaledTime

    fast, slow = replica(), replica().with_(time=ScaledTime(TIME, share=0.2))
    result = simulate(TRACE, ClusterSpec([fast, slow], "least_outstanding"))
    assert (result.column("replica") == 0).sum() > (result.column("replica") == 1).sum()


_SCRIPT = """
import json, hashlib
from tests.serving.test_cluster import digest
print(digest())
"""


def digest() -> str:
    spec = ClusterSpec([replica("sarathi", kv_blocks=900)] * 3, "random", {"seed": 5})
    text = json.dumps(document(simulate(TRACE, spec, LEVEL)), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_equal_seeds_give_equal_bytes_in_other_processes() -> None:
    found = {digest()}
    for seed in ("0", "4711"):
        command = [sys.executable, "-c", _SCRIPT]
        out = subprocess.run(
            command, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True
        )
        assert out.returncode == 0, out.stderr.decode()
        found.add(out.stdout.decode().strip())
    assert len(found) == 1


def test_common_random_numbers_keep_lengths_across_rates() -> None:
    slow, fast = generate(1.0, 100, seed=4), generate(10.0, 100, seed=4)
    assert slow.prompt == fast.prompt
    assert np.allclose(np.asarray(slow.arrival_s), 10 * np.asarray(fast.arrival_s))


def mixed_trace(count: int = 120) -> Trace:
    trace = generate(6.0, count, seed=8)
    trace.models = ["large" if i % 3 else "small" for i in range(count)]
    return trace


@pytest.mark.parametrize("router", ["round_robin", "least_outstanding"])
def test_requests_of_several_models_never_meet(router: str) -> None:
    """Each model's requests fare exactly as if the other model's replicas were not there."""
    trace = mixed_trace()
    specs = [replica(model="small"), replica(model="large"), replica(model="large")]
    both = simulate(trace, ClusterSpec(specs, router))
    for name, mine in (("small", specs[:1]), ("large", specs[1:])):
        rows = [i for i, model in enumerate(trace.models or []) if model == name]
        alone = simulate(rows_of(trace, rows), ClusterSpec([s.with_(model="") for s in mine], router))
        assert np.allclose(both.column("end_s")[rows], alone.column("end_s"), rtol=0, atol=1e-9)


def rows_of(trace: Trace, rows: list[int]) -> Trace:
    columns = [type(c)(c.typecode, [c[i] for i in rows]) for c in (trace.arrival_s, trace.prompt, trace.output)]
    return Trace("part", *columns)


def test_a_model_that_nobody_serves_is_named() -> None:
    spec = ClusterSpec([replica(model="small"), replica(model="large")])
    trace = mixed_trace()
    trace.models = [*(trace.models or [])[:-1], "lage"]
    with pytest.raises(UnknownNameError, match="large"):
        simulate(trace, spec)
    with pytest.raises(InputError, match="several models"):
        simulate(generate(6.0, 20, seed=8), spec)


def test_a_model_whose_only_replica_fails_waits_for_it() -> None:
    trace = mixed_trace()
    spec = ClusterSpec([replica(model="small"), replica(model="large")])
    result = simulate(trace, spec, prepare=Failures([(0, 3.0, 9.0)]).prepare)
    assert result.counts()["finished"] == len(trace)
    small = [i for i, model in enumerate(trace.models or []) if model == "small"]
    during = [i for i in small if 3.0 < trace.arrival_s[i] < 9.0]
    assert during
    assert (result.column("first_s")[during] > 9.0).all()
