"""Pages of placements and layouts: complete, without scripts, names escaped, bars within their room."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.cli.main import run
from hwsim.report.layouts_page import plan_page
from hwsim.report.parallelism import layout_name
from hwsim.report.placement_page import placement_page

ASKED: dict[str, Any] = {
    "graph": (("a40", "xeon-8380"), {"explain": True}),
    "contiguous": (("a40", "a40"), {"cut": "contiguous"}),
    "tiers": (("a40",), {"tiers": ("cz120:2",), "rooms": {"gddr": "8 GiB"}}),
}


@pytest.fixture(scope="module")
def placed() -> dict[str, dict[str, Any]]:
    return {kind: hwsim.place("llama-2-7b", hw, **more).document for kind, (hw, more) in ASKED.items()}


def _widths(page: str) -> list[float]:
    return [float(found) for found in re.findall(r"width:([0-9.]+)%", page)]


@pytest.mark.parametrize("kind", sorted(ASKED))
def test_a_placement_page_shows_every_memory_and_what_lies_there(placed: dict[str, Any], kind: str) -> None:
    document = placed[kind]
    page = placement_page(document)
    rows = document["tiers" if kind == "tiers" else "sites"]
    for row in rows:
        assert f"<b>{row['name']}" in page
    for row in document["tensors" if kind == "tiers" else "operators"]:
        assert f">{row['name']}</td>" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert document["report"]["status"] in page
    assert max(_widths(page)) <= 100.0
    bars = re.findall(r'<div class="bar tall">(.*?)</div>', page)
    assert len(bars) >= len(rows)
    assert all(sum(_widths(bar)) <= 100.0 + 0.4 * bar.count("<span") for bar in bars)
    assert ("Stages" in page) == (kind == "contiguous") and ("What if" in page) == (kind == "graph")


def test_names_on_pages_are_escaped(placed: dict[str, Any]) -> None:
    document = placed["graph"]
    operators = [document["operators"][0] | {"name": "<script>alert(1)</script>"}, *document["operators"][1:]]
    page = placement_page(document | {"operators": operators, "workload": "<i>mine"})
    assert "<script" not in page and "<i>mine" not in page and "&lt;script&gt;" in page


def test_the_command_line_writes_the_page(tmp_path: Path) -> None:
    out = tmp_path / "x.html"
    assert run(["map", "llama-2-7b", "--mapper", "placement", "--hw", "a40", "--hw", "xeon-8380", "-o", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")


PLAN: dict[str, Any] = {"objective": "throughput", "slo": "tpot=20ms", "devices": 4}


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    return hwsim.plan("llama-3.1-8b", "dgx-h100", **PLAN).document


def test_a_plan_page_draws_the_front_and_numbers_the_layouts(planned: dict[str, Any]) -> None:
    page = plan_page(planned)
    circles = re.findall(r'<circle class="(\w+)" cx="([0-9.]+)" cy="([0-9.]+)"', page)
    assert [kind for kind, _, _ in circles].count("point") == len(planned["pareto"])
    assert [kind for kind, _, _ in circles].count("chosen") == 1
    assert [kind for kind, _, _ in circles].count("ranked") == len(planned["ranking"]) - 1
    assert all(0 <= float(x) <= 1100 and 0 <= float(y) <= 430 for _, x, y in circles)
    assert 'class="limit"' in page and "<script" not in page
    for row in planned["ranking"]:
        assert f">{layout_name(row)}</td>" in page
    front = [(float(x), float(y)) for kind, x, y in circles if kind == "point"]
    assert front == sorted(front) and [y for _, y in front] == sorted((y for _, y in front), reverse=True)


def test_positions_on_the_drawing_are_logarithms(planned: dict[str, Any]) -> None:
    page = plan_page(planned)
    drawn = [float(x) for x in re.findall(r'<circle class="point" cx="([0-9.]+)"', page)]
    seconds = sorted(row["tpot_s"] for row in planned["pareto"])
    steps = [(b - a, math.log(t / s)) for a, b, s, t in zip(drawn, drawn[1:], seconds, seconds[1:], strict=False)]
    scale = (drawn[-1] - drawn[0]) / math.log(seconds[-1] / seconds[0])
    assert len(steps) > 3
    assert all(pixels == pytest.approx(scale * step, abs=0.03) for pixels, step in steps)


def test_a_page_says_what_beats_the_choice(planned: dict[str, Any]) -> None:
    better = planned["ranking"][1]
    solver = planned["solver"] | {"status": "feasible", "gap": 0.1, "claimed": "optimal", "better": better}
    page = plan_page(planned | {"solver": solver})
    assert "not the best: " in page and "proved best" not in page


def test_encoders_stages_and_training_have_pages_too(tmp_path: Path) -> None:
    encoder = plan_page(hwsim.plan("bert-base", "dgx-h100", devices=2).document)
    assert "time of a request" in encoder
    for name, more in (
        ("s", ["--stage", "h100-sxm:2", "--stage", "l40s:2"]),
        ("t", ["--hw", "dgx-h100", "--train", "64"]),
    ):
        out = tmp_path / f"{name}.html"
        assert run(["map", "llama-3.1-8b", "--mapper", "parallelism", *more, "-o", str(out)]) == 0
        assert "<pre" in out.read_text() and "<svg" not in out.read_text()
