"""Scores the simulator against runs of a real engine: a trace, and per request when it was scheduled and emitted.

A folder (or each of its subfolders) holds a table of measured requests (`hwsim.validation.run_columns` says which
columns count), the trace unless that table has arrivals and token counts of its own, and the engine's settings in a
small YAML or JSON file with any name: model, hardware, and what the engine was started with, by the names of ``hwsim
simulate`` or of vLLM's options. ``runs.json`` may list runs instead: ``{"runs": [{"name", "trace", "measured"}]}``.
The engine is taken to be today's vLLM (policy `vllm_v1`) unless the settings name a policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim import units
from hwsim.errors import HwsimError, InputError
from hwsim.serving.result import ServingResult
from hwsim.serving.traces import Trace, read_trace
from hwsim.validation.endtoend_runs import published_format
from hwsim.validation.run_columns import Array, Measured, is_measured, read_measured, read_rows

BARS: Final = {"e2e_error": 0.10, "ttft_error": 0.18, "tpot_error": 0.10}
_TABLES: Final = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
_SETTINGS: Final = (".yaml", ".yml", ".json")
# Settings by the names that engines and benchmarks give them -> name here.
ALIASES: Final = {
    "model": "workload", "model_name": "workload", "model_id": "workload", "hardware": "hw", "gpu": "hw",
    "device": "hw", "accelerator": "hw", "gpu_name": "hw", "tensor_parallel_size": "tp", "tensor_parallel": "tp",
    "tp_size": "tp", "pipeline_parallel_size": "pp", "pipeline_parallel": "pp", "pp_size": "pp",
    "data_parallel_size": "dp", "data_parallel": "dp", "dp_size": "dp",
    "max_num_batched_tokens": "chunk", "token_budget": "chunk", "max_num_seqs": "max_batch",
    "gpu_memory_utilization": "memory_fraction", "num_gpu_blocks": "kv_blocks", "dtype": "weights",
    "quantization": "weights", "kv_cache_dtype": "kv_cache", "num_replicas": "replicas",
    "async_scheduling": "ahead", "vllm_version": "version", "engine_version": "version",
    "per_request": "measured", "results": "measured", "measurements": "measured",
}  # fmt: skip
FIRST_V1: Final = (0, 6)  # versions of vLLM: the first with the V1 engine,
ASYNCHRONOUS: Final = (0, 14)  # and that since which scheduling runs ahead unless told otherwise
_FORMATS: Final = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "auto": None, "none": None}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: where its files lie and how the engine was started."""

    name: str
    settings: Mapping[str, Any]
    measured: Path
    trace: Path | None = None


