"""Host work of serving stacks: a layer, a sequence, and prompt batches past a knee."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.api import evaluate

PLAIN = {"weights": "fp16", "prompt": 1024, "output": 2}


def run(batch: int = 1, **what_if: object) -> Any:
    return evaluate(
        "llama-3-8b", "a100", batch=batch, what_if={f"overheads.{k}": v for k, v in what_if.items()}, **PLAIN
    )


def test_sequences_cost_host_work_in_both_phases() -> None:
    bare, loaded = run(8), run(8, sequence="0.25 ms")
    assert loaded.tpot_s - bare.tpot_s == pytest.approx(2e-3)
    assert loaded.ttft_s - bare.ttft_s == pytest.approx(2e-3)


def test_prompt_tokens_past_the_knee_take_longer() -> None:
    bare, loaded = run(4), run(4, prompt_knee=2048, prompt_slowdown=3.0)
    assert loaded.ttft_s == pytest.approx(2 * bare.ttft_s)  # half of 4096 tokens at three times the time
    assert loaded.tpot_s == bare.tpot_s


def test_a_batch_up_to_the_knee_does_not_change() -> None:
    assert run(2, prompt_knee="2048", prompt_slowdown="3").ttft_s == run(2).ttft_s


def test_a_grid_of_batches_equals_its_points() -> None:
    what_if = {"overheads.prompt_knee": 2048, "overheads.prompt_slowdown": 2.2, "overheads.sequence": "0.25 ms"}
    batches = np.array([1, 2, 4, 16])
    grid = evaluate("llama-3-8b", "a100", batch=batches, what_if=what_if, **PLAIN)
    points = [evaluate("llama-3-8b", "a100", batch=int(b), what_if=what_if, **PLAIN).ttft_s for b in batches]
    assert np.allclose(grid.ttft_s, points)


def test_the_bare_roofline_has_no_host() -> None:
    what_if = {"overheads.prompt_knee": 128, "overheads.prompt_slowdown": 9.0}
    bare = evaluate("llama-3-8b", "a100", efficiency="datasheet", **PLAIN)
    assert evaluate("llama-3-8b", "a100", efficiency="datasheet", what_if=what_if, **PLAIN).ttft_s == bare.ttft_s
