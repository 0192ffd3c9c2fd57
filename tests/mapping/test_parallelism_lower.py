"""Sequence parallelism, data-parallel replicas, wide expert groups and stages across nodes, as tasks and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.cost.collectives import wire_bytes
from hwsim.errors import InfeasibleError
from hwsim.mapping.parallelism.experts import distinct_ranks
from hwsim.mapping.parallelism.topology import crossings, tiles_node
from hwsim.schema.loader import load_hardware

CLUSTER = "dgx-h100-x4"


def run(model: str, **scenario: Any) -> Any:
    base = {"prompt": 512, "output": 32, "batch": 16, "check_fit": False}
    return hwsim.evaluate(model, CLUSTER, **{**base, **scenario})


def tasks(result: Any, phase: int = 0) -> dict[str, Any]:
    return {i.task.name: i for i in result.estimate.phases[phase].timeline.intervals}


def ring_bytes(result: Any, phase: int, ops: tuple[str, ...]) -> float:
    found = [i.task for i in result.estimate.phases[phase].timeline.intervals if i.task.operator.op in ops]
    dims = [(t.operator.op, t.operator.dims["bytes"], t.operator.dims["ranks"], t.count) for t in found]
    return float(sum(wire_bytes(op, size, ranks) * count for op, size, ranks, count in dims))


@pytest.mark.parametrize("model", ["llama-3.1-70b", "mixtral-8x7b", "gemma-2-9b", "llama-3.1-8b", "qwen2.5-72b"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_sequence_parallelism_moves_the_same_bytes_on_a_ring(model: str, tp: int) -> None:
    """An all-reduce is a reduce-scatter and an all-gather (one gather for all readers of a tensor)."""
    plain, rows = run(model, tp=tp, weights="bf16"), run(model, tp=tp, sp=True, weights="bf16")
    reduces, pairs = ("all_reduce",), ("reduce_scatter", "all_gather")
    spread = [i for n, i in tasks(plain).items() if "lm_head.all_gather" in n]
    logits = sum(wire_bytes("all_gather", i.task.operator.dims["bytes"], tp) for i in spread)
    head = [i for n, i in tasks(rows).items() if n.startswith("head.norm") and "all_gather" in n]
    before_head = sum(wire_bytes("all_gather", i.task.operator.dims["bytes"], tp) for i in head)
    one_reduce = [i.task.operator for n, i in tasks(plain).items() if n.endswith("embed.tokens.all_reduce")]
    embed = sum(wire_bytes("reduce_scatter", o.dims["bytes"], tp) for o in one_reduce)
    # the gather of the first norm closes the pair that the embedding opened; the last pair ends in the head
    whole = ring_bytes(plain, 0, reduces)
    split = ring_bytes(rows, 0, pairs) - logits - before_head
    assert split == pytest.approx(whole - embed, rel=1e-12, abs=1e-6)


def test_norms_take_a_share_of_the_rows_and_multiplies_do_not_change() -> None:
    plain, rows = tasks(run("llama-3.1-70b", tp=8)), tasks(run("llama-3.1-70b", tp=8, sp=True))
    for name in ("block.norm1", "block.norm2", "head.norm"):
        assert rows[name].task.operator.dims["rows"] * 8 == plain[name].task.operator.dims["rows"]
        assert rows[name].cost.time_s < plain[name].cost.time_s
    for name in ("block.qkv", "block.attention", "block.down", "block.silu_mul"):
        assert rows[name].cost.time_s == plain[name].cost.time_s
    moved = [t["block.norm1"].task.operator.moved_bytes("activation") for t in (rows, plain)]
    assert moved[0] * 8 == moved[1]


def test_sequence_parallelism_of_one_rank_changes_nothing() -> None:
    one, two = run("llama-3.1-8b"), run("llama-3.1-8b", sp=True)
    assert {n: i.cost.time_s for n, i in tasks(one).items()} == {n: i.cost.time_s for n, i in tasks(two).items()}


def test_gathers_wait_for_what_they_gather_and_readers_wait_for_them() -> None:
    by_name = tasks(run("mixtral-8x7b", tp=4, sp=True))
    assert by_name["block.norm2.out.all_gather"].task.depends == ("block.norm2",)
    for reader in ("block.router", "block.moe"):
        assert "block.norm2.out.all_gather" in by_name[reader].task.depends
    assert by_name["block.norm2"].task.depends == ("block.norm1", "block.o_proj.reduce_scatter")


@pytest.mark.parametrize("options", [{}, {"tp": 4}, {"tp": 2, "pp": 2}, {"tp": 4, "sp": True}])
def test_replicas_are_copies(options: dict[str, Any]) -> None:
    """dp replicas of batch b: times of one replica, tokens, energy and bill times dp (LAW: linear in replicas)."""
    one = run("llama-3.1-8b", batch=8, **options)
    four = run("llama-3.1-8b", batch=32, dp=4, **options)
    for name in ("ttft_s", "tpot_s", "latency_s", "energy_j_per_token", "cost_usd_per_mtok", "mfu", "mbu"):
        assert getattr(four, name) == pytest.approx(getattr(one, name), rel=1e-12), name
    assert four.throughput_tokens_per_s == pytest.approx(4 * one.throughput_tokens_per_s, rel=1e-12)
    assert four.document["memory"]["kv_cache_bytes"] == one.document["memory"]["kv_cache_bytes"]
    assert four.document["hardware"]["devices"] == 4 * one.document["hardware"]["devices"]


def test_replicas_need_devices() -> None:
    with pytest.raises(InfeasibleError, match="needs 64 devices"):
        run("llama-3.1-8b", tp=8, dp=8)


def test_wide_experts_hold_their_share_and_exchange_tokens() -> None:
    result = run("deepseek-v3", dp=32, ep=32, batch=64, weights="fp8_blk")
    found = tasks(result, phase=1)
    moe = found["block_moe.moe"].task.operator
    weights = sum(t.elements for t in moe.weights)
    assert weights == pytest.approx(256 / 32 * 3 * 7168 * 2048, rel=1e-12)
    assert moe.dims["tokens"] == 2 * 32
    hidden = 7168 * 2  # combine returns 16-bit sums
    visited = distinct_ranks(256, 8, 32)
    assert found["block_moe.moe.combine"].task.operator.dims["bytes"] == pytest.approx(2 * hidden * visited)
    assert not [n for n in found if n.startswith("block_moe.moe.all_reduce")]


def test_dispatch_and_combine_are_the_published_times_of_deepseek_v3() -> None:
    """arXiv 2505.09343: (1 + 2 bytes) x 32 tokens x 9 experts x 7K / 50 GB/s = 120.96 us, its 9th (shared) expert
    at home here, the width 7,168 instead of 7,000, and scales of the 8-bit format: 8/9 of it within 4 %."""
    result = hwsim.evaluate(
        "deepseek-v3",
        _cluster(256),
        dp=256,
        ep=256,
        batch=256 * 32,
        weights="fp8_blk",
        prompt=128,
        output=2,
        check_fit=False,
    )
    found = tasks(result, phase=1)
    sent = sum(found[f"block_moe.moe.{name}"].task.operator.dims["bytes"] for name in ("dispatch", "combine"))
    assert sent / 50e9 == pytest.approx(120.96e-6 * 8 / 9, rel=0.04)


def _cluster(devices: int) -> Any:
    return load_hardware("dgx-h100-x4").platform.with_(count=devices)


def test_wide_experts_do_the_flop_of_narrow_ones() -> None:
    """Every expert multiply of the batch is done once, however the experts are spread."""
    for options in ({"dp": 8, "ep": 8}, {"tp": 2, "dp": 4, "ep": 8}, {"tp": 8, "ep": 8}, {"tp": 8}):
        moe = tasks(run("mixtral-8x7b", batch=8, **options))["block.moe"].task
        assert sum(moe.flop.values()) * 8 == pytest.approx(3 * 2 * 4096 * 14336 * 2 * 512 * 8, rel=1e-12), options


@pytest.mark.parametrize("options", [{"tp": 2, "dp": 2, "ep": 3}, {"tp": 2, "dp": 3, "ep": 4}, {"tp": 4, "ep": 3}])
def test_expert_groups_that_fit_no_tensor_groups_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InfeasibleError, match="expert"):
        run("mixtral-8x7b", **options)


@given(st.integers(1, 64), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=60)
def test_distinct_ranks_is_bounded_and_exact_at_the_ends(experts: int, top_k: int, ranks: int) -> None:
    total = experts * ranks
    value = distinct_ranks(total, min(top_k, total), ranks)
    assert min(1.0, ranks) - 1e-9 <= value <= min(ranks, top_k) + 1e-9
    if top_k == 1:
        assert value == pytest.approx(1.0)


def test_distinct_ranks_equals_counting() -> None:
    rng = np.random.default_rng(7)
    picks = np.array([rng.choice(64, 6, replace=False) // 8 for _ in range(20_000)])
    counted = np.mean([len(set(row)) for row in picks.tolist()])
    assert distinct_ranks(64, 6, 8) == pytest.approx(counted, rel=0.01)


def test_stages_in_other_nodes_send_over_the_network() -> None:
    inside = tasks(run("llama-3.1-70b", tp=4, pp=2))
    across = tasks(run("llama-3.1-70b", tp=8, pp=4))
    mixed = tasks(run("llama-3.1-70b", tp=4, pp=8))
    assert inside["pipeline.send"].task.count == 1
    assert "pipeline.send_across" not in inside
    assert across["pipeline.send_across"].task.count == 3
    assert (mixed["pipeline.send"].task.count, mixed["pipeline.send_across"].task.count) == (4, 3)
    ratio = (
        across["pipeline.send_across"].cost.floor_s
        / tasks(run("llama-3.1-70b", tp=8, pp=1, batch=4))["block.norm1"].cost.floor_s
    )
    assert ratio > 1  # 50 GB/s network against 3.35 TB/s memory


@pytest.mark.parametrize(
    ("stages", "width", "node", "expected"), [(4, 8, 8, 3), (8, 4, 8, 3), (2, 4, 8, 0), (4, 16, 8, 3), (1, 1, 8, 0)]
)
def test_crossings(stages: int, width: int, node: int, expected: int) -> None:
    assert crossings(stages, width, node) == expected


@pytest.mark.parametrize(("width", "node", "ok"), [(4, 8, True), (3, 8, False), (16, 8, True), (12, 8, False)])
def test_groups_tile_nodes(width: int, node: int, ok: bool) -> None:
    assert tiles_node(width, node) is ok


@pytest.mark.parametrize("options", [{"tp": 4, "sp": True}, {"tp": 2, "pp": 2, "dp": 2}, {"dp": 8, "ep": 8}])
def test_arrays_equal_scalars(options: dict[str, Any]) -> None:
    batches = np.array([1, 3, 8, 50])
    grid = run("mixtral-8x7b", batch=batches, **options)
    for i, batch in enumerate(batches.tolist()):
        point = run("mixtral-8x7b", batch=batch, **options)
        for name, metric in point.estimate.metrics.items():
            one = np.broadcast_to(grid.estimate.metrics[name].value, batches.shape)[i]
            assert one == pytest.approx(metric.value, rel=1e-12), name
