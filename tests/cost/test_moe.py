"""MoE kernel model: routing conserves pairs, tiles pad, weights stream, laws, scalar = array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cost.gpu import moe
from hwsim.errors import InputError
from tests.cost.gpus import A100, H100

FAMILY = moe.FAMILY
BASE = {
    "num_tokens": 64.0,
    "hidden": 4096.0,
    "inter": 1536.0,
    "topk": 8.0,
    "num_experts": 128.0,
    "moe_tp": 1.0,
    "moe_ep": 1.0,
}


def seconds(gpu=H100, kernel_class="bf16@engine", **columns):
    return FAMILY.time({**BASE, "distribution": "balanced", **columns}, gpu, kernel_class, FAMILY.start()).time_s


def load(distribution, **columns):
    full = {**BASE, "distribution": np.array([distribution]), **{k: np.array([v]) for k, v in columns.items()}}
    return moe.routing(full, moe.layer(full, "bf16@engine"))


@pytest.mark.parametrize("distribution", ["balanced", "power_law_1.2", "power_law_1.01", "random"])
@given(tokens=st.integers(1, 20000), experts=st.sampled_from([16, 128, 160, 256]), topk=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_routing_conserves_pairs(distribution, tokens, experts, topk):
    found = load(distribution, num_tokens=float(tokens), num_experts=float(experts), topk=float(topk))
    assert np.isclose(found.pairs, tokens * topk, rtol=1e-6)
    assert found.active <= min(experts, tokens * topk) * (1 + 1e-6)
    assert found.active > 0


def test_balanced_routing_touches_as_many_experts_as_pairs():
    assert np.isclose(load("balanced", num_tokens=4.0).active, 32)
    assert np.isclose(load("balanced", num_tokens=64.0).active, 128)


def test_random_routing_touches_the_expected_experts():
    assert np.isclose(load("random", num_tokens=16.0).active, 128 * (1 - (1 - 8 / 128) ** 16))


def test_skew_loads_the_heaviest_rank():
    skewed, even = (load(d, num_tokens=4096.0, moe_ep=8.0).pairs for d in ("power_law_1.2", "balanced"))
    assert np.isclose(even, 4096 * 8 / 8)
    assert 1.1 * even < skewed < 3 * even


def test_rows_pad_to_whole_tiles():
    found = load("balanced", num_tokens=4096.0)  # 256 tokens an expert
    tiles = moe.row_tiles(found, np.array([16.0, 128.0]))
    assert np.allclose(tiles, [[128 * 16, 128 * 2]])


def test_flop_counts_three_matrices():
    assert moe.flop({**BASE, "moe_tp": 2.0}) == 6 * 64 * 8 * 4096 * 1536 / 2


@pytest.mark.parametrize("gpu", [A100, H100], ids=["a100", "h100"])
@pytest.mark.parametrize("column", ["num_tokens", "hidden", "inter"])
def test_time_grows_with_work(gpu, column):
    grown = seconds(gpu, **{column: BASE[column] * 2.0 ** np.arange(9)})
    assert (np.diff(grown) > 0).all()


@given(tokens=st.integers(1, 20000), tp=st.sampled_from([1, 2, 8]), skew=st.booleans())
@settings(max_examples=40, deadline=None)
def test_array_equals_scalar(tokens, tp, skew):
    kind = "power_law_1.2" if skew else "balanced"
    alone = seconds(num_tokens=float(tokens), moe_tp=float(tp), distribution=kind)
    both = seconds(
        num_tokens=np.array([tokens, 3.0]), moe_tp=np.array([tp, 1.0]), distribution=np.array([kind, "balanced"])
    )
    assert np.isclose(alone, both[0], rtol=1e-12)


@pytest.mark.parametrize("tokens", [1.0, 16.0, 256.0, 16384.0])
def test_cold_weights_stream_no_faster_than_dram(tokens):
    columns = {**BASE, "num_tokens": tokens, "dtype_weight": np.array(["bf16"])}
    weights = 3 * 4096 * 1536 * 2 * min(128.0, tokens * 8)
    time = seconds(num_tokens=tokens)
    assert time >= weights / H100.dram_bytes_per_s
    assert time >= moe.flop(columns) / H100.peak("bf16")


def test_narrow_weights_help_where_weights_bound():
    few = {"num_tokens": 32.0, "inter": 8192.0}
    assert seconds(kernel_class="fp8@engine", **few) < 0.65 * seconds(**few)
    assert seconds(kernel_class="bf16+int4@engine", **few) < 0.5 * seconds(**few)


def test_missing_arithmetic_is_an_input_error():
    with pytest.raises(InputError, match="fp8"):
        seconds(A100, "fp8@engine")


def test_parameters_start_inside_their_bounds():
    for p in FAMILY.parameters:
        assert p.low < p.start < p.high, p.name
