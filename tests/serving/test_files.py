"""Traces and scenario files as people and spreadsheets write them: what is meant is read, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import hwsim
from hwsim.errors import HwsimError, InputError
from hwsim.serving.traces import read_trace

HEAD = "arrival_s,input_tokens,output_tokens\n"
SCENARIO = "schema: hwsim/serving-scenario@1\nworkload: llama-2-7b\nhw: a100\nrequests: 5\nrate: 2\n"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + (HEAD + "1,5,5\n").encode())
    assert len(read_trace(tmp_path / "t.csv")) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "1,5,5,5\n", "more cells than columns"),
        (HEAD + "1e308,5,5\n", "not a time"),
        ("arrival_s," + HEAD + "1,1,2,3\n", "names a column twice"),
        (HEAD.replace("\n", ",model\n") + "1,5,5,a\n2,5,5,\n", "some rows only"),
    ],
)
def test_rows_that_cannot_be_meant_are_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_trace(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("failures: 5", "failures takes text or a list"),
        ("failures: [5]", "REPLICA:DOWN"),
        ("what_if: 5", "what_if takes a mapping"),
        ("what_if: {memories.hbm.read: 3}", "without a unit"),
        ("also: 5", "also takes text or a list"),
        ("limits: 5\ncapacity: true", "limits takes text or a mapping"),
        ("prompt: true", "prompt takes a number"),
        ("trace: 5", "trace takes text"),
        ("application: {a: 1}", "application takes a list"),
    ],
)
def test_an_option_of_another_form_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{SCENARIO}{line}\n")
    with pytest.raises(HwsimError, match=says):
        hwsim.simulate(str(file))
