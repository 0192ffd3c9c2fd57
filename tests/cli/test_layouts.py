"""Every verb that makes an estimate takes the same splits and replicas; a roofline of what does not fit says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hwsim
from tests.cli.test_cli import call

LAYOUT = ("--tp", "2", "--dp", "2", "--batch", "4", "--sp", "--set", "memories.hbm.read=3 TB/s")
SAME = {"tp": 2, "dp": 2, "batch": 4, "sp": True, "what_if": {"memories.hbm.read": "3 TB/s"}}


def test_compare_takes_replicas_and_what_ifs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", "gpt2", "--hw", "a100", "--hw", "h100", "--format", "json", *LAYOUT)
    columns = json.loads(out)["columns"]
    assert code == 0
    for column, name in zip(columns, ("a100", "h100"), strict=True):
        assert column["metrics"] == json.loads(json.dumps(hwsim.evaluate("gpt2", name, **SAME).document["metrics"]))


def test_roofline_takes_the_whole_layout(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "roofline", "gpt2", "--hw", "a100", "--format", "json", *LAYOUT, "--pp", "2")
    found = json.loads(out)
    tasks = hwsim.evaluate("gpt2", "a100", **SAME, pp=2).document["phases"][0]["tasks"]
    expected = next(t for t in tasks if t["name"] == "block.qkv")
    point = next(p for p in found["points"] if (p["phase"], p["name"]) == ("prefill", "block.qkv"))
    assert code == 0 and err == "" and found["fits"] is True
    assert point["time_s"] == expected["time_s"]


def test_explain_takes_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "explain", "gpt2", "latency_s", "--hw", "a100", *LAYOUT)
    alone = call(capsys, "explain", "gpt2", "latency_s", "--hw", "a100", "--batch", "4")[1]
    assert code == 0 and "TTFT" in out and out != alone


def test_compare_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.html"
    code, out, err = call(capsys, "compare", "gpt2", "--hw", "a100", "--hw", "h100", "-o", str(file))
    assert (code, out) == (0, "") and str(file) in err
    page = file.read_text()
    assert page.startswith("<!doctype html>") and "h100-sxm" in page and "Sources of the prices" in page


def test_a_comparison_that_nothing_can_run_is_a_page_and_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.html"
    assert call(capsys, "compare", "llama-3.1-405b", "--hw", "a100", "--hw", "t4", "-o", str(file))[0] == 3
    assert "does not fit" in file.read_text()


def test_a_roofline_of_what_does_not_fit_is_headed_by_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("roofline", "llama-3.1-405b", "--hw", "a100")
    words = "warning: llama-3.1-405b does not fit on a100-sxm4-80gb with tp 1"
    code, out, err = call(capsys, *ask)
    assert code == 0 and out.startswith(words) and "ridge point" in out and err == ""
    code, out, err = call(capsys, *ask, "--format", "json")
    assert code == 0 and err.startswith(words) and json.loads(out)["fits"] is False
    code, out, err = call(capsys, *ask, "--format", "csv")
    assert err.startswith(words) and out.startswith("phase,")
    call(capsys, *ask, "-o", str(tmp_path / "r.html"))
    assert "does not fit on a100-sxm4-80gb" in (tmp_path / "r.html").read_text()
    assert "warning" not in call(capsys, "roofline", "llama-2-7b", "--hw", "a100")[1]
