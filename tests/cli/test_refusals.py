"""Command lines that must end with a named option or key, never with a number or a bug."""

from __future__ import annotations

import pytest

from hwsim.cli.main import run


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("pair llama-2-7b --hw dgx-h100 --network|0 GB/s", 2, "--network"),
        ("pair llama-2-7b --hw dgx-h100 --network|-1 GB/s", 2, "above 0"),
        ("speculate llama-2-7b --hw h100 --draft bert-base", 2, "bert-base makes no tokens"),
        ("timeline llama-3.1-405b --hw h100", 3, "does not fit"),
        ("timeline llama-3.1-405b --hw dgx-h100 --tp 8 --batch 1000000000", 3, "does not fit"),
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
