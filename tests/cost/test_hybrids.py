"""Weights on the host: what pages and shared passes gain over reservation."""

from __future__ import annotations

import pytest

from hwsim.api import evaluate
from hwsim.errors import InfeasibleError


def metric(name: str, prompt: int = 98, output: int = 32, **offload: object) -> float:
    what_if = {f"offload.{key}": value for key, value in offload.items()}
    document = evaluate("mixtral-8x7b", "moe-lens", prompt=prompt, output=output, what_if=what_if).document
    return float(document["metrics"][name]["value"])


def test_reserving_for_the_longest_prompt_leaves_memory_idle() -> None:
    found = metric("memory_utilisation", policy="lightning", longest=3.0)
    assert found == pytest.approx((98 + 32) / (3 * 98 + 32))
    assert metric("memory_utilisation", policy="lightning") == pytest.approx(1)


def test_pages_hold_more_requests_than_reservation() -> None:
    ratio = metric("host_requests") / metric("host_requests", policy="lightning")
    assert ratio == pytest.approx((98 + 32) / (98 + 16))


@pytest.mark.parametrize(("prompt", "output"), [(98, 32), (98, 256), (926, 128)])
def test_shared_passes_and_pages_never_lose(prompt: int, output: int) -> None:
    options = {"prompt": prompt, "output": output, "host_memory": "265 GB"}
    assert metric("host_tokens_per_s", **options) > metric("host_tokens_per_s", policy="lightning", **options)


def test_a_host_full_of_requests_fills_the_gpu() -> None:
    """130 tokens a request at 0.8 of 149.7 TFLOP/s (A40) on 12.9 G active weights: the GPU binds."""
    generated = metric("host_tokens_per_s", host_memory="265 GB")
    assert generated * (98 + 32) / 32 == pytest.approx(0.8 * 149.7e12 / (2 * 12.75e9), rel=0.04)


def split_step(batch: int, **split: object) -> float:
    what_if = {f"split.{key}": value for key, value in split.items()}
    options = {"tp": 2, "check_fit": False, "prompt": 1024, "output": 128}
    return float(evaluate("llama-65b", "lamina-h100-4xh20", batch=batch, what_if=what_if, **options).tpot_s)


def test_overlap_hides_the_new_keys_up_to_the_attention_over_old_ones() -> None:
    for batch in (1, 16, 128):
        saved = split_step(batch, overlap=False) - split_step(batch, overlap=True)
        # two of the layer's matrices at 0.8 of 3.35 TB/s, and 2 x 8192 elements of 2 B a request over 45.7 GB/s
        most = 80 * (2 * 8192**2 * 2 / 2 / (0.8 * 3.35e12) + batch * 2 * 8192 * 2 / 45.7e9)
        assert 0 < saved <= most * 1.001
    assert saved == pytest.approx(most, rel=1e-3)


def test_a_host_too_small_for_the_weights_is_refused_with_the_amount() -> None:
    with pytest.raises(InfeasibleError, match="more than the host") as caught:
        evaluate("mixtral-8x22b", "moe-lens", what_if={"offload.host_memory": "100 GB"})
    assert caught.value.budget["short_bytes"] > 100e9


def test_caches_on_memory_devices_take_no_room_beside_the_weights() -> None:
    options = {"tp": 2, "prompt": 512, "output": 128}
    most = evaluate("llama-2-70b", "lamina-h100-4xh20", batch=1, **options).document["memory"]["max_batch"]
    assert evaluate("llama-2-70b", "lamina-h100-4xh20", batch=most, **options).document["memory"]["fits"]
    with pytest.raises(InfeasibleError, match="memory devices") as caught:
        evaluate("llama-2-70b", "lamina-h100-4xh20", batch=most + 1, **options)
    assert caught.value.budget["short_bytes"] > 0


def test_flash_devices_hold_the_resident_share_only() -> None:
    def held(mode: str) -> float:
        document = evaluate("opt-6.7b", "m1-max-with-flash", what_if={"flash.mode": mode}).document
        return float(document["memory"]["weights_bytes"])

    assert held("naive") == 0
    assert held("hybrid") == pytest.approx(6.66e9 * 2 / 2, rel=0.02)


def test_an_engine_without_a_path_for_the_weights_says_how_many_bits() -> None:
    with pytest.raises(InfeasibleError, match="no 4-bit path.*4 bit missing"):
        evaluate("llama-2-7b", "hexagon", weights="int4")
