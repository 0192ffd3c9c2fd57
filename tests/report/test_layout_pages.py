"""Pages of placements and layouts: complete, without scripts, names escaped, bars within their room."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.cli.main import run
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
