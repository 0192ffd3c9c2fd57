"""Wafer-scale meshes: published rates, trends over core counts, capacity, and the family of all-reduces."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.api import evaluate
from hwsim.cost.wafer import reduction
from hwsim.errors import InfeasibleError
from hwsim.schema.loader import load_accelerator


def rate(phase: str, side: int, model: str = "llama-3-8b", **more: object) -> float:
    scaled = model != "llama-3-8b"
    what_if = {f"mesh.{phase}_grid": side, "mesh.layer_scaled": scaled, **more}
    if phase == "decode":
        return 1 / float(evaluate(model, "wse2", prompt=4095, output=2, what_if=what_if, check_fit=False).tpot_s)
    return 4096 / float(evaluate(model, "wse2", prompt=4096, output=2, what_if=what_if, check_fit=False).ttft_s)


@pytest.mark.parametrize(
    ("phase", "side", "model", "published"),
    [
        ("decode", 420, "llama-3-8b", 2699.9),
        ("decode", 660, "llama-3-8b", 2243.3),
        ("decode", 540, "codellama-34b", 1407.7),
        ("prefill", 480, "llama-3-8b", 20320.6),
        ("prefill", 720, "llama-3-8b", 27686.5),
        ("prefill", 600, "codellama-34b", 7540.1),
    ],
)
def test_published_rates(phase: str, side: int, model: str, published: float) -> None:
    assert rate(phase, side, model) == pytest.approx(published, rel=0.04)


def test_more_cores_slow_decode_and_speed_prefill() -> None:
    decode = [rate("decode", side) for side in (420, 540, 660)]
    prefill = [rate("prefill", side) for side in (480, 600, 720)]
    assert decode == sorted(decode, reverse=True)
    assert prefill == sorted(prefill)


def test_the_shifted_cache_holds_a_row_for_every_core_of_a_side() -> None:
    shift = evaluate("llama-3-8b", "wse2", prompt=64, output=2, what_if={"mesh.decode_grid": 360})
    concat = evaluate("llama-3-8b", "wse2", prompt=64, output=2, what_if={"mesh.decode_grid": 360, "mesh.kv": "concat"})
    longest = [r.document["metrics"]["max_context_tokens"]["value"] for r in (shift, concat)]
    assert longest[0] == 360 * longest[1]
    assert longest[1] == pytest.approx(382, abs=2)


def test_a_core_that_overflows_is_refused_with_the_bytes() -> None:
    with pytest.raises(InfeasibleError, match="B more than a core") as caught:
        evaluate("codellama-34b", "wse2", what_if={"mesh.decode_grid": 420}, check_fit=False)
    assert caught.value.budget["missing"] > 0


def test_the_mapper_finds_the_best_legal_square() -> None:
    chosen = evaluate("llama-3-8b", "wse2", prompt=2048, output=16)
    sides = range(240, 921, 60)
    tried = [evaluate("llama-3-8b", "wse2", prompt=2048, output=16, what_if={"mesh.decode_grid": s}) for s in sides]
    assert float(chosen.tpot_s) == pytest.approx(min(float(r.tpot_s) for r in tried), rel=1e-12)


def test_all_reduce_family() -> None:
    section = load_accelerator("wse2")[0].extra["mesh"]
    cycles = {s: reduction(400, {**section, "scheme": s}) for s in ("mesh", "pipeline", "ring", "t10", "ladder")}
    assert cycles["mesh"] == pytest.approx(400 + 31.7 * 20)
    assert cycles["mesh"] < cycles["pipeline"] < cycles["t10"] < cycles["ring"] < cycles["ladder"]


def test_a_tree_with_more_levels_than_routes_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="routes more"):
        evaluate("llama-3-8b", "wse2", what_if={"mesh.tree": 40})


def test_a_grid_of_contexts_equals_its_points() -> None:
    prompts = np.array([256, 1024, 4096])
    grid = evaluate("llama-3-8b", "wse2", prompt=prompts, output=16)
    points = [evaluate("llama-3-8b", "wse2", prompt=int(p), output=16) for p in prompts]
    assert np.allclose(grid.latency_s, [p.latency_s for p in points], rtol=1e-12)


def test_meshgemm_stays_efficient_where_summa_does_not() -> None:
    mesh, summa = (
        evaluate("gemm:8640x8640x8640", "wse2", weights="fp16", what_if={"mesh.scheme": s, "mesh.prefill_grid": 720})
        for s in ("mesh", "summa")
    )
    assert mesh.document["metrics"]["compute_efficiency"]["value"] > 0.7
    assert summa.document["metrics"]["compute_efficiency"]["value"] < 0.5
