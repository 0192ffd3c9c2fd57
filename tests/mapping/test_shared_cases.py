"""Counts of fixed mappings and listed optima of the reference data, exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.mapping.adapt import machine_of
from hwsim.schema.loader import load_accelerator
from hwsim.validation import mapping as v

QUICK = ("qk_prefill2048_head", "qkv_decode1", "qk_decode1_head")
pytestmark = pytest.mark.shared


def _machines(shared: Path) -> dict[str, v.Machine]:
    specs = json.loads((shared / "mappers" / "specs.json").read_text())
    return {name: v.machine_of_spec(name, spec) for name, spec in specs.items()}


def test_every_count_check_is_exact(shared: Path) -> None:
    document = v.validate_mapping(shared / "mappers", optima=False)
    assert len(document["count_checks"]) == 10
    assert [row for row in document["count_checks"] if not row["passed"]] == []
    # one case: 203776 words at 16 a cycle are 12736 cycles exactly, listed as 12737 (rounding noise of the list)
    assert [(i, row["cycles"]) for i, row in enumerate(document["count_checks"]) if row["cycles"]] == [(4, -1)]


def test_a_wrong_count_is_seen(shared: Path, tmp_path: Path) -> None:
    for name in ("specs.json", "optimum.json", "count_checks.json"):
        data = json.loads((shared / "mappers" / name).read_text())
        if name == "count_checks.json":
            data["cases"][3]["accesses"]["GLB"]["B"]["reads"] += 1
            data["cases"][5]["cycles"] += 1
        (tmp_path / name).write_text(json.dumps(data))
    document = v.validate_mapping(tmp_path, optima=False)
    assert not document["passed"]
    assert [i for i, row in enumerate(document["count_checks"]) if not row["passed"]] == [3, 5]


def _optima(shared: Path, quick: bool) -> None:
    machines = _machines(shared)
    cases = json.loads((shared / "mappers" / "optimum.json").read_text())["cases"]
    chosen = [case for case in cases if (case["name"] in QUICK) == quick]
    rows = [row for case in chosen for row in v.check_optimum(machines, case, "auto")]
    assert len(rows) == 9
    assert [row for row in rows if not row["passed"]] == []


def test_optima_quick(shared: Path) -> None:
    _optima(shared, quick=True)


@pytest.mark.long
def test_optima_of_the_large_shapes(shared: Path) -> None:
    _optima(shared, quick=False)


def test_the_catalog_machine_is_the_reference_machine(shared: Path) -> None:
    listed, ours = _machines(shared)["g3_256"], machine_of(load_accelerator("g3_256")[0])
    assert ours.mac_energy == listed.mac_energy and ours.word_bits == listed.word_bits
    for mine, theirs in zip(ours.levels, listed.levels, strict=True):
        for field in ("words", "fanout", "read_words_per_cycle", "read_energy", "write_energy", "shared_port"):
            assert getattr(mine, field) == getattr(theirs, field), (mine.name, field)
