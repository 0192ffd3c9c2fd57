"""Reports read documents only: an old JSON redraws without recomputation, everything is escaped, tables add up."""

from __future__ import annotations

import json
from typing import Any

import pytest

import hwsim
from hwsim.report import rows
from hwsim.report.explain import explain, subjects
from hwsim.report.figures import memory_figure, roofline_figure, time_figure
from hwsim.report.frames import guard
from hwsim.report.html import fragment, page
from hwsim.report.table import comparison_table, estimate_table, roofline_table


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """A document that has been through JSON, as one read from a file years later."""
    document = hwsim.evaluate("mixtral-8x7b", "dgx-h100", tp=2, batch=4).document
    return dict(json.loads(json.dumps(document)))


def test_everything_draws_from_a_saved_document(saved: dict[str, Any]) -> None:
    for text in (estimate_table(saved), roofline_table(saved), fragment(saved)):
        assert "mixtral-8x7b" in text
    assert len(fragment(saved)) < 50_000
    for figure in (roofline_figure(saved), time_figure(saved), memory_figure(saved)):
        assert len(figure.data) >= 2
    assert page(saved) == page(saved)


def test_shares_of_a_phase_sum_to_one(saved: dict[str, Any]) -> None:
    for phase in ("prefill", "decode"):
        assert sum(r.share for r in rows.task_rows(saved) if r.phase == phase) == pytest.approx(1)


def test_every_number_can_be_explained(saved: dict[str, Any]) -> None:
    for subject in subjects(saved):
        assert len(explain(saved, subject)) > 20, subject


def test_names_are_escaped(saved: dict[str, Any]) -> None:
    evil = json.loads(json.dumps(saved))
    script = "<script>alert(1)</script>"
    evil["workload"]["name"] = evil["warnings"][0:1] = evil["phases"][0]["tasks"][0]["name"] = script
    evil["warnings"] = [script]
    for text in (fragment(evil), page(evil)):
        assert "<script>alert(1)" not in text


@pytest.mark.parametrize(
    "options", [{}, {"weights": "fp8"}, {"weights": "int4", "batch": 64}, {"efficiency": "datasheet"}]
)
def test_points_lie_below_the_roof_of_their_own_unit_and_dtype(options: dict[str, Any]) -> None:
    document = hwsim.evaluate("mixtral-8x7b", "dgx-h100", tp=4, **options).document
    points = {(p.phase, p.name): p for p in rows.roofline_points(document)}
    for point in points.values():
        assert point.attained_flop_per_s <= point.attainable_flop_per_s * (1 + 1e-9), point
    peaks = document["hardware"]["compute"]
    assert points["prefill", "block.norm1"].attainable_flop_per_s <= peaks["vector/bf16"]
    assert max(rows.roofs(document).values()) == pytest.approx(
        peaks["tensor/fp8" if "weights" in options and options["weights"] == "fp8" else "tensor/bf16"]
    )


def test_each_bound_has_a_colour_of_its_own() -> None:
    document = hwsim.evaluate("mixtral-8x7b", "h200", batch=8).document
    colors = [bar.marker.color for bar in time_figure(document).data]
    assert len(set(colors)) == len(colors) >= 4


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@x"])
def test_csv_cells_cannot_be_formulas(cell: str) -> None:
    assert guard(cell) == "'" + cell
    assert guard(-1.5) == -1.5


def test_a_comparison_says_what_differs() -> None:
    comparison = hwsim.compare("llama-2-7b", ["a100", "t4", "h100"])
    text = comparison_table(comparison)
    assert "weight format differs" in text or "price date differs" in text
    assert "best" in text


def test_notebook_view_and_frame() -> None:
    result = hwsim.evaluate("gpt2-xl", "t4")
    assert result._repr_html_().startswith("<div>")
    frame = result.to_frame()
    assert {"phase", "name", "time_s", "bound"} <= set(frame.columns) and len(frame) > 10
    assert result.tpot_s == result.document["metrics"]["tpot_s"]["value"]
    with pytest.raises(AttributeError):
        _ = result.no_such_metric
