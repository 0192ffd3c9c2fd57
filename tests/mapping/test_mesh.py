"""Squares of a mesh: the program equals trying everything, never worse than one square for all, limits named."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import hwsim
from hwsim.cost import wafer
from hwsim.errors import InfeasibleError
from hwsim.mapping import MeshProblem, best_squares


def toy(seed: int, room: float) -> MeshProblem:
    rng = np.random.default_rng(seed)
    n, s = 4, 3
    sides = np.array([60, 120, 180])
    move = rng.uniform(0, 3, (n, s, s)) * (1 - np.eye(s))
    held = rng.uniform(1, 4, (n, 1)) / np.array([1.0, 2.0, 3.0])
    return MeshProblem(
        tuple("abcd"), sides, rng.uniform(1, 10, (n, s)), held, np.array([3, 0, 1, 2]), move, np.ones(n),
        np.array([1.0, 2.0, 3.0]), room, 3, 32,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_the_squares_equal_trying_all(seed: int) -> None:
    problem = toy(seed, room=8.0)
    every = [np.array(c) for c in itertools.product(range(3), repeat=4)]
    legal = [problem.value(c) for c in every if problem.core_bytes(c) <= problem.room]
    if not legal:
        with pytest.raises(InfeasibleError, match="more than a core has"):
            best_squares(problem)
        return
    found = best_squares(problem)
    assert found.report.objective == pytest.approx(min(legal), rel=1e-9) and found.report.status == "optimal"
    assert problem.core_bytes(np.array(found.chosen)) <= problem.room


def test_what_no_core_holds_and_trees_without_routes_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="more than a core has"):
        best_squares(toy(0, room=0.1))
    import dataclasses

    with pytest.raises(InfeasibleError, match="routes"):
        best_squares(dataclasses.replace(toy(0, math.inf), routes=40))


@pytest.mark.parametrize("model", ["opt-125m", "llama-2-7b"])
def test_a_wafer_with_squares_is_never_slower_than_with_one(model: str) -> None:
    one, many = (hwsim.evaluate(model, "wse2", prompt=512, output=64, mapper=m) for m in ("roofline", "wafer"))
    assert many.ttft_s <= one.ttft_s and many.tpot_s <= one.tpot_s
    document = many.document
    assert document["mapping"]["phases"]["decode"]["status"] == "optimal"
    assert document["metrics"]["core_bytes"]["value"] <= 48 * 1024
    sides = {t["name"]: t["mapping"]["grid"] for t in document["phases"][1]["tasks"]}
    assert len(set(sides.values())) > 1 and all(side % wafer.SIDE_STEP == 0 for side in sides.values())


def test_a_side_that_the_user_fixes_stays() -> None:
    asked = {"mesh.decode_grid": 420, "mesh.prefill_grid": 660}
    one, many = (hwsim.evaluate("llama-2-7b", "wse2", mapper=m, what_if=asked) for m in ("roofline", "wafer"))
    assert many.tpot_s == pytest.approx(one.tpot_s) and many.ttft_s == pytest.approx(one.ttft_s)


def test_too_large_a_model_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="more than a core"):
        hwsim.evaluate("codellama-34b", "wse2", mapper="wafer")
