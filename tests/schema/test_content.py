"""Names resolve as the contract says: path, HWSIM_PATH, ./hardware, shipped; aliases and suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim import content
from hwsim.errors import HwsimError, UnknownNameError
from hwsim.schema.loader import load_hardware, merge

WHAT_IF = """schema: hwsim/accelerator@1
name: {name}
title: A100 with faster memory
kind: gpu
extends: a100-sxm4-80gb
memories:
  - {{name: hbm, read: 4 TB/s}}
"""


@pytest.mark.parametrize("name", ["a100", "a100.yaml", "A100", "a100-sxm4-80gb", "A100-SXM4-80GB", "a100_sxm4_80gb"])
def test_spellings_of_one_device(name: str) -> None:
    assert load_hardware(name).platform.device.name == "a100-sxm4-80gb"


def test_nearer_folders_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "hardware" / "accelerators"
    local.mkdir(parents=True)
    (local / "a100-sxm4-80gb.yaml").write_text(
        WHAT_IF.format(name="mine").replace("extends: a100-sxm4-80gb", "extends: h100-sxm")
    )
    monkeypatch.chdir(tmp_path)
    assert load_hardware("a100-sxm4-80gb").platform.name == "mine"
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "faster.yaml").write_text(WHAT_IF.format(name="faster"))
    monkeypatch.setenv("HWSIM_PATH", str(flat))
    monkeypatch.chdir(flat)
    platform = load_hardware("faster").platform
    assert platform.device.main_memory.read_bytes_per_s == 4e12
    assert platform.device.peak("bf16") == 312e12


def test_a_file_by_path(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WHAT_IF.format(name="x"))
    assert load_hardware(str(path)).platform.name == "x"


@pytest.mark.parametrize(("name", "hint"), [("h200_smx", "h200"), ("a1000", "a100"), ("lama", "`hwsim list")])
def test_misspelt_names_get_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        content.resolve(name, *content.HARDWARE_KINDS)
    assert hint in caught.value.fix


@pytest.mark.parametrize("name", ["", "\0", "x" * 2000, "/nowhere/a.yaml", "../../../etc/passwd", "."])
def test_strange_names_are_input_errors(name: str) -> None:
    with pytest.raises(HwsimError) as caught:
        load_hardware(name)
    assert caught.value.exit_code == 2


def test_extends_cannot_leave_the_catalog_or_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_PATH", str(tmp_path))
    base = WHAT_IF.format(name="p").split("extends")[0]
    (tmp_path / "p.yaml").write_text(base + "extends: q\n")
    (tmp_path / "q.yaml").write_text(base + "extends: p\n")
    (tmp_path / "r.yaml").write_text(base + "extends: ../../etc/passwd\n")
    for name in ("p", "r"):
        with pytest.raises(HwsimError) as caught:
            load_hardware(name)
        assert caught.value.exit_code == 2 and "extends" in caught.value.what


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WHAT_IF.format(name="x") + "memoris: 3\npower: {tdp: -4 W}\ncompute: []\n")
    with pytest.raises(HwsimError) as caught:
        load_hardware(str(path))
    text = caught.value.render()
    assert "did you mean 'memories'?" in text and "power.tdp" in text and "x.yaml:9" in text


def test_merge_by_name_or_replace() -> None:
    base = {"l": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}], "k": {"m": 1, "n": 2}}
    assert merge(base, {"l": [{"name": "a", "x": 5}], "k": {"n": 7}}) == {
        "l": [{"name": "a", "x": 5, "y": 2}, {"name": "b"}],
        "k": {"m": 1, "n": 7},
    }
    assert merge(base, {"l": [{"name": "c"}]})["l"] == [{"name": "c"}]
