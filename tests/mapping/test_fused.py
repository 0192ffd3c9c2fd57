"""Fused attention: counts equal a simulated loop nest, the optimum equals all tilings, traffic follows the IO bound."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InfeasibleError, InputError
from hwsim.frontends.raw import raw_graph
from hwsim.mapping import Attention, Level, Machine, best_attention
from hwsim.mapping.fused.counts import Stage
from hwsim.mapping.fused.problem import ORDERS, SCORES, FusedTiling, Spread
from hwsim.mapping.fused.search import cost, placements
from hwsim.mapping.tiling.goal import goal_of


def machine(buffer: float = 400, array: int = 4, registers: float = 8) -> Machine:
    return Machine(
        "toy",
        (
            Level("rf", registers, 1.0, 1.0, fanout=array),
            Level("buffer", buffer, 6.0, 6.0, read_words_per_cycle=4.0),
            Level("dram", math.inf, 200.0, 200.0, read_words_per_cycle=2.0),
        ),
    )


def simulated(a: Attention, t: FusedTiling) -> tuple[int, int, int]:
    """(words from DRAM, words to DRAM, visited scores) of one problem by walking the loops with the tiles in hand."""
    query_tiles = [range(s, min(s + t.queries, a.rows)) for s in range(0, a.rows, t.queries)]
    key_tiles = [range(s, min(s + t.keys, a.keys)) for s in range(0, a.keys, t.keys)]

    def sees(rows: range, keys: range) -> bool:
        return not a.causal or keys[0] <= a.prefix + rows[-1] // a.group

    pairs = [(i, j) for i, q in enumerate(query_tiles) for j, k in enumerate(key_tiles) if sees(q, k)]
    pairs.sort(key=(lambda p: p) if t.outer == "queries" else (lambda p: (p[1], p[0])))
    inward = outward = scores = 0
    begun: set[int] = set()
    runs = [i for i, _ in itertools.groupby(i for i, _ in pairs)]
    stats = 2 if t.scores == "on-chip" and len(runs) > len(set(runs)) else 0  # unfinished outputs take them along
    for work in [("qk", "av")] if t.scores == "on-chip" else [("qk",), ("av",)]:
        held: dict[str, int] = {}
        for i, j in pairs:
            rows, keys = len(query_tiles[i]), len(key_tiles[j])
            for name, index, words in (("q", i, rows * a.head_dim), ("k", j, keys * a.head_dim)):
                if "qk" in work and held.get(name) != index:
                    held[name], inward = index, inward + words
            if "av" in work and held.get("v") != j:
                held["v"], inward = j, inward + keys * a.value_dim
            if "av" in work and held.get("o") != i:
                outward += len(query_tiles[held["o"]]) * (a.value_dim + stats) if "o" in held else 0
                inward += rows * (a.value_dim + stats) if i in begun else 0
                held["o"] = i
                begun.add(i)
            if t.scores == "spilled":
                inward += rows * keys if work == ("av",) else 0
                outward += rows * keys if work == ("qk",) else 0
            scores += rows * keys if "av" in work else 0
        outward += len(query_tiles[held["o"]]) * (a.value_dim + stats) if "av" in work else 0
    spilled = 2 * a.rows if t.scores == "spilled" else 0
    return inward + spilled, outward + spilled, scores


attentions = st.builds(
    lambda positions, group, more, d, v, causal: Attention(3, positions * group, positions + more, d, v, causal, group),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 7),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
ONE = Spread((2, 2), (1, 1))


@settings(max_examples=150, deadline=None)
@given(attentions, st.integers(1, 12), st.integers(1, 12), st.sampled_from(ORDERS), st.sampled_from(SCORES))
def test_main_memory_words_equal_a_walk_through_the_loops(
    a: Attention, queries: int, keys: int, outer: str, scores: str
) -> None:
    t = FusedTiling("buffer", min(queries, a.rows), min(keys, a.keys), outer, scores, ONE, ONE)
    inward, outward, visited = simulated(a, t)
    found = cost(machine(1e6), a, t)
    assert found.words_by["dram"] == a.batch * (inward + outward)
    assert found.macs == a.batch * visited * (a.head_dim + a.value_dim)
    assert found.words_by["dram"] >= a.batch * a.rows * (a.head_dim + a.value_dim)


@settings(max_examples=60, deadline=None)
@given(attentions, st.integers(1, 9), st.integers(1, 9))
def test_buffer_reads_and_steps_equal_a_walk_over_the_array(a: Attention, queries: int, keys: int) -> None:
    place = Spread((2, 2), (2, 1))
    t = FusedTiling("buffer", min(queries, a.rows), min(keys, a.keys), "queries", "on-chip", place, ONE)
    near = steps = 0
    for start in range(0, a.rows, t.queries):
        rows = min(t.queries, a.rows - start)
        last = min(a.prefix + (start + rows - 1) // a.group, a.keys - 1) if a.causal else a.keys - 1
        for first in range(0, last + 1, t.keys):
            cols = min(t.keys, a.keys - first)
            for (height, width, depth), p in (((rows, cols, a.head_dim), t.qk), ((rows, a.value_dim, cols), t.av)):
                for y in range(0, height, p.spread[0] * p.held[0]):
                    for x in range(0, width, p.spread[1] * p.held[1]):
                        high = min(height - y, p.spread[0] * p.held[0])
                        wide = min(width - x, p.spread[1] * p.held[1])
                        near += depth * (high + wide)
                        steps += depth * min(high, p.held[0]) * min(wide, p.held[1])
            near += 3 * rows * cols + rows * a.value_dim * (2 if first else 1)
    found = cost(machine(1e6), a, t, vector_per_cycle=1e9)
    fills = simulated(a, t)[0]
    assert found.words_by["buffer"] == a.batch * (near + fills)
    assert found.cycles_by["compute"] == pytest.approx(a.batch * steps)


def everything(m: Machine, a: Attention, objective: str) -> float:
    """The least objective over every integer tile, order, place of the scores and placement of both products."""
    best, stage = math.inf, Stage(m, 1)
    for queries, keys, outer, scores in itertools.product(range(1, a.rows + 1), range(1, a.keys + 1), ORDERS, SCORES):
        sets = [placements(stage, queries, keys), placements(stage, queries, a.value_dim)]
        choices = [
            [Spread((int(s[0, i]), int(s[1, i])), (int(h[0, i]), int(h[1, i]))) for i in range(s.shape[1])]
            for s, h in sets
        ]
        for qk, av in itertools.product(*choices):
            try:
                found = cost(m, a, FusedTiling("buffer", queries, keys, outer, scores, qk, av))
            except InfeasibleError:
                break
            best = min(best, goal_of(objective).value(found.energy, float(found.cycles)))
    return best


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize(
    ("a", "room"),
    [
        (Attention(2, 4, 5, 3, 2), 30),
        (Attention(1, 6, 3, 2, 2, True, 2), 24),
        (Attention(1, 4, 6, 2, 3, True), 40),
    ],
)
def test_the_optimum_equals_all_tilings(a: Attention, room: int, objective: str) -> None:
    m = machine(room, array=4, registers=5)
    found = best_attention(m, a, objective)
    assert found.report.objective == pytest.approx(everything(m, a, objective), rel=1e-12)
    assert found.report.status == "optimal" and found.report.gap == 0.0


def test_keys_are_read_again_for_every_query_tile() -> None:
    a = Attention(1, 64, 96, 8, 8)
    t = FusedTiling("buffer", 16, 8, "queries", "on-chip", ONE, ONE)
    assert cost(machine(1e6), a, t).words_by["dram"] == 64 * 8 * 2 + (64 // 16) * 96 * 8 * 2


@pytest.mark.parametrize("room", [2048, 8192, 32768])
def test_traffic_follows_the_io_bound_of_flash_attention(room: int) -> None:
    """Theta(N^2 d^2 / M) words for d <= M <= N d (Dao et al., arXiv 2205.14135, theorem 2)."""
    n, d = 1024, 64
    found = best_attention(machine(room, 16, 8), Attention(1, n, n, d, d), "energy", scores=("on-chip",))
    ratio = found.counts.words_by["dram"] / (n * n * d * d / room)
    assert 1.0 <= ratio <= 8.0


def test_a_larger_buffer_never_moves_more_and_fusing_beats_spilling_where_scores_are_many() -> None:
    a = Attention(1, 256, 256, 16, 16)
    words = [
        best_attention(machine(room, 16), a, "energy").counts.words_by["dram"] for room in (256, 1024, 4096, 16384)
    ]
    assert words == sorted(words, reverse=True)
    kept, spilled = (best_attention(machine(4096, 16), a, "energy", scores=(s,)).counts for s in SCORES)
    assert kept.words_by["dram"] + 256 * 256 <= spilled.words_by["dram"]


def test_a_mask_saves_work_and_a_vector_unit_hides_the_softmax() -> None:
    whole, masked = (Attention(1, 128, 128, 16, 16, causal) for causal in (False, True))
    full, half = (best_attention(machine(4096, 16), a, "latency").counts for a in (whole, masked))
    assert 0.5 < float(half.cycles) / float(full.cycles) < 0.75
    beside = best_attention(machine(4096, 16), whole, "latency", vector_per_cycle=1e6).counts
    assert beside.cycles_by["compute"] < full.cycles_by["compute"] and beside.cycles <= full.cycles


def test_what_fits_nowhere_is_named() -> None:
    with pytest.raises(InfeasibleError, match="fit no memory on the chip"):
        best_attention(machine(8), Attention(1, 4, 4, 64, 64))


def test_raw_attention_is_a_workload() -> None:
    operator = raw_graph("attention:2x32/8x16x48x64:causal").operators[0]
    pairs = sum(33 + i for i in range(16))
    assert operator.flop == 4 * 2 * 32 * 64 * pairs
    assert operator.dims["n_kv_heads"] == 8 and operator.dims["prefix"] == 32
    for bad in ("attention:1x2x3x4", "attention:1x32/5x1x8x64", "attention:1x1x9x8x64:causal", "attention:0x1x1x1x1"):
        with pytest.raises(InputError, match="not a raw attention"):
            raw_graph(bad)
