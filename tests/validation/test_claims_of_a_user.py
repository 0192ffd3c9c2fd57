"""A claims file of the user's own: its rules drive it, its slips are named, its grids stay finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.errors import InputError

TEXT = """schema: hwsim/claims@1
system: mine
title: T
paper: p
defaults: {model: llama-2-7b, batch: 1, prompt_len: 16, gen_len: 64}
rules:
  - {words: [a100], hw: a100}
claims:
  - {id: one, claim: c, setup: {hardware: a100}, metric: tpot_s, published_value: 10.0, unit: ms, provenance: x}
"""


def rows(tmp_path: Path, old: str = "", new: str = "") -> list[dict[str, Any]]:
    assert old in TEXT
    file = tmp_path / "c.yaml"
    file.write_text(TEXT.replace(old, new, 1) if old else TEXT)
    return list(hwsim.reproduce(claims=file).document["rows"])


def test_its_own_rules_drive_it(tmp_path: Path) -> None:
    (row,) = rows(tmp_path)
    assert row["verdict"] in ("pass", "fail")
    document = hwsim.evaluate("llama-2-7b", "a100", prompt=16, output=64).document
    assert row["predicted"] == pytest.approx(1e3 * document["metrics"]["tpot_s"]["value"])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("metric: tpot_s", "metric: tpot", "did you mean tpot_s"),
        ("hw: a100", "hw: a10O", "did you mean a10"),
        ("hw: a100}", "hw: a100, options: {batch: [1, a]}}", "--batch"),
        ("hw: a100}", "hw: a100, grid: {" + ", ".join(f"x{i}: [1, 2, 3]" for i in range(9)) + "}}", "settings"),
    ],
)
def test_its_slips_are_reasons(tmp_path: Path, old: str, new: str, says: str) -> None:
    (row,) = rows(tmp_path, old, new)
    assert row["verdict"] == "unmapped"
    assert says in row["reason"]


def test_a_grid_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 item"):
        rows(tmp_path, "hw: a100}", "hw: a100, grid: {batch: []}}")


def test_lists_are_grids_in_python() -> None:
    listed = hwsim.evaluate("llama-2-7b", "a100", batch=[1, 2])
    assert list(listed.throughput_tokens_per_s) == [
        hwsim.evaluate("llama-2-7b", "a100", batch=size).throughput_tokens_per_s for size in (1, 2)
    ]
