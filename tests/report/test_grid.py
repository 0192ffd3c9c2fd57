"""Tables on narrow terminals: nothing is torn inside a word, nothing is lost, no line is wider than the terminal."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hwsim
from hwsim.report.grid import grid
from hwsim.report.rows import span
from hwsim.report.table import estimate_table, render

HEADER = ("phase", "operator", "time", "share", "what it says about itself")
BODY = [
    ("prefill", "block.attention", "19.1 us", "63.7 %", "some words of text that may break"),
    ("", "b", "1 s", "", ""),
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return monkeypatch


def plain(text: str) -> list[str]:
    import re

    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.split("\n")]


@pytest.mark.parametrize("columns", [60, 66, 72, 80, 100, 200])
def test_lines_fit_and_cells_stay_whole(terminal: pytest.MonkeyPatch, columns: int) -> None:
    terminal.setenv("COLUMNS", str(columns))
    lines = plain(render(grid(HEADER, BODY, left=(0, 1, 4))))
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for cell in ("block.attention", "19.1 us", "63.7 %", "words", "itself"):
        assert cell in text


def test_an_estimate_on_eighty_columns_keeps_every_operator_and_number(terminal: pytest.MonkeyPatch) -> None:
    document = hwsim.evaluate("llama-2-7b", "a100").document
    terminal.setenv("COLUMNS", "1000")
    wide = {word for line in plain(estimate_table(document)) for word in line.split()}
    terminal.setenv("COLUMNS", "80")
    narrow = {word for line in plain(estimate_table(document)) for word in line.split()}
    assert {word for word in wide if "─" not in word} == {word for word in narrow if "─" not in word}


@given(st.integers(60, 300), st.lists(st.integers(1, 29), min_size=1, max_size=9))
def test_columns_are_kept_in_order_and_complete(columns: int, sizes: list[int]) -> None:
    body = [tuple(chr(97 + i) * size for i, size in enumerate(sizes))]
    header = tuple("T" for _ in sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        found = [word for line in plain(render(grid(header, body))) for word in line.split() if word[0] in "abcdefghi"]
    assert list(dict.fromkeys(found)) == list(body[0])


def test_a_unit_that_both_ends_share_is_said_once() -> None:
    assert span(0.030, 0.040, "s") == "30.0 - 40.0 ms"
    assert span(0.5, 1.5, "s") == "500 ms - 1.50 s"
    assert span(1.0, 1.0, "s") == ""
