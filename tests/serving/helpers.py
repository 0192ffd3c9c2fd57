"""Small systems that the serving tests share."""

from __future__ import annotations

from array import array
from typing import Any

from hwsim.serving.iteration_time import ClosedFormTime
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.traces import Trace

TIME = ClosedFormTime(0.001, 0.006, 2.7e-5, 4.9e-8, 1.3e-9)


def trace_of(rows: list[tuple[float, int, int]]) -> Trace:
    """A trace from (arrival, prompt, output) rows."""
    rows = sorted(rows, key=lambda row: row[0])
    times, prompts, outputs = zip(*rows, strict=True)
    return Trace("test", array("d", times), array("l", prompts), array("l", outputs))


def replica(policy: str = "vllm", *, kv_blocks: int = 4000, **changes: Any) -> ReplicaSpec:
    """A replica with a closed-form iteration time."""
    options = changes.pop("options", {"cap": 64})
    return ReplicaSpec(TIME, policy, options, kv_blocks=kv_blocks, **changes)


def run(trace: Trace, spec: ReplicaSpec, count: int = 1, router: str = "round_robin", **more: Any) -> Any:
    """Serve the trace on `count` equal replicas."""
    return simulate(trace, ClusterSpec([spec] * count, router), **more)
