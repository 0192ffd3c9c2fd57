"""Decisions on disk: what their key covers, and what a broken entry or folder does (nothing)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hwsim.ir.mapped import SolverReport
from hwsim.mapping import Gemm, Tiling, cache, machine_of
from hwsim.mapping.protocol import Decision
from hwsim.schema.loader import load_hardware

TILING = Tiling(((1, 1, 1), (4, 4, 4)), ((1, 1, 1),), ("MNK", "MNK"), ("ABZ", "ABZ"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path))
    return tmp_path / "mapping"


def test_the_hash_of_the_sources_covers_subfolders(tmp_path: Path) -> None:
    package = tmp_path / "package" / "inner"
    package.mkdir(parents=True)
    (package / "search.py").write_text("a = 1")
    before = cache.sources_hash(package.parent)
    (package / "search.py").write_text("a = 2")
    assert cache.sources_hash(package.parent) != before


def test_names_play_no_part_in_a_key_and_everything_else_does() -> None:
    machine = machine_of(load_hardware("g3-256").platform.device)
    key = cache.key_of(machine, Gemm(4, 4, 4), "edp", "m")
    assert key == cache.key_of(replace(machine, name="other"), Gemm(4, 4, 4, name="x"), "edp", "m")
    others = {
        cache.key_of(machine, Gemm(4, 4, 8), "edp", "m"),
        cache.key_of(machine, Gemm(4, 4, 4), "energy", "m"),
        cache.key_of(machine, Gemm(4, 4, 4), "edp", "n"),
        cache.key_of(replace(machine, mac_energy=machine.mac_energy + 1), Gemm(4, 4, 4), "edp", "m"),
    }
    assert len(others) == 4 and key not in others


def test_an_entry_comes_back_as_it_was(folder: Path) -> None:
    report = SolverReport("s", "1", "optimal", 3.0, math.nan, 0.0, 0.1)
    cache.store("k", Decision(TILING, report))
    found = cache.load("k")
    assert found is not None and found.tiling == TILING and math.isnan(found.report.bound)
    assert replace(found.report, bound=0.0) == replace(report, bound=0.0)
    assert [path.name for path in folder.iterdir()] == ["k.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"tiling": 3, "report": {}}'])
def test_a_broken_entry_is_no_entry(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "k.json").write_text(text)
    assert cache.load("k") is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    cache.store("k", Decision(TILING, SolverReport("s", "1", "optimal", 1.0, 1.0, 0.0, 0.1)))
    assert cache.load("k") is None
