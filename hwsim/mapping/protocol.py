"""What a mapper is: an object that decides the loops of one GEMM on one machine.

hwsim checks every decision (legality) and costs it itself; a mapper's own figures are never taken over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hwsim.errors import CheckFailedError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.counts import count
from hwsim.mapping.legality import check
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling
from hwsim.mapping.tiling.goal import goal_of
from hwsim.mapping.tiling.result import cycle_floor


@dataclass(frozen=True, slots=True)
class Decision:
    """A mapper's answer. `tiling` None: no mapping was made, the figures are the ideal (floors)."""

    tiling: Tiling | None
    report: SolverReport


class Mapper(Protocol):
    """A tiling mapper; one file exposes one as ``MAPPER``."""

    name: str
    summary: str

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        """Decide. Raises InfeasibleError where nothing fits, SolverError where there is no answer in the budget."""


def claim(name: str, seconds: float, status: str = "feasible") -> SolverReport:
    """The report of a mapper that proves nothing (objective and bound are filled in when it is costed)."""
    return SolverReport(name, "", status, math.nan, math.nan, math.nan, seconds)


def costed(machine: Machine, gemm: Gemm, objective: str, decision: Decision) -> tuple[Counts, SolverReport]:
    """Exact counts of a decision, and its report with the objective that was recomputed.

    Raises
    ------
    InfeasibleError: the tiling is not legal. CheckFailedError: the mapper claimed another objective, or a bound
    above it.
    """
    if decision.tiling is None:
        raise ValueError("an ideal has no tiling to cost")
    check(machine, gemm, decision.tiling)
    counts = count(machine, gemm, decision.tiling)
    value = goal_of(objective).value(float(counts.energy), float(counts.cycles))
    old = decision.report
    if not math.isnan(old.objective) and abs(old.objective - value) > 1e-9 * abs(value):
        raise CheckFailedError("the mapper's objective is not that of its mapping", seen=f"{old.objective} and {value}")
    floor = floor_of(machine, gemm, objective)
    bound = floor if math.isnan(old.bound) else max(old.bound, floor)
    if bound > value * (1 + 1e-9):
        raise CheckFailedError("the mapper's bound lies above its own objective", seen=f"{bound} and {value}")
    gap = (value - bound) / abs(value) if value else 0.0
    gap = 0.0 if gap < 1e-9 else gap
    status = "optimal" if gap == 0.0 else "feasible"
    return counts, SolverReport(old.solver, old.version, status, value, bound, gap, old.seconds)


def energy_floor(machine: Machine, gemm: Gemm) -> float:
    """pJ that no tiling beats: the multiply-accumulates and the compulsory words of the last level."""
    a, b, z = (s * w * gemm.batch for s, w in zip(gemm.sizes, machine.widths, strict=True))
    last = machine.levels[-1]
    return gemm.macs * machine.mac_energy + (a + b) * last.read_energy + z * last.write_energy


def floor_of(machine: Machine, gemm: Gemm, objective: str) -> float:
    """The value of an objective at the floors of energy and cycles."""
    return goal_of(objective).value(energy_floor(machine, gemm), float(cycle_floor(machine, gemm)))
