"""Scores the simulator against runs of a real engine: a trace, and per request when it was scheduled and emitted.

``runs.json`` lists runs: ``{"name", "workload", "hw", "trace", "measured", "policy", ...}`` with the options of
``hwsim simulate`` by name. `measured` is a CSV whose rows follow the trace, with columns among scheduled_s,
first_token_s and last_token_s (seconds on the clock of the arrivals).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError
from hwsim.serving.traces import Trace, read_trace

Array = np.ndarray[Any, Any]
E2E_BAR: Final = 0.10
TTFT_BAR: Final = 0.18
TPOT_BAR: Final = 0.10
_DEFAULTS: Final[dict[str, Any]] = {
    "rate": None, "requests": None, "arrivals": "poisson", "prompt": 1024.0, "output": 256.0, "lengths": "lognormal",
    "seed": 0, "policy": "vllm", "max_batch": 256, "chunk": 512, "queue": "fcfs", "replicas": 1,
    "router": "round_robin", "prefill_pool": 0, "kv_blocks": None, "overhead": None, "tp": 1, "pp": 1,
    "efficiency": "calibrated",
}  # fmt: skip


def validate_runs(folder: Path) -> dict[str, Any]:
    """Score every run of ``runs.json`` in `folder`. Raises InputError where files are missing or malformed."""
    listing = folder / "runs.json"
    if not listing.is_file():
        raise InputError("the folder holds neither cases.json nor runs.json", where=str(folder))
    try:
        runs = json.loads(listing.read_text(encoding="utf-8"))["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("runs.json must hold an object with a list `runs`", where=str(listing)) from error
    scores = [score_run(folder, run) for run in runs]
    return {
        "schema": "hwsim/validate-serving-runs@1",
        "folder": folder.name,
        "runs": scores,
        "passed": all(
            s["e2e_error"] <= E2E_BAR and s["ttft_error"] <= TTFT_BAR and s["tpot_error"] <= TPOT_BAR for s in scores
        ),
    }


def score_run(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate one run and give the median absolute relative error of each latency over its requests."""
    from hwsim.serving.session import _cluster, _engine
    from hwsim.serving.simulate import simulate

    trace = read_trace(folder / str(run["trace"]))
    given = {**_DEFAULTS, **run}
    engine, _ = _engine(given, trace)
    spec, prepare = _cluster(given, engine)
    result = simulate(trace, spec, prepare=prepare)
    simulated = {"first": result.column("first_s"), "last": result.column("end_s")}
    return {
        "name": str(run.get("name", run["trace"])),
        "requests": len(trace),
        **compare(trace, simulated, read_measured(folder / str(run["measured"]), len(trace))),
    }


def compare(trace: Trace, simulated: Mapping[str, Array], measured: Mapping[str, Array]) -> dict[str, float]:
    """Median absolute relative errors ``e2e_error, ttft_error, tpot_error``."""
    arrival = np.asarray(trace.arrival_s)
    after = np.maximum(1, np.asarray(trace.output) - 1)

    def error(ours: Array, theirs: Array) -> float:
        valid = np.isfinite(theirs) & (theirs > 0)
        return float(np.median(np.abs(ours[valid] / theirs[valid] - 1)))

    many = np.asarray(trace.output) > 1
    ours_tpot = (simulated["last"] - simulated["first"]) / after
    theirs_tpot = (measured["last"] - measured["first"]) / after
    return {
        "e2e_error": error(simulated["last"] - arrival, measured["last"] - arrival),
        "ttft_error": error(simulated["first"] - arrival, measured["first"] - arrival),
        "tpot_error": error(ours_tpot[many], theirs_tpot[many]) if many.any() else 0.0,
    }


def read_measured(path: Path, rows: int) -> dict[str, Array]:
    """First and last token times. Raises InputError for missing columns or another number of rows."""
    if not path.is_file():
        raise InputError("the measured values of a run are missing", where=str(path))
    with path.open(encoding="utf-8", newline="") as text:
        found = list(csv.DictReader(text))
    if len(found) != rows:
        raise InputError("measured values and trace differ in length", where=str(path), seen=f"{len(found)} and {rows}")
    columns = {"first": "first_token_s", "last": "last_token_s"}
    try:
        return {key: np.array([float(row[name]) for row in found]) for key, name in columns.items()}
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            "measured values need first_token_s and last_token_s", where=str(path), seen=str(error)
        ) from error
