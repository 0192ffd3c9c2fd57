"""The best shares of tensors in memory tiers, by a linear or mixed-integer program with its proof: `place_tiers`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError, OutOfTimeError, SolverError
from hwsim.mapping.blocks.linear import Sum, least_of
from hwsim.mapping.ilp import Program
from hwsim.mapping.placement.answer import SOLVER, Tiering, judged, proved, run
from hwsim.mapping.placement.tier_baselines import interleave, nearest_first
from hwsim.mapping.placement.tiers import MOST_KINDS, Phase, Tensor, Tier, TierProblem, tier_violations, time_of
from hwsim.mapping.solve import SolverName
from hwsim.units import gib

Array = np.ndarray[Any, Any]
UNITS = 1e3


def place_tiers(
    problem: TierProblem, *, budget_s: float | None = None, solver: SolverName = SOLVER, kinds: int | None = MOST_KINDS
) -> Tiering:
    """Shares of least time; among equally fast ones, those with most bytes in near tiers.

    `kinds`: most kinds of tiers a tensor; None for any number (a linear program).

    Raises
    ------
    InfeasibleError: names the tier, the tensors and the shortfall. SolverError: missing solver, or no answer.
    """
    _require_room(problem)
    begun = time.perf_counter()
    unit = max(_scale(problem), 1e-30)
    program, shares, times = _build(problem, unit, kinds)
    for phase, column in zip(problem.phases, times, strict=True):
        program.cost[column] = phase.count
    try:
        solution = run(program, solver, budget_s)
    except OutOfTimeError:
        return _by_rules(problem, kinds, begun)
    except SolverError:
        raise
    except InfeasibleError:
        raise _too_coarse(problem) from None
    found = _clean(solution.values[shares])
    value = time_of(problem, found)
    found = _settled(problem, found, value, (unit, kinds, solver, budget_s))
    value = time_of(problem, found)
    report = proved(solution, value, solution.report.bound * unit, time.perf_counter() - begun)
    return Tiering(found, report)


def _by_rules(problem: TierProblem, kinds: int | None, begun: float) -> Tiering:
    """The quickest legal shares of the rules of thumb where the solver had none in time. Raises OutOfTimeError."""
    busiest = -sum(p.count * p.traffic_bytes for p in problem.phases) / np.maximum(problem.sizes, 1.0)
    found = []
    for rule in (
        lambda: nearest_first(problem, np.argsort(busiest, kind="stable").tolist()),
        lambda: nearest_first(problem),
        lambda: interleave(problem),
    ):
        with suppress(InfeasibleError):
            shares = rule()
            if not tier_violations(problem, shares, kinds=kinds):
                found.append(shares)
    if not found:
        raise OutOfTimeError(
            f"tiers of {problem.name}: neither the solver nor a rule found shares in time",
            fix="allow more time (--budget)",
        )
    best = min(found, key=lambda shares: time_of(problem, shares))
    bound = sum(p.count * p.floor_s for p in problem.phases)
    report = judged("rules", "no solver in time", time_of(problem, best), bound, time.perf_counter() - begun)
    return Tiering(best, report)


def _scale(problem: TierProblem) -> float:
    """Seconds of everything in its fastest tier, over `UNITS`."""
    best = np.array([np.where(problem.allowed, p.rates[None, :], 0.0).max(axis=1) for p in problem.phases])
    with np.errstate(divide="ignore", invalid="ignore"):
        serial = [
            p.count * max(p.floor_s, float(np.where(p.traffic_bytes > 0, p.traffic_bytes / r, 0.0).max(initial=0.0)))
            for p, r in zip(problem.phases, best, strict=True)
        ]
    return float(sum(serial)) / UNITS


def _build(problem: TierProblem, unit: float, kinds: int | None) -> tuple[Program, Array, list[int]]:
    """The program (no objective), the columns of the shares, and of the phases' times in `unit` seconds."""
    program = Program(f"tiers of {problem.name}")
    shape = (len(problem.tensors), len(problem.tiers))
    shares = program.columns(shape[0] * shape[1], integer=False).reshape(shape)
    program.close(shares[~problem.allowed])
    for own in shares:
        program.one_hot(own)
    if kinds is not None and shape[1] > kinds:
        _few_kinds(program, shares, kinds)
    for t, tier in enumerate(problem.tiers):
        if math.isfinite(tier.size_bytes):
            program.row(shares[:, t], problem.sizes / max(tier.size_bytes, 1.0), high=1.0 if tier.size_bytes else 0.0)
    times = [_phase(program, problem, phase, shares, unit) for phase in problem.phases]
    return program, shares, times


