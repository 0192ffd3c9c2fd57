"""Trace readers: every schema, malformed rows by line, hostile files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.serving.traces import read_trace


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", "arrival_s,input_tokens,output_tokens\n5,10,2\n6.5,20,3\n"),
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,10,2\n"
            "2023-11-16 18:17:05.4799600,20,3\n",
        ),
        ("burst.csv", "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,10,2\n6.5,GPT-4,20,3\n"),
        ("vidur.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n6.5,20,3\n5,10,2\n"),
        (
            "mooncake.jsonl",
            '{"timestamp": 5000, "input_length": 10, "output_length": 2, "hash_ids": [1]}\n'
            '{"timestamp": 6500, "input_length": 20, "output_length": 3, "hash_ids": [1, 2]}\n',
        ),
    ],
)
def test_every_schema_reads_the_same_two_requests(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    trace = read_trace(path)
    assert list(trace.arrival_s) == [0.0, pytest.approx(1.5)]
    assert list(trace.prompt) == [10, 20]
    assert list(trace.output) == [2, 3]
    assert trace.prefixes == ([(1,), (1, 2)] if "mooncake" in name else None)


def test_malformed_rows_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv.gz"
    rows = ["arrival_s,input_tokens,output_tokens", "0,10,2", "x,10,2", "1,0,2", "2,10", "3,1.5,1", "4,1,nan"]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert caught.value.exit_code == 2
    assert all(f"line {n}" in caught.value.seen for n in (3, 4, 5, 6, 7))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "arrival_s,input_tokens,output_tokens\n"])
def test_unreadable_traces_are_input_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError):
        read_trace(path)
    with pytest.raises(InputError, match="no such trace"):
        read_trace(tmp_path / "missing.csv")


@given(st.binary(max_size=200), st.sampled_from(["t.csv", "t.csv.gz", "t.jsonl"]))
def test_garbage_never_gives_another_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("garbage") / name
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_trace(path)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError):
        read_trace(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(InputError):
        read_trace(path)
