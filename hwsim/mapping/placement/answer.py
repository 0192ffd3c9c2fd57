"""What a placement mapper answers, and how a program's answer becomes one: rounded, costed exactly, gap derived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import CheckFailedError, unknown_name
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.ilp import Program
from hwsim.mapping.placement.problem import Choice
from hwsim.mapping.solve import Solution, SolverName, solve

SOLVER: Final[SolverName] = "highs"  # several times faster than CBC on placements
OBJECTIVES: Final = ("latency", "throughput", "energy", "edp")
TIGHT: Final = 1e-7  # relative: rows and bounds of a solver hold to about this


@dataclass(frozen=True, slots=True)
class Placement:
    """A choice of columns for every copy of every item, and what was proved of it."""

    choice: Choice
    report: SolverReport


@dataclass(frozen=True, slots=True)
class Staging:
    """Contiguous stages: the stage of every unrolled operator; stage s runs on site `order[s]`."""

    stages: np.ndarray[Any, Any]
    order: tuple[int, ...]
    report: SolverReport


@dataclass(frozen=True, slots=True)
class Tiering:
    """Shares of tensors in tiers, shape (tensors, tiers)."""

    shares: np.ndarray[Any, Any]
    report: SolverReport


def known_objective(name: str) -> str:
    """The objective itself. Raises UnknownNameError."""
    if name not in OBJECTIVES:
        raise unknown_name("objective", name, OBJECTIVES)
    return name


def run(program: Program, solver: SolverName, budget_s: float | None) -> Solution:
    """Solve; a placement that does not exist is InfeasibleError, a missing or silent solver SolverError."""
    return solve(program, solver=solver, time_limit_s=budget_s, core=False)


def proved(solution: Solution, value: float, bound: float, seconds: float) -> SolverReport:
    """The report for an exactly recomputed value and a bound in its unit."""
    return judged(solution.report.solver, solution.report.version, value, bound, seconds)


def closed(value: float, bound: float) -> bool:
    """Whether a bound meets the value as far as solvers hold their rows."""
    return value - bound <= TIGHT * abs(value)


def judged(solver: str, version: str, value: float, bound: float, seconds: float) -> SolverReport:
    """Status and gap from value and bound. Raises CheckFailedError where the bound lies above the value."""
    if bound > value * (1 + 1e-6) + 1e-300:
        raise CheckFailedError("the solver's bound lies above the recomputed objective", seen=f"{bound} and {value}")
    bound = min(bound, value)
    gap = (value - bound) / value if value > 0 else 0.0
    if gap <= TIGHT:
        return SolverReport(solver, version, "optimal", value, value, 0.0, seconds)
    return SolverReport(solver, version, "feasible", value, bound, gap, seconds)
