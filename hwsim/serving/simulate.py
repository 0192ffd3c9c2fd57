"""Run a workload on a cluster: the front door of the serving simulator."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.cluster import Cluster, Source, TraceSource
from hwsim.serving.record import FINISHED, REJECTED
from hwsim.serving.result import ServingResult, steady_start
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from hwsim.serving.traces import Trace

_STATES = {FINISHED: "finished", REJECTED: "rejected"}


def simulate(
    trace: Trace,
    spec: ClusterSpec,
    level: ServiceLevel | None = None,
    *,
    steady: bool = False,
    prepare: Any = None,
    progress: Callable[[str], None] | None = None,
) -> ServingResult:
    """Serve `trace` with `spec`.

    Parameters
    ----------
    level: service level for goodput and attainment.
    steady: drop the warm-up that MSER-5 finds in the end-to-end times from the metrics.
    progress: told now and then how many requests have arrived.
    prepare: called with the cluster before the run (pools, failures, autoscaling: see `hwsim.serving.control`).

    Raises
    ------
    InfeasibleError: a request that can never fit. LawViolation: Little's law or conservation broken (a bug).
    """
    cluster = spec.build(len(trace))
    load_trace(cluster, trace)
    if prepare is not None:
        prepare(cluster)
    source = TraceSource(
        trace.arrival_s, trace.prompt, trace.output, trace.prefixes, trace.priorities, spec.asked_models(trace.models)
    )
    source.progress = progress
    return finish(cluster, source, level, steady=steady)


def load_trace(cluster: Cluster, trace: Trace) -> None:
    """Copy the columns that are known before the run."""
    record = cluster.record
    record.arrival_s = array("d", trace.arrival_s)
    record.prompt, record.output = array("l", trace.prompt), array("l", trace.output)
    for replica in cluster.everyone:
        replica.samples.expect(trace.arrival_s[-1] if len(trace) else 0.0)


def finish(cluster: Cluster, source: Source, level: ServiceLevel | None, *, steady: bool = False) -> ServingResult:
    """Run a prepared cluster; on Ctrl-C the partial result rides on the exception as `partial`."""
    level = level or ServiceLevel()
    try:
        cluster.run(source)
    except KeyboardInterrupt as stop:
        cluster.record.close()
        _add_front_end(cluster)
        stop.partial = ServingResult(cluster, level)  # type: ignore[attr-defined]
        raise
    _add_front_end(cluster)
    result = ServingResult(cluster, level)
    return ServingResult(cluster, level, steady_start(result.e2e_s)) if steady else result


def _add_front_end(cluster: Cluster) -> None:
    """Requests reach the engine `front_end_s` and the tokenizer's time after they arrive.

    It is added after the run: with all requests shifted (almost) alike, all answers are.
    """
    record = cluster.record
    replica = record.column("replica")
    for engine in cluster.everyone:
        fixed_s, token_s = engine.spec.front_end_s, engine.spec.front_end_token_s
        if fixed_s or token_s:
            mine = replica == engine.index if len(cluster.everyone) > 1 else slice(None)
            late_s = fixed_s + token_s * record.column("prompt")[mine]
            for name in ("scheduled_s", "first_s", "end_s"):
                record.column(name)[mine] += late_s


def write_table(result: ServingResult, path: Path | str) -> None:
    """Write the per-request table as CSV, whole or not at all; empty cells where something never happened.

    Raises InputError if the file cannot be written.
    """
    table = {name: column.tolist() for name, column in result.table().items()}
    table["state"] = [_STATES.get(int(state), "unfinished") for state in table["state"]]
    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(("request", *table))
            for index, row in enumerate(zip(*table.values(), strict=True)):
                writer.writerow((index, *(_cell(value) for value in row)))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        seen = error.strerror or str(error)
        raise InputError("cannot write the table of requests", where=str(path), seen=seen) from None


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9f}" if math.isfinite(value) else ""
    return value


def document(result: ServingResult, **context: Any) -> dict[str, Any]:
    """The result document ``hwsim/serving@1``; `context` fills workload, hardware, scenario and provenance."""
    level = result.level
    return {
        "schema": "hwsim/serving@1",
        **context,
        "slo": {name: getattr(level, name) for name in ("ttft_s", "tpot_s", "e2e_s")},
        "counts": result.counts(),
        "makespan_s": result.makespan_s,
        "metrics": result.metrics(),
        "replicas": result.replicas(),
        "warnings": list(result.cluster.warnings),
    }
