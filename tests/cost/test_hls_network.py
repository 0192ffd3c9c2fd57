"""Small networks built into FPGAs: rules over wide sweeps, budgets, texts that are no network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import synthesize
from hwsim.cost import hls
from hwsim.errors import InfeasibleError, InputError

SIZES = st.integers(1, 512)
WIDTHS = st.integers(2, 16)


@settings(max_examples=200)
@given(SIZES, SIZES, WIDTHS, WIDTHS)
def test_reuse_trades_multipliers_for_cycles(n_in: int, n_out: int, weights: int, activations: int) -> None:
    legal = sorted({hls.legal_reuse(n_in, n_out, r) for r in (1, 2, 4, 8, 16, 64, 256, n_in * n_out)})
    built = [hls.dense(n_in, n_out, r, weights, activations) for r in legal]
    for a, b in zip(built, built[1:], strict=False):
        assert b.dsp <= a.dsp and b.lut <= a.lut and b.ff <= a.ff
        assert b.cycles > a.cycles and b.interval > a.interval
    multipliers = n_in * n_out / legal[0]
    assert built[0].dsp in (0, multipliers)  # one slice a product at these widths, or look-up tables
    assert all(float(x) >= 0 and np.isfinite(float(x)) for b in built for x in (b.dsp, b.lut, b.ff, b.bram18))


@given(SIZES, SIZES, st.integers(2, 63), st.integers(2, 32))
def test_wider_operands_never_need_less(n_in: int, n_out: int, weights: int, activations: int) -> None:
    narrow, wide = (hls.dense(n_in, n_out, 1, w, activations) for w in (weights, weights + 1))
    assert wide.dsp >= narrow.dsp
    assert wide.ff >= narrow.ff
    assert wide.lut >= narrow.lut or wide.dsp > narrow.dsp  # from 10 bit on products move into slices


def test_a_network_adds_up_and_its_slowest_layer_sets_the_interval() -> None:
    document = synthesize("dense:16x64,dense:64x32,dense:32x5", "u280", reuse=4).to_dict()
    assert document["total"]["dsp"] == sum(item["dsp"] for item in document["layers"]) == 256 + 512 + 40
    assert document["total"]["cycles"] == sum(item["cycles"] for item in document["layers"])
    assert document["total"]["interval"] == max(item["interval"] for item in document["layers"]) == 4
    assert document["inferences_per_s"] == pytest.approx(225e6 / 4)


def test_convolutions_run_once_a_position_and_keep_lines() -> None:
    document = synthesize("conv:3x28x28x8x16,dense:10816x10", reuse=72, weight_bits=8, activation_bits=16).to_dict()
    first = document["layers"][0]
    assert first["interval"] == 26 * 26 * 72
    plain = synthesize("dense:72x16", reuse=72, weight_bits=8, activation_bits=16).to_dict()["layers"][0]
    assert first["bram18"] - plain["bram18"] == np.ceil(2 * 28 * 8 * 16 / 18432)
    assert first["dsp"] == plain["dsp"]


def test_illegal_reuse_factors_move_to_the_nearest_legal_one_and_say_so() -> None:
    found = synthesize("dense:10x7", reuse=6)
    assert found.to_dict()["layers"][0]["reuse"] == 5
    assert "nearest legal reuse factor 5" in str(found)


def test_networks_that_exceed_the_device_are_refused_with_the_amount() -> None:
    with pytest.raises(InfeasibleError, match="dsp more than u280") as caught:
        synthesize("dense:1024x1024")
    assert caught.value.budget["missing"] == 1024 * 1024 - 9024
    with pytest.raises(InfeasibleError, match="bram18 more"):
        synthesize("dense:20000x20000", reuse=20000, weight_bits=9, activation_bits=9)
    assert "more multipliers than the compiler unrolls" in str(
        synthesize("dense:128x64", weight_bits=8, activation_bits=8)
    )


@pytest.mark.parametrize("network", ["", "dense", "dense:4", "dense:0x4", "dense:4x4x4", "conv:9x4x4x1x1", "lstm:4x4"])
def test_texts_that_are_no_network_are_refused(network: str) -> None:
    with pytest.raises(InputError):
        synthesize(network)


def test_layers_must_fit_together_and_hardware_must_be_an_fpga() -> None:
    with pytest.raises(InputError, match="takes what the one before"):
        synthesize("dense:16x64,dense:60x5")
    with pytest.raises(InputError, match="FPGA"):
        synthesize("dense:16x64", "a100")
    for wrong in ({"reuse": 0}, {"weight_bits": 0}, {"activation_bits": 65}):
        with pytest.raises(InputError):
            synthesize("dense:16x64", **wrong)
