"""Place the tensors of a model in memory tiers and describe the result: kind ``tiers`` of `hwsim/placement@1`.

Two cases. Inference with weights and caches beyond the device's memory: what lies outside streams over the host link
ahead of the kernels, so a pass lasts max(pass with everything in main memory, bytes of each tier / its rate, bytes of
all outside tiers / link). Fine-tuning with optimizer state beside CXL cards (`hwsim.cost.cxl`): the CPU walks its
state, the GPU's copies move by DMA.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError, InputError
from hwsim.explore.placement.decide import SCHEMA, plain_report
from hwsim.explore.placement.whatif import what_ifs
from hwsim.mapping.placement.tiers import TierProblem, phase_parts, tier_violations, time_of, used_bytes
from hwsim.mapping.placement.verify import verified
from hwsim.mapping.registry import load_mapper
from hwsim.units import gib

Array = np.ndarray[Any, Any]
Rule = Callable[[], Array]


@dataclass(frozen=True, eq=False)
class Case:
    """A tier problem with what the document says of it: the metric of each phase, hand-made rules, warnings."""

    problem: TierProblem
    metrics: dict[str, str]
    rules: dict[str, Rule]
    scenario: dict[str, Any]
    warnings: tuple[str, ...] = ()


def place_case(
    workload: str, hardware: str, case: Case, *, mapper: str, budget_s: float | None, explain: bool = False
) -> dict[str, Any]:
    """Let the mapper decide, check it, describe it.

    Raises InfeasibleError, SolverError, CheckFailedError as the mapper and `verified` do.
    """
    begun = time.perf_counter()
    loaded = load_mapper(mapper)
    if getattr(loaded.mapper, "kind", "") != "placement":
        raise InputError(f"{mapper} does not place", where="--using", seen=str(loaded.path), fix="kind = 'placement'")
    answer = loaded.mapper.map(case.problem, "latency", budget_s)  # type: ignore[call-arg,arg-type]
    report = verified(case.problem, "latency", answer)
    shares = answer.shares  # type: ignore[attr-defined]
    document = {
        "schema": SCHEMA,
        "kind": "tiers",
        "workload": workload,
        "hardware": [hardware],
        "objective": "latency",
        "mapper": loaded.mapper.name,
        "scenario": case.scenario,
        "metrics": _metrics(case, shares),
        "tiers": _tiers(case.problem, shares),
        "tensors": _tensors(case.problem, shares),
        "phases": _phases(case.problem, shares),
        "binding": _binding(case.problem, shares),
        "baselines": [_baseline(case.problem, name, rule, report.objective) for name, rule in case.rules.items()],
        "report": plain_report(report),
        "warnings": list(case.warnings),
    }
    if explain:
        document["what_if"] = what_ifs(case.problem, "latency", loaded.mapper, report, budget_s)
    return {**document, "seconds": time.perf_counter() - begun}


def _metrics(case: Case, shares: Array) -> dict[str, Any]:
    found = {"time_s": {"value": time_of(case.problem, shares)}}
    for phase in case.problem.phases:
        name = case.metrics.get(phase.name)
        if name is not None:
            found[name] = {"value": max(phase_parts(case.problem, phase, shares).values())}
    return found


def _tiers(problem: TierProblem, shares: Array) -> list[dict[str, Any]]:
    used = used_bytes(problem, shares)
    return [
        {
            "name": tier.name,
            "modules": tier.count,
            "used_bytes": float(used[t]),
            "room_bytes": tier.size_bytes if math.isfinite(tier.size_bytes) else None,
            "fill": float(used[t] / tier.size_bytes) if math.isfinite(tier.size_bytes) and tier.size_bytes else None,
        }
        for t, tier in enumerate(problem.tiers)
    ]


def _tensors(problem: TierProblem, shares: Array) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "bytes": tensor.size_bytes,
            "shares": {tier.name: float(s) for tier, s in zip(problem.tiers, own, strict=True) if s > 0},
            "traffic_bytes": {p.name: float(p.traffic_bytes[k]) for p in problem.phases},
        }
        for k, (tensor, own) in enumerate(zip(problem.tensors, shares, strict=True))
    ]


def _phases(problem: TierProblem, shares: Array) -> list[dict[str, Any]]:
    rows = []
    for phase in problem.phases:
        parts = phase_parts(problem, phase, shares)
        binds = max(parts, key=lambda name: parts[name])
        rows.append(
            {"name": phase.name, "count": phase.count, "time_s": parts[binds], "bound": binds, "parts_s": parts}
        )
    return rows


def _binding(problem: TierProblem, shares: Array) -> list[str]:
    used = used_bytes(problem, shares)
    full = [
        f"{tier.name} is full ({gib(used[t])})"
        for t, tier in enumerate(problem.tiers)
        if math.isfinite(tier.size_bytes) and used[t] >= tier.size_bytes * (1 - 1e-6)
    ]
    slow = []
    for phase in problem.phases:
        parts = phase_parts(problem, phase, shares)
        binds = max(parts, key=lambda name: parts[name])
        slow.append(f"{phase.name} is bound by {binds}")
    return [*full, *slow]


def _baseline(problem: TierProblem, name: str, rule: Rule, best: float) -> dict[str, Any]:
    """A hand-made rule's time; it may use any number of tiers a tensor."""
    try:
        shares = rule()
    except InfeasibleError as error:
        return {"name": name, "value": None, "ratio": None, "why": error.what}
    wrong = tier_violations(problem, shares, kinds=None)
    if wrong:
        return {"name": name, "value": None, "ratio": None, "why": wrong[0]}
    value = time_of(problem, shares)
    return {"name": name, "value": value, "ratio": value / best if best else None, "why": ""}


def limited(name: str, size: float, rooms: Sequence[tuple[str, float]]) -> float:
    """The size of a tier after `--room`."""
    return min([size, *(room for known, room in rooms if known == name)])
