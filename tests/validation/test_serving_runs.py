"""Runs of real engines: column names, units and clocks; a run that the simulator itself made scores zero."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hwsim.cli.main import run as command_line
from hwsim.errors import InputError
from hwsim.serving.arrivals import generate
from hwsim.validation.run_columns import classify, is_measured, read_measured
from hwsim.validation.serving import validate_serving
from hwsim.validation.serving_runs import Run, checkpoint, named, simulated, validate_runs

SETTINGS = {"model": "meta-llama/Llama-3.1-8B", "hardware": "RTX 4090", "engine": {"max_num_seqs": 64}}
STEM = ("arrival_s", "input_tokens", "output_tokens")


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as text:
        csv.writer(text).writerows([header, *rows])


@pytest.fixture(scope="module")
def made() -> tuple[list[tuple[object, ...]], dict[str, np.ndarray]]:
    """A trace of 40 requests and what the simulator says of it."""
    trace = generate(3.0, 40, seed=4)
    rows = list(zip(trace.arrival_s, trace.prompt, trace.output, strict=True))
    result = simulated(Run("x", named(SETTINGS), Path("x")), trace)
    return rows, {name: result.column(name).copy() for name in ("arrival_s", "scheduled_s", "first_s", "end_s")}


def folder_of(tmp_path: Path, made: object, header: tuple[str, ...], scale: float, shift: float) -> Path:
    rows, times = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, rows)
    measured = [(times[n] * scale + shift).tolist() for n in ("scheduled_s", "first_s", "end_s")]
    write(tmp_path / "requests.csv", header, list(zip(*measured, strict=True)))
    (tmp_path / "run.json").write_text(json.dumps(SETTINGS))
    return tmp_path


@pytest.mark.parametrize(
    ("header", "scale", "shift"),
    [
        (("scheduled_s", "first_token_s", "last_token_s"), 1.0, 0.0),
        (("Scheduled Time (ms)", "First Token Time (ms)", "Last Token Time (ms)"), 1e3, 0.0),
        (("scheduled_ts", "first_token_ts", "last_token_ts"), 1.0, 9.1e5),
        (("scheduledTs", "firstTokenTs", "finishedTs"), 1e9, 1.7e18),
        (("scheduled_s", "first_token_s", "last_token_s"), 1.0, 7.5),  # seconds since the engine began to load
    ],
)
def test_names_units_and_clocks(
    header: tuple[str, ...], scale: float, shift: float, made: object, tmp_path: Path
) -> None:
    """On another clock both sides are moved alike: the request that waited least says when it begins."""
    (run,) = validate_runs(folder_of(tmp_path, made, header, scale, shift))["runs"]
    loose = 1e-4 if shift else 1e-6  # large clocks have few digits left
    assert run["requests"] == 40
    assert run["ttft_error"] < loose
    assert run["e2e_error"] < loose
    assert run["tpot_error"] < 1e-3
    assert run["ttft_scheduled_error"] < 1e-3


@pytest.mark.parametrize("offset", [0.0, 4.3, 1.7e9])
def test_a_trace_that_begins_late_on_the_clock_of_the_measured_times(
    offset: float, made: object, tmp_path: Path
) -> None:
    """Both files name times of one clock, whose zero is before the first arrival: nothing is moved."""
    rows, times = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, [(offset + float(t), p, o) for t, p, o in rows])
    measured = [(offset + times[n]).tolist() for n in ("scheduled_s", "first_s", "end_s")]
    names = ("scheduled_s", "first_token_s", "last_token_s")
    write(tmp_path / "requests.csv", names, list(zip(*measured, strict=True)))
    (tmp_path / "run.json").write_text(json.dumps(SETTINGS))
    (run,) = validate_runs(tmp_path)["runs"]
    assert run["ttft_error"] < 1e-4
    assert run["ttft_s_p50"] == pytest.approx(float(np.median(times["first_s"] - times["arrival_s"])), rel=1e-4)


def test_a_table_with_arrivals_and_counts_needs_no_trace(made: object, tmp_path: Path) -> None:
    rows, times = made  # type: ignore[misc]
    table = [
        (i, 1e6 * a, p, o, 1e3 * (f - a), 1e3 * (e - a), "[0.1, 0.2]")
        for i, ((a, p, o), f, e) in enumerate(zip(rows, times["first_s"], times["end_s"], strict=True))
    ]
    header = ("request_id", "arrival_time_us", "prompt_len", "output_len", "ttft_ms", "e2e_latency_ms", "itl")
    write(tmp_path / "vllm.csv", header, table[::-1])
    (run,) = validate_runs(tmp_path, {"workload": "llama-3.1-8b", "hw": "rtx4090", "max_batch": 64})["runs"]
    assert max(run[f"{name}_error"] for name in ("e2e", "ttft", "tpot")) < 1e-6
    assert "ttft_scheduled_error" not in run


def test_a_slower_engine_is_a_miss_with_its_bias(made: object, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows, times = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, rows)
    arrival = times["arrival_s"]
    slow = zip(arrival + 1.5 * (times["first_s"] - arrival), arrival + 1.5 * (times["end_s"] - arrival), strict=True)
    write(tmp_path / "measured.csv", ("first_token_s", "last_token_s"), list(slow))
    (tmp_path / "engine.yaml").write_text("model: llama-3.1-8b\ngpu: rtx4090\nmax_num_seqs: 64\n")
    assert command_line(["validate", "serving", str(tmp_path)]) == 4
    text = capsys.readouterr().out
    assert "33.3 %(-33.3)" in text.replace("% (", "%(")


def test_runs_in_subfolders_share_what_lies_above(made: object, tmp_path: Path) -> None:
    rows, times = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, rows)
    (tmp_path / "model.yaml").write_text("model: llama-3.1-8b\nmax_num_seqs: 64\n")
    for gpu in ("rtx4090", "h100"):
        below = tmp_path / gpu
        below.mkdir()
        write(
            below / "out.csv",
            ("first_token_s", "last_token_s"),
            list(zip(times["first_s"], times["end_s"], strict=True)),
        )
        (below / "hw.yaml").write_text(f"hardware: {gpu}\n")
    runs = {run["name"]: run for run in validate_runs(tmp_path)["runs"]}
    assert runs["rtx4090"]["e2e_error"] < 1e-6 < runs["h100"]["e2e_error"]


@pytest.mark.parametrize(
    ("name", "settings", "answer"),
    [
        (
            "openai/gpt-oss-20b",
            {"weights": "bf16"},
            ("openai/gpt-oss-20b", {"weights": "mxfp4", "activations": "bf16"}),
        ),
        ("Qwen/Qwen3-30B-A3B-FP8", {}, ("Qwen/Qwen3-30B-A3B", {"weights": "fp8_blk"})),
        ("x/Llama-3.1-8B-FP8-dynamic", {}, ("x/Llama-3.1-8B", {"weights": "fp8"})),
        ("meta-llama/Llama-3.1-8B", {}, ("meta-llama/Llama-3.1-8B", {})),
        ("Qwen/Qwen3-30B-A3B-FP8", {"weights": "int8"}, ("Qwen/Qwen3-30B-A3B", {})),
    ],
)
def test_checkpoints_are_loaded_as_published(name: str, settings: dict[str, str], answer: object) -> None:
    assert checkpoint(name, settings) == answer


def test_a_run_of_a_narrow_checkpoint_fits_and_scores(tmp_path: Path) -> None:
    trace = generate(3.0, 12, seed=4)
    rows = list(zip(trace.arrival_s, trace.prompt, trace.output, strict=True))
    write(tmp_path / "trace.csv", STEM, rows)
    write(tmp_path / "out.csv", ("first_token_s", "last_token_s"), [(t + 0.2, t + 2.0) for t, _, _ in rows])
    (tmp_path / "engine.yaml").write_text("model: openai/gpt-oss-120b\ngpu: h100\ntp: 2\ndtype: bfloat16\n")
    assert validate_runs(tmp_path)["runs"][0]["requests"] == 12


@pytest.mark.parametrize(("model", "together"), [("llama-3.2-1b", False), ("qwen3-30b-a3b", True)])
def test_data_parallel_ranks_of_experts_step_together(model: str, together: bool) -> None:
    settings = named({"model": model, "gpu": "h100", "engine": {"data_parallel_size": 2}})
    result = simulated(Run("x", settings, Path("x")), generate(10.0, 20, seed=4))
    ranks = result.cluster.everyone
    assert result.counts()["finished"] == 20
    assert len(ranks) == 2
    assert (ranks[0].busy_s == ranks[1].busy_s) == together


def test_a_run_over_pipeline_stages() -> None:
    settings = named({**SETTINGS, "pipeline_parallel_size": 2, "vllm_version": "0.11.2"})
    assert simulated(Run("x", settings, Path("x")), generate(3.0, 10, seed=4)).counts()["finished"] == 10


@pytest.mark.parametrize(
    ("settings", "ahead"),
    [
        ({"async_scheduling": False}, 0),
        ({"async-scheduling": "true", "version": "0.9"}, 1),
        ({"vllm_version": "0.11.2"}, 0),
        ({"vllm_version": "v0.18.0"}, None),
        ({}, None),
    ],
)
def test_older_engines_do_not_schedule_ahead(settings: dict[str, object], ahead: int | None) -> None:
    trace = generate(12.0, 60, seed=4, prompt=("uniform", 300.0), output=("uniform", 60.0))
    run, plain = (
        simulated(Run("x", named({**SETTINGS, **more}), Path("x")), trace).ttft_s.mean()
        for more in (settings, {"ahead": 1 if ahead is None else ahead})
    )
    assert run == plain
    late = simulated(Run("x", named({**SETTINGS, "ahead": 1}), Path("x")), trace).ttft_s.mean()
    assert (run < late) == (ahead == 0)


def test_what_is_missing_is_named(made: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither cases"):
        validate_runs(tmp_path)
    rows, _ = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, rows)
    write(tmp_path / "measured.csv", ("first_token_s", "last_token_s"), [(1.0, 2.0)])
    with pytest.raises(InputError, match="differ in length"):
        validate_runs(tmp_path)
    write(tmp_path / "measured.csv", ("first_token_s", "last_token_s"), [(1.0, 2.0)] * 40)
    with pytest.raises(InputError, match="no workload"):
        validate_runs(tmp_path)
    with pytest.raises(InputError, match="wrong kind"):
        validate_runs(tmp_path, {"workload": "llama-3.1-8b", "hw": "h100", "chunk": "many"})
    write(tmp_path / "measured.csv", ("first_token_s", "last_token_s"), [(1.0, "soon")] * 40)
    with pytest.raises(InputError, match="not a number"):
        read_measured(tmp_path / "measured.csv")


def test_classification_takes_the_unit_off_the_name() -> None:
    found = classify(["TTFT (ms)", "arrival_time_ns", "last_token_time", "inputTokens"])
    assert found["ttft"] == ("TTFT (ms)", 1e-3)
    assert found["arrival"] == ("arrival_time_ns", 1e-9)
    assert found["last"] == ("last_token_time", None)
    assert found["prompt"][0] == "inputTokens"
    assert is_measured(["ttft", "e2e"])
    assert not is_measured(["arrival_s", "input_tokens", "output_tokens"])


def test_cases_without_constants_are_runs_of_engines(made: object, tmp_path: Path) -> None:
    rows, times = made  # type: ignore[misc]
    write(tmp_path / "trace.csv", STEM, [(a / 2, p, o) for a, p, o in rows])
    measured = list(zip(times["scheduled_s"], times["first_s"], times["end_s"], strict=True))
    write(tmp_path / "one.csv", ("scheduled_s", "first_token_s", "last_token_s"), measured)
    case = {"name": "one", "per_request": "one.csv", "requests": 40, "time_scale_factor": 2.0, "engine": SETTINGS}
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [case]}))
    document = validate_serving(tmp_path)
    assert document["passed"]
    assert max(document["runs"][0][f"{name}_error"] for name in ("e2e", "ttft", "tpot", "ttft_scheduled")) < 1e-6
    assert command_line(["validate", "serving", str(tmp_path)]) == 0