def _few_kinds(program: Program, shares: Array, kinds: int) -> None:
    """At most `kinds` tiers a tensor: a share is positive only where its tier is used."""
    used = program.columns(shares.size).reshape(shares.shape)
    for own, flags in zip(shares, used, strict=True):
        program.at_most(flags, kinds)
        for share, flag in zip(own, flags, strict=True):
            program.row([share, flag], [1.0, -1.0], high=0.0)


def _phase(program: Program, problem: TierProblem, phase: Phase, shares: Array, unit: float) -> int:
    active = np.flatnonzero(phase.traffic_bytes > 0)
    per_tier = []
    for t, rate in enumerate(phase.rates):
        if rate > 0:
            per_tier.append(Sum(shares[active, t], phase.traffic_bytes[active] / rate / unit))
        else:
            program.close(shares[active, t])
    parts = [_joined(per_tier)] if phase.serial else per_tier
    for link in phase.links:
        seconds = phase.traffic_bytes[active] / link.bytes_per_s / unit
        parts.append(_joined([Sum(shares[active, t], seconds) for t in link.behind]))
    return least_of(program, parts, phase.name, phase.floor_s / unit)


def _joined(parts: Sequence[Sum]) -> Sum:
    out = Sum()
    for part in parts:
        out.plus(part)
    return out


def _clean(shares: Array) -> Array:
    """Shares without the solver's dust."""
    kept = np.where(shares < 1e-9, 0.0, shares)
    out: Array = kept / kept.sum(axis=1, keepdims=True)
    return out


def _settled(
    problem: TierProblem, found: Array, value: float, how: tuple[float, int | None, SolverName, float | None]
) -> Array:
    """Among shares as fast as the best, those that keep most in near tiers; the ones found where that fails."""
    unit, kinds, solver, budget_s = how
    program, shares, times = _build(problem, unit, kinds)
    goal = Sum(times, [p.count for p in problem.phases])
    goal.row(program, high=value / unit, name="as fast as the best")
    far = np.arange(len(problem.tiers)) / len(problem.tiers)
    weights = problem.sizes[:, None] * far[None, :] / problem.sizes.sum()
    Sum(shares.ravel(), weights.ravel()).minimise(program, UNITS)
    try:
        nearer = _clean(run(program, solver, budget_s).values[shares])
    except InfeasibleError:  # tolerances left no room: what was found stands
        return found
    worse = time_of(problem, nearer) > value * (1 + 1e-9)
    return found if worse or tier_violations(problem, nearer, kinds=kinds) else nearer


def _require_room(problem: TierProblem) -> None:
    """All tiers together, and each set of tiers that tensors are bound to, hold what must lie there."""
    for homes in {t.home for t in problem.tensors} | {()}:
        inside = [t for t in problem.tensors if not homes or (t.home and set(t.home) <= set(homes))]
        tiers = [problem.tiers[i] for i in homes] or list(problem.tiers)
        need, room = sum(t.size_bytes for t in inside), sum(t.size_bytes for t in tiers)
        if need > room * (1 + 1e-9):
            raise _short(problem, inside, tiers, need, room)


def _short(
    problem: TierProblem, tensors: Sequence[Tensor], tiers: Sequence[Tier], need: float, room: float
) -> InfeasibleError:
    largest = sorted(tensors, key=lambda t: -t.size_bytes)[:3]
    return InfeasibleError(
        f"{problem.name} does not fit in its memories: {gib(need - room)} short",
        where=" + ".join(f"{t.name} {gib(t.size_bytes)}" for t in tiers),
        seen=f"{gib(need)} needed; most of it {', '.join(f'{t.name} {gib(t.size_bytes)}' for t in largest)}",
        fix="add a tier (--tier) or a larger one, or a smaller --weights format",
        budget={"needed_bytes": need, "usable_bytes": room, "shortfall_bytes": need - room},
    )


def _too_coarse(problem: TierProblem) -> InfeasibleError:
    largest = max(problem.tensors, key=lambda t: t.size_bytes)
    where = " + ".join(f"{t.name} {gib(t.size_bytes)}" for t in problem.tiers)
    return InfeasibleError(
        f"{problem.name} does not fit with at most {MOST_KINDS} tiers a tensor",
        where=where,
        seen=f"largest tensor {largest.name} {gib(largest.size_bytes)}",
        fix="use fewer, larger tiers",
        budget={"needed_bytes": float(problem.sizes.sum()), "shortfall_bytes": 0.0},
    )