def validate_runs(folder: Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Score every run in `folder`; `settings` of the caller win over those in files.

    Raises InputError where files are missing or malformed.
    """
    given = {k: v for k, v in (settings or {}).items() if v is not None}
    runs = listed(folder, given) if (folder / "runs.json").is_file() else discovered(folder, given)
    if not runs:
        raise InputError(
            "the folder holds neither cases.json nor runs of a real engine",
            where=str(folder),
            fix="a table of measured requests, its trace, and a YAML or JSON file with model, hardware and settings",
        )
    return score_runs(folder, runs)


def score_runs(folder: Path, runs: Iterable[Run]) -> dict[str, Any]:
    """The document of some runs: each one's errors, their medians, and whether those keep the bars."""
    scores = [score_run(run) for run in runs]
    return {
        "schema": "hwsim/validate-serving-runs@1",
        "folder": folder.name,
        "bars": BARS,
        "runs": scores,
        "median": {name: float(np.median([s[name] for s in scores])) for name in BARS},
        "passed": all(float(np.median([s[name] for s in scores])) <= bar for name, bar in BARS.items()),
    }


def listed(folder: Path, given: Mapping[str, Any]) -> list[Run]:
    """Runs of ``runs.json``. Raises InputError."""
    path = folder / "runs.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("runs.json must hold an object with a list `runs`", where=str(path)) from error
    return [stated(folder, row, given) for row in rows]


def stated(folder: Path, row: Mapping[str, Any], given: Mapping[str, Any]) -> Run:
    """A run as a list of runs or cases states it; without a trace of its own, ``trace.csv[.gz]`` beside it if there."""
    settings = {**named(row), **{k: v for k, v in given.items() if v is not None}}
    if not settings.get("measured"):
        raise InputError("a run names no table of measured requests", where=str(folder), fix="measured: FILE.csv")
    beside = [folder / name for name in ("trace.csv.gz", "trace.csv", "trace.jsonl") if (folder / name).is_file()]
    trace = folder / str(settings["trace"]) if settings.get("trace") else next(iter(beside), None)
    measured = folder / str(settings["measured"])
    return Run(str(row.get("name", measured.name.split(".")[0])), settings, measured, trace)


def discovered(folder: Path, given: Mapping[str, Any], above: Mapping[str, Any] | None = None) -> list[Run]:
    """Runs found by what their files hold, in `folder` and below; deeper settings win over those above."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tables = [path for path in files if path.name.endswith(_TABLES)]
    measured = [path for path in tables if _is_measured(path)]
    traces = [path for path in tables if path not in measured]
    shared, own = dict(above or {}), {}
    for path in files:
        if path.suffix in _SETTINGS:
            found = read_settings(path)
            of = [m for m in measured if m.name.split(".")[0] == path.stem] if len(measured) > 1 else []
            if of:
                own[of[0]] = found
            else:
                shared |= found
    runs = [
        Run(
            folder.name if len(measured) == 1 else path.name.split(".")[0],
            {**shared, **own.get(path, {}), **given},
            path,
            _trace_of(path, traces),
        )
        for path in measured
    ]
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        runs += discovered(below, given, {**shared, "_traces": [*shared.get("_traces", ()), *traces]})
    return [_with_trace_above(run) for run in runs]


def _is_measured(path: Path) -> bool:
    rows = read_rows(path)
    return bool(rows) and is_measured(list(rows[0]))


def _trace_of(measured: Path, traces: Iterable[Path]) -> Path | None:
    """The only trace, or the one whose name shares the longest beginning with the measured table."""
    many = list(traces)
    if len(many) < 2:
        return many[0] if many else None
    return max(many, key=lambda trace: len(_common(trace.name, measured.name)))


def _common(one: str, other: str) -> str:
    size = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:size]


def _with_trace_above(run: Run) -> Run:
    above = run.settings.get("_traces", ())
    return run if run.trace or not above else Run(run.name, run.settings, run.measured, above[-1])


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML or JSON file by their names here; sections are flattened. Raises InputError."""
    if path.suffix == ".json":
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError("not JSON", where=str(path), seen=str(error)[:80]) from error
    else:
        from hwsim.schema.reader import read

        found = read(path).data
    return named(found) if isinstance(found, Mapping) else {}


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the names used here; those of nested sections rise to the top."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out = {**named(value), **out}
            continue
        key = str(name).strip().lower().replace("-", "_")
        out[ALIASES.get(key, key)] = value
    for name in ("weights", "kv_cache"):
        if isinstance(out.get(name), str):
            out[name] = _FORMATS.get(out[name].lower(), out[name])
    return out


def score_run(run: Run) -> dict[str, Any]:
    """Simulate one run; median absolute relative errors of its latencies, with both medians beside them."""
    trace, measured = load(run)
    result = simulated(run, trace)
    return {"name": run.name, "requests": len(trace), **compare(result, measured)}


def load(run: Run) -> tuple[Trace, Measured]:
    """The requests as the engine got them, and what it measured. Raises InputError where both differ in length."""
    trace = read_trace(run.trace) if run.trace else None
    if trace is not None and run.settings.get("time_scale_factor"):
        trace = trace.scaled(float(run.settings["time_scale_factor"]))
    arrival = np.asarray(trace.arrival_s) + trace.origin_s if trace is not None else None
    unit = run.settings.get("time_unit")
    rows = len(read_rows(run.measured)) if run.measured.is_file() else 0
    measured = read_measured(run.measured, arrival if arrival is not None and len(arrival) == rows else None, unit)
    if trace is None:
        return own_trace(run, measured), sorted_by_arrival(measured)
    if len(trace) != len(measured):
        if measured.arrival_s is not None and measured.prompt is not None and measured.output is not None:
            return own_trace(run, measured), sorted_by_arrival(measured)
        raise InputError(
            "measured values and trace differ in length",
            where=str(run.measured),
            seen=f"{len(measured)} and {len(trace)}",
            fix="a row for each request of the trace, in its order",
        )
    return _with_lengths(trace, measured), measured


def _with_lengths(trace: Trace, measured: Measured) -> Trace:
    """The trace with the token counts that the engine saw, where it noted them."""
    from array import array

    for name in ("prompt", "output"):
        counts = getattr(measured, name)
        if counts is not None and np.all(np.isfinite(counts)) and np.all(counts >= 1):
            setattr(trace, name, array("l", [int(c) for c in counts]))
    return trace


def own_trace(run: Run, measured: Measured) -> Trace:
    """A trace from the arrivals and token counts of the measured table. Raises InputError where it has none."""
    from array import array

    if measured.arrival_s is None or measured.prompt is None or measured.output is None:
        raise InputError(
            "a run needs its trace, or arrivals and token counts in the measured table", where=str(run.measured)
        )
    order = np.argsort(measured.arrival_s, kind="stable")
    times = measured.arrival_s[order] - measured.arrival_s.min()
    prompt, output = (
        array("l", np.maximum(1, np.nan_to_num(c[order], nan=1.0)).astype(int).tolist())
        for c in (measured.prompt, measured.output)
    )
    return Trace(run.name, array("d", times.tolist()), prompt, output)


def sorted_by_arrival(measured: Measured) -> Measured:
    """Rows in the order of `own_trace`."""
    order = np.argsort(measured.arrival_s, kind="stable") if measured.arrival_s is not None else slice(None)
    pick = [getattr(measured, name)[order] for name in ("ttft_s", "e2e_s", "scheduled_s", "tpot_s")]
    return Measured(pick[0], pick[1], pick[2], pick[3], moved=measured.moved)


def simulated(run: Run, trace: Trace) -> ServingResult:
    """The run in the simulator. Raises InputError without model or hardware, InfeasibleError where it cannot fit."""
    try:
        return _simulated(run, trace)
    except (TypeError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        what = "a setting of a run has a value of the wrong kind"
        raise InputError(what, where=str(run.measured), seen=str(error)[:120]) from error


def _simulated(run: Run, trace: Trace) -> ServingResult:
    from dataclasses import replace

    from hwsim.frontends.formats import Formats
    from hwsim.serving.front import engine_replica
    from hwsim.serving.resolve import resolve
    from hwsim.serving.simulate import simulate
    from hwsim.serving.spec import ClusterSpec

    given = run.settings
    for name, option in (("workload", "--workload"), ("hw", "--hw")):
        if not given.get(name):
            raise InputError(
                f"the settings of a run name no {name}", where=str(run.measured), fix=f"add it, or {option}"
            )
    names = ("weights", "activations", "kv_cache", "tp", "pp", "efficiency", "memory_fraction")
    workload, narrow = checkpoint(str(given["workload"]), given)
    ranks, copies = _data_parallel(workload, given)
    asked = {**{n: given.get(n) for n in names}, **narrow, **ranks}
    model, platform, scenario, _ = resolve(workload, str(given["hw"]), asked)
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    scenario = replace(scenario, weights=formats.weights.name, kv_cache=formats.kv_cache.name)
    policy = str(given.get("policy", "vllm_v1"))
    given = {**given, **_scheduling(given, policy)}
    accepted = {"cap": "max_batch", "chunk": "chunk", "max_tokens": "max_tokens", "ahead": "ahead"}
    engine = engine_replica(
        model, platform, scenario, formats,
        policy=policy,
        options={key: int(given[name]) for key, name in accepted.items() if given.get(name) is not None},
        longest=max(p + q for p, q in zip(trace.prompt, trace.output, strict=True)),
        kv_blocks=given.get("kv_blocks"),
        overhead_s=_seconds(given, "overhead", 0.0),
        front_end_s=_seconds(given, "front_end", None),
    )  # fmt: skip
    usual = "least_outstanding" if given.get("dp") else "round_robin"  # vLLM balances its ranks by their load
    return simulate(trace, ClusterSpec([engine.replica] * copies, str(given.get("router", usual))))


def _data_parallel(workload: str, given: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """(ranks that step together, replicas) of a run: data-parallel ranks of dense models are replicas of each other."""
    from hwsim.frontends.catalog import resolve_model

    ranks, copies = int(given.get("dp") or 1), int(given.get("replicas", 1))
    if ranks > 1 and resolve_model(workload).model.spec.moe is not None:
        return {"dp": ranks, "ep": ranks * int(given.get("tp") or 1)}, copies
    return {}, copies * ranks


def checkpoint(name: str, given: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """(model, formats) of a checkpoint: narrow ones are loaded as published, whatever 16-bit type the engine names."""
    base = re.sub(r"-fp8(-(dynamic|block))?$", "", name, flags=re.IGNORECASE)
    found = published_format(name)
    if base != name:  # Qwen's own are scaled by blocks, others by tensors or channels
        found = found or ("fp8_blk" if "qwen" in name.lower() and "dynamic" not in name.lower() else "fp8")
    if found is None or given.get("weights") not in (None, "bf16", "fp16"):
        return base, {}
    return base, {"weights": found, **({"activations": "bf16"} if found == "mxfp4" else {})}


def _scheduling(given: Mapping[str, Any], policy: str) -> dict[str, Any]:
    """Whether vLLM schedules ahead of the device, where its settings or version say so."""
    if policy != "vllm_v1" or int(given.get("pp") or 1) > 1:
        return {"ahead": None}
    stated = given.get("ahead")
    if stated is not None:
        return {"ahead": int(str(stated).strip().lower() in ("1", "true", "yes", "on"))}
    numbers = re.match(r"v?(\d+)\.(\d+)", str(given.get("version", "")))
    before = numbers is not None and FIRST_V1 <= (int(numbers[1]), int(numbers[2])) < ASYNCHRONOUS
    return {"ahead": 0} if before else {}


def _seconds(given: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    return units.parse(str(given[name]), "time", where=name) if given.get(name) is not None else otherwise


def compare(result: ServingResult, measured: Measured) -> dict[str, float]:
    """Median absolute relative errors and medians (seconds) of each latency; NaN-free: absent ones are left out."""
    arrival, scheduled, first, last = (result.column(name) for name in ("arrival_s", "scheduled_s", "first_s", "end_s"))
    output = result.column("output")
    early = 0.0  # both clocks are set by the request that waited least, ours as theirs
    if measured.moved:
        early = float(np.nanmin((scheduled if measured.moved == "scheduled" else first) - arrival))
    ours = {
        "e2e": last - arrival - early,
        "ttft": first - arrival - early,
        "tpot": (last - first) / np.maximum(1, output - 1),
        "ttft_scheduled": first - scheduled,
    }
    theirs = {
        "e2e": measured.e2e_s,
        "ttft": measured.ttft_s,
        "tpot": np.where(np.isfinite(measured.tpot_s), measured.tpot_s, _tpot(measured, output)),
        "ttft_scheduled": measured.ttft_s - measured.scheduled_s,
    }
    out: dict[str, float] = {}
    for name, values in ours.items():
        valid = np.isfinite(theirs[name]) & (theirs[name] > 0) & np.isfinite(values)
        valid &= (output > 1) if name == "tpot" else True
        if valid.any():
            out |= _errors(name, values[valid], theirs[name][valid])
    for name in BARS:
        out.setdefault(name, 0.0)
    return out


def _tpot(measured: Measured, output: Array) -> Array:
    return np.asarray((measured.e2e_s - measured.ttft_s) / np.maximum(1, output - 1))


def _errors(name: str, ours: Array, theirs: Array) -> dict[str, float]:
    return {
        f"{name}_error": float(np.median(np.abs(ours / theirs - 1))),
        f"{name}_bias": float(np.median(ours / theirs - 1)),
        f"{name}_mean_error": float(abs(ours.mean() / theirs.mean() - 1)),
        f"{name}_s_p50": float(np.median(ours)),
        f"{name}_s_p50_measured": float(np.median(theirs)),
    }
