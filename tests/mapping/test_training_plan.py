"""Training steps: memory of ZeRO and activations against published formulas, the bubble, laws of time, the search."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hwsim
from hwsim.api import prepare
from hwsim.cli.main import app
from hwsim.errors import HwsimError, InfeasibleError, InputError
from hwsim.explore.training import Recipe, Step, bytes_per_parameter, cost_pass, step_of, training_graph
from hwsim.explore.training_search import Course, steps_of
from hwsim.frontends.catalog import load_model
from hwsim.frontends.formats import Formats
from hwsim.mapping.parallelism.layouts import Layout

CLUSTER = "dgx-a100-x16"
FORMATS = Formats.of("bf16")


def step(model: str, layout: Layout, recipe: Recipe, micro: int = 1, hardware: str = CLUSTER) -> Step:
    loaded, platform, _, _ = prepare(model, hardware, 1, recipe.seq, 1, None, {"weights": "bf16"})
    one = cost_pass(loaded.model, platform, layout, np.array([float(micro)]), recipe, FORMATS, "calibrated")
    return step_of(one, 0, layout, micro, recipe, platform)


@pytest.mark.parametrize("replicas", [1, 8, 64])
def test_zero_shares_what_the_paper_says(replicas: int) -> None:
    """arXiv 1910.02054, figure 1: 2 + 2 + 12 bytes a parameter."""
    assert bytes_per_parameter(0, replicas) == 16
    assert bytes_per_parameter(1, replicas) == 4 + 12 / replicas
    assert bytes_per_parameter(2, replicas) == 2 + 14 / replicas
    assert bytes_per_parameter(3, replicas) == 16 / replicas


@pytest.mark.parametrize(
    ("layout", "per_sbh"), [(Layout(8, sp=True), 32 / 8), (Layout(8), 8 + 24 / 8), (Layout(1), 32)]
)
def test_activations_of_gpt_are_the_published_formula(layout: Layout, per_sbh: float) -> None:
    """arXiv 2205.05198, table 2 without attention scores (kept on chip): s b h (10 + 24/t), or 34/t with rows.

    2 of the 10 bytes are dropout masks, which hwsim does not keep.
    """
    found = step("megatron-22b", layout, Recipe(2048, 4), 4).activation_bytes
    spec = load_model("megatron-22b").spec
    formula = 2048 * 4 * spec.hidden * per_sbh * spec.layers
    assert found == pytest.approx(formula, rel=0.06)


def test_the_bubble_is_the_published_one() -> None:
    """(p - 1)/(m + p - 1) of the pipeline; one stage has none."""
    recipe = Recipe(512, 32, zero=0)
    flat, deep = step("llama-2-7b", Layout(1), recipe), step("llama-2-7b", Layout(1, 8), recipe)
    assert (flat.bubble, deep.bubble) == (0.0, pytest.approx(7 / 39))
    useful = deep.pipeline_s * (1 - deep.bubble)
    assert useful == pytest.approx(flat.pipeline_s / 8, rel=0.03)  # sends on top
    assert step("llama-2-7b", Layout(1, 8), Recipe(512, 320, zero=0)).bubble < deep.bubble


def test_operations_are_six_a_parameter_and_token() -> None:
    found = step("gpt3-xl", Layout(1), Recipe(2048, 1))
    model = load_model("gpt3-xl")
    attention = 6 * model.spec.layers * model.spec.hidden * 2048 * 2048  # causal: half of 12
    tables = 2048 * model.spec.hidden  # learned positions multiply nothing
    assert found.model_flop == pytest.approx(6 * (model.parameters - tables) * 2048 + attention, rel=0.005)


@pytest.mark.parametrize(
    ("model", "published", "close"),
    [("deepseek-v3", 250, 0.005), ("deepseek-v2", 155, 0.005), ("llama-3.1-405b", 2448, 0.015)],
)
def test_operations_a_token_are_the_published_ones(model: str, published: float, close: float) -> None:
    """arXiv 2505.09343, table 2, GFLOP a token in training at 4,096 tokens, causal."""
    graph = training_graph(load_model(model), 1, 4096, FORMATS)
    flop = 3 * sum(o.flop * o.repeat for o in graph.operators if o.unit == "tensor") / 4096
    assert flop == pytest.approx(published * 1e9, rel=close)


def test_replicas_with_their_own_sequences_take_the_same_pipeline_time() -> None:
    one, four = (step("llama-2-7b", Layout(4, 1, dp), Recipe(1024, 8 * dp)) for dp in (1, 4))
    assert four.pipeline_s == one.pipeline_s
    assert four.state_bytes < one.state_bytes  # ZeRO 1
    assert four.model_flop == 4 * one.model_flop


def test_recomputation_trades_a_forward_pass_for_activations() -> None:
    recipe = Recipe(2048, 16)
    kept, again = (step("llama-2-7b", Layout(2), replace(recipe, recompute=r)) for r in (False, True))
    assert again.activation_bytes < 0.2 * kept.activation_bytes
    assert 1.2 < again.pipeline_s / kept.pipeline_s < 4 / 3 + 0.02


@pytest.mark.parametrize(("zero", "factor"), [(1, 2), (3, 3)])
def test_gradients_hide_behind_the_last_backward_pass_only(zero: int, factor: int) -> None:
    """Over the network they show; their time is the wire time less that pass."""
    recipe = Recipe(128, 64, zero=zero)
    found = step("llama-2-7b", Layout(1, 1, 64), recipe)
    wire = factor * 63 / 64 * 2 * load_model("llama-2-7b").parameters / 25e9
    assert 0 < found.gradients_s < wire * 1.05
    assert step("llama-2-7b", Layout(1, 1, 1), recipe).gradients_s == 0.0


@pytest.mark.parametrize(
    ("model", "seq", "published"), [("gpt3-xl", 2048, 196), ("gpt3-xl", 8192, 220), ("gpt3-2.7b", 8192, 225)]
)
def test_against_published_training_speeds(model: str, seq: int, published: float) -> None:
    """arXiv 2307.08691, table 1, TFLOP/s on 8 A100 by its own formula 6 s N + 12 L h s^2: high by 9 to 16 %."""
    recipe = Recipe(seq, 8 * 8192 // seq)
    found = step(model, Layout(1, 1, 8), recipe, 8192 // seq, "dgx-a100")
    loaded = load_model(model)
    flop = 6 * seq * loaded.parameters + 12 * loaded.spec.layers * loaded.spec.hidden * seq**2
    speed = flop * recipe.global_batch / found.time_s / 8 / 1e12
    assert 1.0 < speed / published < 1.17


def test_the_search_is_that_of_brute_force_and_everything_ranked_fits() -> None:
    found = hwsim.plan_training("llama-2-13b", CLUSTER, devices=16, global_batch=64).document
    model, platform, scenario, _ = prepare("llama-2-13b", CLUSTER, 1, 2048, 1, None, {"weights": "bf16"})
    course = Course(model.model, platform, FORMATS, Recipe(2048, 64), 16, scenario.efficiency)
    steps, _ = steps_of(course)
    best = min(s.time_s for s in steps if s.needed_bytes <= s.usable_bytes)
    assert found["chosen"]["step_s"] == best
    times = [row["step_s"] for row in found["ranking"]]
    assert times == sorted(times)
    for row in found["ranking"]:
        assert row["state_bytes"] + row["activation_bytes"] <= row["usable_bytes"]
        assert row["tp"] * row["pp"] * row["dp"] == 16
        assert row["micro_batch"] * row["micro_batches"] * row["dp"] == 64
        assert 0 < row["mfu"] < 1


def test_arrays_of_micro_batches_equal_scalars() -> None:
    loaded, platform, _, _ = prepare("llama-2-7b", CLUSTER, 1, 1024, 1, None, {"weights": "bf16"})
    recipe, layout = Recipe(1024, 64), Layout(2, 2, 2, sp=True)
    grid = cost_pass(loaded.model, platform, layout, np.array([1.0, 4.0]), recipe, FORMATS, "calibrated")
    for at, size in enumerate((1, 4)):
        whole = step_of(grid, at, layout, size, recipe, platform)
        alone = step("llama-2-7b", layout, recipe, size)
        assert whole.time_s == pytest.approx(alone.time_s, rel=1e-12)
        assert whole.needed_bytes == pytest.approx(alone.needed_bytes, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, InputError),
        ({"global_batch": 0}, InputError),
        ({"global_batch": 8, "zero": 4}, InputError),
        ({"global_batch": 8, "devices": 1000}, InputError),
        ({"global_batch": 8, "weights": "int4-g128"}, InputError),
    ],
)
def test_bad_recipes_are_refused(options: dict[str, Any], kind: type[HwsimError]) -> None:
    with pytest.raises(kind):
        hwsim.plan_training("llama-2-7b", CLUSTER, **options)


def test_too_big_says_how_much_is_missing() -> None:
    with pytest.raises(InfeasibleError, match="short each") as error:
        hwsim.plan_training("llama-3.1-405b", CLUSTER, devices=8, global_batch=8)
    assert error.value.budget["short_bytes"] > 0


def test_cli() -> None:
    base = ["map", "llama-2-7b", "--hw", "dgx-a100", "--mapper", "parallelism", "--train", "32"]
    table = CliRunner().invoke(app, base)
    assert table.exit_code == 0, table.output
    assert "TFLOP/s/device" in table.output
    document = json.loads(CliRunner().invoke(app, [*base, "-f", "json", "--zero", "2"]).output)
    assert document["schema"] == "hwsim/training@1"
    assert document["recipe"]["zero"] == 2
    bad = CliRunner().invoke(app, [*base, "--slo", "ttft=1s"])
    assert isinstance(bad.exception, InputError) or bad.exit_code == 2
