"""Phones: outliers, graph costs, products without prepared shapes."""

from __future__ import annotations

import pytest

from hwsim.api import evaluate


def prompt_s(model: str = "qwen1.5-1.8b", tokens: int = 512, **phone: object) -> float:
    return float(evaluate(model, "hexagon", prompt=tokens, what_if={f"phone.{k}": v for k, v in phone.items()}).ttft_s)


def test_kept_outliers_cost_in_proportion() -> None:
    none, some, all_ = (prompt_s(pruned=share) for share in (1.0, 0.5, 0.0))
    assert some - none == pytest.approx((all_ - none) / 2)
    assert all_ / none > 3


def test_products_one_by_one_are_slower_than_prepared_chunks() -> None:
    assert prompt_s(processor="npu-products") > 1.5 * prompt_s()


def test_weights_come_into_the_window_once_a_prompt() -> None:
    one, two, three = (prompt_s(tokens=256 * n) for n in (1, 2, 3))
    assert two - one == pytest.approx(three - two)
    assert one > two - one


def test_graphs_are_built_by_layer_and_optimized_by_weight() -> None:
    metrics = {m: evaluate(m, "hexagon").document["metrics"] for m in ("qwen1.5-1.8b", "gemma-2b")}
    built = [metrics[m]["graph_build_s"]["value"] for m in metrics]
    assert built[0] / built[1] == pytest.approx(24 / 18)
    assert metrics["gemma-2b"]["graph_optimize_s"]["value"] > metrics["qwen1.5-1.8b"]["graph_optimize_s"]["value"]


def test_the_idle_share_of_the_engine_is_a_share() -> None:
    for model in ("qwen1.5-1.8b", "phi-2", "llama-2-7b"):
        assert 0.1 < evaluate(model, "hexagon").document["metrics"]["bubble"]["value"] < 0.5


def test_other_processors_run_prompts_at_their_own_rate() -> None:
    """0.18 ns a weight and 64 rows on the GPU, with 1.21 G linear weights."""
    gpu = prompt_s(tokens=640, processor="gpu-fp16")
    assert gpu > 10 * 1.21e9 * 0.18e-9
    assert prompt_s(tokens=640, processor="cpu-int8") > gpu > prompt_s(tokens=640)
