"""FPGA overlays: published token times, budgets that refuse, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.api import evaluate
from hwsim.cost import hls
from hwsim.errors import InfeasibleError, InputError


def token_ms(context: int, **what_if: object) -> float:
    return float(evaluate("llama-2-7b", "vhk158", prompt=context - 1, output=2, what_if=what_if or None).tpot_s) * 1e3


@pytest.mark.parametrize(("context", "published"), [(144, 9.282), (512, 9.810), (1024, 10.615), (1664, 11.724)])
def test_token_time_follows_the_published_simulator(context: int, published: float) -> None:
    assert token_ms(context) == pytest.approx(published, rel=0.01)


def test_queues_are_exact() -> None:
    document = evaluate("llama-2-7b", "vhk158", prompt=511, output=2).document
    step = document["phases"][1]
    # 6.3532e9 + 67.1e6 + 524288 x 512 MACs, padded to 512 outputs, at 1024 x 225 MHz x 3.2
    assert step["resources"]["mac"] == pytest.approx(9.072e-3, rel=1e-4)
    assert document["metrics"]["macs"]["value"] == pytest.approx(6.3532e9 + 67.1e6 + 524288 * 512, rel=1e-4)


def test_prefill_is_slower_than_the_gpu_and_decode_is_not() -> None:
    fpga, gpu = (evaluate("llama-2-7b", hw, prompt=512, output=64) for hw in ("vhk158", "a100"))
    assert fpga.ttft_s > 5 * gpu.ttft_s
    assert fpga.tpot_s < 2 * gpu.tpot_s


def test_a_grid_equals_its_points() -> None:
    prompts = np.array([128, 512, 1000])
    grid = evaluate("llama-2-7b", "vhk158", prompt=prompts, output=16).tpot_s
    points = [evaluate("llama-2-7b", "vhk158", prompt=int(p), output=16).tpot_s for p in prompts]
    assert np.allclose(grid, points, rtol=1e-12)


@settings(max_examples=15)
@given(st.integers(20, 3000), st.integers(1, 1000))
def test_longer_contexts_never_run_faster(context: int, more: int) -> None:
    assert token_ms(context + more) >= token_ms(context)


def test_too_many_dsp_slices_are_refused_with_the_amount() -> None:
    with pytest.raises(InfeasibleError, match="DSP slices more") as caught:
        evaluate("llama-2-7b", "u280", what_if={"fpga.mm_macs": "16384"})
    assert caught.value.budget["dsp_missing"] == 16384 * 3 / 2 - 9024
    assert caught.value.exit_code == 3


def test_a_weight_width_without_a_datapath_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="16-bit weight path"):
        evaluate("llama-2-7b", "vhk158", weights="fp16")


def test_models_with_biases_and_tied_heads_map() -> None:
    assert 40 < 1 / float(evaluate("opt-6.7b", "u280", prompt=512, output=64).tpot_s) < 80


def test_a_fixed_chain_computes_the_zeros() -> None:
    sparse = evaluate("llama-2-7b", "vhk158", what_if={"fpga.density": 0.5}).document["phases"][1]["resources"]
    fixed = evaluate("llama-2-7b", "vhk158", what_if={"fpga.density": 0.5, "fpga.chain": "fixed"})
    assert fixed.document["phases"][1]["resources"]["mac"] > 1.4 * sparse["mac"]


def test_unknown_build_options_are_input_errors() -> None:
    with pytest.raises(InputError, match="mm_macs"):
        evaluate("llama-2-7b", "u280", what_if={"fpga.mm_mac": "4"})
    with pytest.raises(InputError):
        evaluate("llama-2-7b", "u280", what_if={"fpga.mm_macs": "-4"})


def test_ternary_adders_use_no_dsp() -> None:
    assert evaluate("mmfreelm-1.3b", "d5005").document["metrics"]["dsp_used"]["value"] == 0


def test_hls_layer_rules() -> None:
    layer = hls.dense(64, 32, 4, 16, 16)
    assert (layer.dsp, layer.interval, layer.cycles) == (512, 4, 4 + 6 + 4)
    assert hls.dense(64, 32, 4, 8, 8).dsp == 0
    assert hls.dense(64, 32, 4, 20, 16).dsp == 1024
    assert hls.conv(9, 3, 8, 100, 1, 16, 16).interval == 100


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 5000))
def test_reuse_factors_are_legal(n_in: int, n_out: int, reuse: int) -> None:
    found = hls.legal_reuse(n_in, n_out, reuse)
    assert n_in * n_out % found == 0
    assert n_in % found == 0 or found % n_in == 0


def test_smape_of_a_wrong_zero_is_its_maximum() -> None:
    assert hls.smape([0.0, 1.0], [1.0, 1.0]) == pytest.approx(1.0)
    assert hls.smape([0.0], [0.0]) == 0


def test_programs_of_all_lengths_shrink_with_the_group() -> None:
    def programs(step: int) -> float:
        result = evaluate("llama-2-7b", "vhk158", prompt=1024, output=1024, what_if={"fpga.length_step": step})
        return float(result.document["metrics"]["program_bytes"]["value"])

    assert programs(1) / programs(16) == pytest.approx(16, rel=0.01)
    assert programs(16) < 256e6  # one channel of the memory holds them


def test_a_group_of_lengths_costs_its_upper_end() -> None:
    def step(context: int) -> float:
        return float(evaluate("llama-2-7b", "vhk158", prompt=context - 1, output=2).tpot_s)

    slow, fast = step(1009), step(1024)
    mac = [
        evaluate("llama-2-7b", "vhk158", prompt=c - 1, output=2).document["phases"][1]["resources"]["mac"]
        for c in (1009, 1024)
    ]
    assert mac[0] == pytest.approx(mac[1])
    assert slow <= fast


def test_weights_of_three_to_eight_bits_load_in_proportion() -> None:
    """Five widths, unpacked on their way to the chains; the cache adds the same to each."""
    names = [f"int{bits}-g128" for bits in (3, 4, 5, 6, 8)]
    loaded = [evaluate("llama-2-7b", "vhk158", weights=n).document["metrics"]["loaded_bytes"]["value"] for n in names]
    steps = np.diff(loaded) / np.diff([3, 4, 5, 6, 8])
    assert np.allclose(steps, steps[0], rtol=0.02)
    assert steps[0] == pytest.approx(6.6e9 / 8, rel=0.1)
