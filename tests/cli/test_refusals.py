"""Command lines that must end with a named option or key, never with a number or a bug."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import get_args

import pytest

from hwsim.cli.main import run
from hwsim.cost.registry import FAMILIES
from hwsim.schema.accelerator import Kind
from tests.cli.test_cli import call


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("pair llama-2-7b --hw dgx-h100 --network|0 GB/s", 2, "--network"),
        ("pair llama-2-7b --hw dgx-h100 --network|-1 GB/s", 2, "above 0"),
        ("speculate llama-2-7b --hw h100 --draft bert-base", 2, "bert-base makes no tokens"),
        ("timeline llama-3.1-405b --hw h100", 3, "does not fit"),
        ("timeline llama-3.1-405b --hw dgx-h100 --tp 8 --batch 1000000000", 3, "does not fit"),
        ("evaluate llama-2-7b --hw a100 --hw h100", 2, "--hw is given twice"),
        ("evaluate llama-2-7b --hw a100 -b 1 -b 2", 2, "-b is given twice"),
        ("evaluate llama-2-7b --hw a100 --set cores.count=1 --set cores.count=2", 2, "one field twice"),
        ("compare llama-2-7b --hw a100 --hw h100 -o x.md", 2, "-o x.md"),
        ("show h100 --kind foo", 2, "no kind of content named 'foo'"),
        ("validate serving /nonexistent", 2, "no such folder"),
        ("reproduce sail --efficiency datashet", 2, "did you mean datasheet?"),
    ],
)
def test_refused(line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    head, bar, last = line.partition("|")
    found = run([*head.split(), *([last] if bar else [])])
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert words in err
    assert len(err.strip().splitlines()) <= 4


def test_weights_that_come_over_a_link_need_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["timeline", "llama-2-70b", "--hw", "a100", "--prefetch", "pcie", "--format", "json"]) == 0
    assert capsys.readouterr().out.startswith("{")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": "hwsim/estimate@1"}', "'metrics' is missing"),
        ('{"schema": "hwsim/estimate@1", "metrics": {}}', "is missing"),
        ('{"schema": "hwsim/estimate@1", "metrics": 5}', "another form"),
        ('{"schema": "hwsim/mapping@1"}', "'operators' is missing"),
        ('{"a":' * 9000, "nested too deeply"),
        ("{", "is not JSON"),
    ],
)
def test_saved_documents_that_are_not_whole(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.json"
    file.write_text(text)
    assert run(["explain", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and "e.json" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"cases": [5]}', "another form"),
        ('{"cases": [{"name": "a", "constants": {}}]}', "'per_request' is missing"),
        ('{"cases": [{"name": "a", "constants": {}, "time_scale_factor": "x"}]}', "another form"),
        ("[" * 9000, "nested too deeply"),
    ],
)
def test_cases_that_are_not_whole(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cases.json").write_text(text)
    with gzip.open(tmp_path / "trace.csv.gz", "wt") as trace:
        trace.write("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n")
    assert run(["validate", "serving", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and "cases.json" in err


def test_a_claims_file_without_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("schema: hwsim/claims@1\nsystem: s\ntitle: t\npaper: p\n")
    assert run(["reproduce", "--claims", str(file)]) == 2
    assert "lists no claims" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "timeline", "roofline", "explain", "compare"])
@pytest.mark.parametrize("model", ["vit-base-patch16-224", "bert-base"])
def test_output_of_a_model_that_generates_nothing_is_said(
    verb: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = ["--hw", "a100", *(["--hw", "t4"] if verb == "compare" else [])]
    asked = [verb, model, *(["latency_s"] if verb == "explain" else []), *machines]
    words = f"{model} answers in one pass and generates no tokens: output 7 is not used"
    code, out, err = call(capsys, *asked, "--output", "7")
    assert code == 0 and words in (out if verb in ("evaluate", "compare") else err)
    assert "no tokens" not in "".join(call(capsys, *asked)[1:])
    assert "no tokens" not in "".join(call(capsys, verb, "gpt2", *asked[2:], "--output", "7")[1:])


@pytest.mark.parametrize("verb", ["evaluate", "check"])
def test_an_unknown_kind_of_device_is_refused_at_its_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: h100-sxm\nname: mine\nkind: wafre\n")
    asked = ["check", str(file)] if verb == "check" else ["evaluate", "gpt2", "--hw", str(file)]
    code, _, err = call(capsys, *asked)
    assert code == 2 and f"{file}:3 kind" in err and "did you mean 'wafer'" in err


def test_kinds_of_files_are_those_that_can_be_priced() -> None:
    assert set(get_args(Kind)) == set(FAMILIES)


def test_a_file_that_hides_a_shipped_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hardware" / "accelerators" / "a100-sxm4-80gb.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("schema: hwsim/accelerator@1\nname: a100\n  bad: [\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "evaluate", "gpt2", "--hw", "a100")
    assert code == 2 and str(file) in err and "hides" in err and "hwsim check" in err
    code, _, err = call(capsys, "evaluate", "gpt2", "--hw", "a100-sxm4-80gb")
    assert code == 2 and f"{file}:3" in err
    code, _, err = call(capsys, "evaluate", "gpt2", "--hw", "a10o")
    assert code == 2 and "hides" not in err
