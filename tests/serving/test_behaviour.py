"""Orderings that published systems report, on the same requests: only the policy differs."""

from __future__ import annotations

import pytest

from hwsim.serving.arrivals import generate
from hwsim.serving.capacity import search_capacity
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from tests.serving.helpers import replica, run

TRACE = generate(9.0, 800, seed=6, prompt=("lognormal", 1200.0), output=("lognormal", 200.0)).clipped(8000)


def metrics(policy: str, **options: int) -> dict[str, dict[str, float]]:
    reserve = 8192 if policy in ("orca", "static") else 0
    spec = replica(policy, kv_blocks=40_000, options={"cap": 64} | options, reserve_tokens=reserve)
    return run(TRACE, spec).metrics()


def test_chunked_prefill_trades_first_token_for_steady_tokens() -> None:
    """Sarathi-Serve (OSDI 2024): no generation stalls, at a later first token than prefill-first vLLM."""
    vllm, sarathi = metrics("vllm", max_tokens=8192), metrics("sarathi", chunk=512)
    assert sarathi["itl_s_p99"]["value"] < 0.5 * vllm["itl_s_p99"]["value"]
    assert sarathi["ttft_s_p50"]["value"] > vllm["ttft_s_p50"]["value"]


def test_larger_chunks_raise_the_gap_and_lower_the_first_token() -> None:
    small, large = metrics("sarathi", chunk=256), metrics("sarathi", chunk=2048)
    assert small["itl_s_p99"]["value"] < large["itl_s_p99"]["value"]
    assert small["ttft_s_p50"]["value"] > large["ttft_s_p50"]["value"]


def test_iteration_level_batching_sustains_more_than_static_batches() -> None:
    """Orca (OSDI 2022): requests join and leave each iteration instead of waiting for the longest of a batch."""
    level = ServiceLevel(ttft_s=2.0)
    spec = {p: replica(p, kv_blocks=16_384, options={"cap": 32}, reserve_tokens=8192) for p in ("orca", "static")}
    found = {p: search_capacity(TRACE, ClusterSpec([s]), level, tolerance=0.05).rate_per_s for p, s in spec.items()}
    assert found["orca"] > 2 * found["static"]


def test_paging_serves_more_than_reserving_in_the_same_memory() -> None:
    """vLLM (SOSP 2023) against reservations of the longest sequence: 2-4x the request rate."""
    level = ServiceLevel(ttft_s=2.0)
    paged = replica("vllm", kv_blocks=4096, options={"cap": 64, "max_tokens": 8192})
    reserved = replica("orca", kv_blocks=4096, options={"cap": 64}, reserve_tokens=8192)
    rates = [search_capacity(TRACE, ClusterSpec([s]), level, tolerance=0.05).rate_per_s for s in (paged, reserved)]
    assert rates[0] > 1.5 * rates[1]


@pytest.mark.parametrize("router", ["least_outstanding", "slo_aware"])
def test_routers_that_see_load_cut_the_tail_of_round_robin(router: str) -> None:
    trace = TRACE.at_rate(22.0)
    spec = replica("vllm", kv_blocks=2000, options={"cap": 32, "max_tokens": 8192})
    tails = [run(trace, spec, 3, r).metrics()["ttft_s_p99"]["value"] for r in ("round_robin", router)]
    assert tails[1] < tails[0]
