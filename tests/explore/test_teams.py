"""Two machines on one request: handing a cache over, and a draft beside its target."""

from __future__ import annotations

from typing import Any

import pytest

import hwsim
from hwsim.errors import InputError
from hwsim.explore.teams import Handoff, Speculation, expected_tokens, handoff_s

RATE = 50e9


def value(result: Any, name: str) -> float:
    return float(result.to_dict()["metrics"][name]["value"])


def test_a_serial_handoff_is_bytes_over_rate() -> None:
    moved = handoff_s(8e9, 80, 0.1, 8, Handoff(RATE, efficiency=1.0, latency_s=1e-5, mode="serial"))
    assert moved["exposed_s"] == pytest.approx(8e9 / (8 * RATE) + 1e-5)


def test_layers_under_a_long_prompt_leave_the_last_one_and_the_signals() -> None:
    moved = handoff_s(8e9, 80, 1.0, 8, Handoff(RATE, efficiency=1.0, latency_s=0.0, layer_s=1e-4, mode="layerwise"))
    assert moved["exposed_s"] == pytest.approx(8e9 / (8 * RATE) / 80 + 80 * 1e-4)


def test_a_slow_link_shows_what_the_prompt_could_not_hide() -> None:
    moved = handoff_s(8e9, 80, 0.01, 1, Handoff(RATE, efficiency=1.0, latency_s=0.0, layer_s=0.0, mode="layerwise"))
    assert moved["exposed_s"] == pytest.approx(8e9 / RATE - 0.01 * 79 / 80)


def test_the_best_way_is_never_worse_than_either() -> None:
    for size in (1e6, 1e8, 1e10):
        moved = handoff_s(size, 32, 0.05, 4, Handoff(RATE))
        assert moved["exposed_s"] == min(moved["serial_s"], moved["layerwise_s"])


def test_an_unknown_way_is_an_input_error() -> None:
    with pytest.raises(InputError, match="hand over"):
        handoff_s(1.0, 1, 1.0, 1, Handoff(RATE, mode="pigeon"))


def test_a_pair_takes_each_phase_from_its_machine() -> None:
    both = hwsim.pair("llama-3-8b", "h100", token_on="a100", network="25 GB/s", prompt=1024)
    assert value(both, "ttft_s") == pytest.approx(float(hwsim.evaluate("llama-3-8b", "h100", prompt=1024).ttft_s))
    assert value(both, "tpot_s") == pytest.approx(float(hwsim.evaluate("llama-3-8b", "a100", prompt=1024).tpot_s))
    assert value(both, "cache_bytes") == pytest.approx(1024 * 131072, rel=1e-6)
    assert "second token" in str(both)


def test_a_machine_without_a_network_is_refused() -> None:
    with pytest.raises(InputError, match="no network"):
        hwsim.pair("llama-3-8b", "h100")


def test_expected_tokens_of_a_round() -> None:
    assert expected_tokens(Speculation(4, 0.0)) == 1
    assert expected_tokens(Speculation(4, 1.0)) == 5
    assert expected_tokens(Speculation(2, 0.5)) == pytest.approx(1 + 0.5 + 0.25)


def test_a_draft_beside_its_target_hides_up_to_the_overlap() -> None:
    options = {"draft": "llama-2-7b", "tp": 4, "draft_tokens": 4}
    alone, beside = (hwsim.speculate("llama-2-70b", "h100", overlap=share, **options) for share in (0.0, 1.0))
    assert value(alone, "round_s") == pytest.approx(value(alone, "verify_s") + value(alone, "draft_s"))
    assert value(beside, "round_s") == pytest.approx(max(value(beside, "verify_s"), value(beside, "draft_s")))
    assert value(beside, "speedup") > value(alone, "speedup") > 1


def test_a_slow_draft_machine_loses() -> None:
    assert value(hwsim.speculate("llama-3-8b", "h100", draft="llama-3.2-1b", draft_on="hexagon"), "speedup") < 1


@pytest.mark.parametrize("wrong", [{"acceptance": 1.4}, {"draft_tokens": 0}, {"overlap": -0.1}])
def test_impossible_drafts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        hwsim.speculate("llama-3-8b", "h100", draft="llama-3.2-1b", **wrong)


def test_reproduce_mirrors_the_command_line() -> None:
    found = hwsim.reproduce("sail")
    assert found.to_dict()["total"]["scored"] == len(found.to_dict()["rows"])
    assert "sail:" in str(found)
    assert "<table>" in found._repr_html_()
    assert hwsim.reproduce("sail", failed=True).to_dict()["rows"] == []
