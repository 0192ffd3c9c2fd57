"""`hwsim simulate` from outside: bad traces, impossible requests, interrupts, and the same bytes every time."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwsim.cli.main import run as command_line

BASE = ["simulate", "llama-3.2-1b", "--hw", "a100-sxm4-80gb", "--efficiency", "datasheet", "-q"]
HEAD = "arrival_s,input_tokens,output_tokens\n"


def serve(tmp_path: Path, text: str, *more: str, name: str = "trace.csv") -> int:
    (tmp_path / name).write_text(text)
    table, out = str(tmp_path / "table.csv"), str(tmp_path / "out.json")
    return command_line([*BASE, "--trace", str(tmp_path / name), "--requests-csv", table, "-o", out, *more])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("0,100,5\n1,abc,3\n", "line 3"),
        ("0,100,5\n1,100,0\n", "line 3: output_tokens = '0'"),
        ("0,100,5\n1,100\n2,,3\n", "line 3"),
        ("0,100,5\nnan,100,5\n", "line 3"),
        ("0,100,5\ninf,100,5\n", "line 3"),
        ("0,100,5\n1e300,100,5\n", "line 3"),
        ("0,-7,5\n1,1e400,5\n2,5,5\n", "2 malformed rows"),
        ("", "no requests"),
    ],
)
def test_bad_rows_are_named_by_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, says: str
) -> None:
    assert serve(tmp_path, HEAD + rows) == 2
    seen = capsys.readouterr()
    assert says in seen.err
    assert "Traceback" not in seen.err
    assert seen.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]


def test_an_impossible_request_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = HEAD + "0,100,5\n1,30000000,3\n2,10,2\n"
    for more in ([], ["--replicas", "2", "--router", "lor"], ["--pp", "2"], ["--queue-limit", "5"]):
        assert serve(tmp_path, rows, *more) == 3
        assert "request 1 (30000000 + 3 tokens" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]


def test_one_request_and_traces_out_of_order(tmp_path: Path) -> None:
    assert serve(tmp_path, HEAD + "7,100,1\n") == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["counts"]["finished"] == 1
    assert serve(tmp_path, "request_id," + HEAD + "7,5,100,5\n7,1,200,3\n8,-3,50,2\n8,-3,50,2\n", "--force") == 0
    with (tmp_path / "table.csv").open() as text:
        table = list(csv.DictReader(text))
    assert [float(row["arrival_s"]) for row in table] == [0.0, 0.0, 4.0, 8.0]
    assert [int(row["prompt"]) for row in table] == [50, 50, 200, 100]


def fresh(tmp_path: Path, name: str, hash_seed: str, *more: str) -> tuple[bytes, bytes]:
    """(document, table) of a run in a process of its own."""
    out, table = tmp_path / f"{name}.json", tmp_path / f"{name}.csv"
    line = [
        sys.executable,
        "-m",
        "hwsim",
        *BASE,
        "--requests",
        "300",
        "--rate",
        "30",
        "--prompt",
        "200",
        "--output",
        "40",
    ]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([*line, "-o", str(out), "--requests-csv", str(table), *more], env=environment, check=True)
    return out.read_bytes(), table.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        ["--replicas", "3", "--router", "least_loaded", "--migration", "gap=0.0001,period=100ms"],
        ["--also", "qwen3-8b share=0.4", "--replicas", "2"],
    ],
)
def test_other_processes_write_the_same_bytes(tmp_path: Path, more: list[str]) -> None:
    first, second = (fresh(tmp_path, name, seed, *more) for name, seed in (("a", "1"), ("b", "77")))
    assert first == second


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent by signal")
def test_an_interrupt_keeps_the_table_of_what_is_done(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    line = [sys.executable, "-m", "hwsim", *BASE[:-1], "--requests", "120000", "--rate", "100", "--policy", "sarathi",
            "--replicas", "2", "--router", "lor", "--requests-csv", str(table), "-f", "json"]  # fmt: skip
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    seen = b""
    while b"have arrived" not in seen:  # the run has begun
        part = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert part, seen
        seen += part
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads(out)
    assert document["interrupted"]
    assert 0 < document["counts"]["finished"] < 120_000
    with table.open() as text:
        states = [row["state"] for row in csv.DictReader(text)]
    assert len(states) == 120_000
    assert states.count("finished") == document["counts"]["finished"]
