"""Closed loops of the layout search: the formulas that serving benchmarks score, and their limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.engine.estimate import static_power_w
from hwsim.errors import InputError, UnknownNameError
from hwsim.explore.layout_stages import refiner
from hwsim.explore.layouts import Search, cost_layouts
from hwsim.mapping.parallelism.choose import choose
from hwsim.mapping.parallelism.columns import Columns, Limits
from hwsim.mapping.parallelism.layouts import Layout
from hwsim.validation.endtoend import predict_runs
from hwsim.validation.endtoend_runs import Run
from tests.mapping.test_parallelism import search


def both(workload: str, devices: int, **options: Any) -> tuple[Search, Columns, Columns]:
    static = search(workload, "dgx-h100", devices, **options)
    loop = replace(static, continuous=True)
    return loop, cost_layouts(static).columns, cost_layouts(loop).columns


def test_columns_are_what_the_serving_benchmarks_score() -> None:
    """The same TTFT and TPOT as `hwsim validate endtoend` predicts for such a run of vLLM."""
    row = {
        "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "H100-SXM5-80GB", "backend": "vllm", "isl": "1024",
        "osl": "256", "concurrency": "16", "tp": "2", "ttft_ms": "1", "tpot_ms": "1", "mode": "agg", "precision": "fp8",
        "gemm_quant": "fp8",
    }  # fmt: skip
    scored = predict_runs([Run(2, row)]).scored[0]
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(16,), prompt=1024, output=256, weights="fp8")
    columns = cost_layouts(replace(question, continuous=True)).columns
    at = next(i for i in range(len(columns)) if columns.layouts[columns.layout[i]] == Layout(2))
    assert columns.ttft_s[at] * 1e3 == pytest.approx(scored.ttft_ms, rel=1e-9)
    assert columns.tpot_s[at] * 1e3 == pytest.approx(scored.tpot_ms, rel=1e-9)


def test_one_client_waits_for_his_prompt_and_the_running_step() -> None:
    _, static, loop = both("llama-3.1-8b", 2, batches=(1,))
    np.testing.assert_allclose(loop.tpot_s, static.tpot_s, rtol=1e-12)
    np.testing.assert_allclose(loop.ttft_s, static.ttft_s + static.tpot_s, rtol=1e-12)


def test_many_clients_get_first_words_sooner_and_later_words_slower() -> None:
    _, static, loop = both("llama-3.1-8b", 2, batches=(64,), prompt=1024)
    assert np.all(loop.ttft_s < static.ttft_s)
    assert np.all(loop.tpot_s > static.tpot_s)


def test_the_same_work_for_another_time() -> None:
    """Energy differs by static power x time only; tokens by time only."""
    question, static, loop = both("llama-3.1-8b", 4, batches=(32,))
    running = static_power_w(question.platform, static.used)
    tokens = 32 * 64
    more = (loop.energy_j_per_token - static.energy_j_per_token) * tokens
    np.testing.assert_allclose(more, running * (loop.latency_s - static.latency_s), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(loop.tokens_per_s * loop.latency_s, tokens, rtol=1e-12)
    np.testing.assert_array_equal(loop.needed_bytes, static.needed_bytes)


def test_pipelines_are_never_quicker_than_their_columns_in_a_loop_either() -> None:
    question, _, loop = both("deepseek-v2-lite", 2, batches=(16,))
    refine = refiner(question, loop)
    staged = [i for i in range(len(loop)) if loop.layouts[loop.layout[i]].pp > 1]
    assert staged
    for i in staged:
        one = refine(i)
        for name in ("ttft_s", "tpot_s", "latency_s", "energy_j_per_token", "cost_usd_per_mtok"):
            assert getattr(one, name) >= getattr(loop, name)[i] * (1 - 1e-9), name
    best = choose(loop, "throughput", Limits(), refine).best
    assert best.tokens_per_s >= max(refine(i).tokens_per_s for i in staged)


def test_plan_says_which_batching_it_means() -> None:
    found = hwsim.plan("llama-3.1-8b", "dgx-h100", devices=2, batching="continuous", slo="ttft=1s,tpot=20ms")
    assert found.document["scenario"]["batching"] == "continuous"
    assert "continuous batching" in str(found)
    static = hwsim.plan("llama-3.1-8b", "dgx-h100", devices=2, slo="ttft=1s,tpot=20ms").document
    assert static["scenario"]["batching"] == "static"
    with pytest.raises(UnknownNameError, match="continous"):
        hwsim.plan("llama-3.1-8b", "dgx-h100", devices=2, batching="continous")
    with pytest.raises(InputError, match="no decode steps"):
        hwsim.plan("bert-large", "dgx-h100", devices=2, batching="continuous")
