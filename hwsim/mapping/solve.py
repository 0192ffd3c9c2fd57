"""One `solve` for every integer program of hwsim, with an honest word about what was proved.

PuLP calls any incumbent of a time-out "Optimal"; so the status here is read from `sol_status`, the objective is
recomputed from the columns, and the bound and gap are ours: ``gap = (objective - bound) / |objective|``.

How a program is solved (the same for CBC, HiGHS and scipy): its LP relaxation gives a bound and reduced costs; a
column whose reduced cost exceeds incumbent - bound cannot be in a better solution (LP duality), so a small core of
cheap columns is solved first, and if the answer does not prove itself, the core that is large enough to.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwsim.errors import InfeasibleError, SolverError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.backends import RawSolution, best_available, run_mip, solve_relaxation, version_of
from hwsim.mapping.ilp import Program

Array = np.ndarray[Any, Any]
SolverName = Literal["auto", "cbc", "highs", "scipy"]
CORE_COLUMNS = 500  # integer columns of the first core; any figure is correct, this one is quick
TOLERANCE = 1e-9  # relative: objective and bound closer than this are called equal


@dataclass(frozen=True, slots=True)
class Solution:
    """Column values with what is known about them."""

    values: Array
    report: SolverReport

    @property
    def optimal(self) -> bool:
        return self.report.status == "optimal"


def solve(
    program: Program,
    *,
    solver: SolverName = "auto",
    time_limit_s: float | None = None,
    gap: float = 0.0,
    cutoff: float = math.inf,
    core: bool = True,
) -> Solution:
    """Minimise `program`.

    Parameters
    ----------
    solver: ``cbc`` (through PuLP), ``highs`` (highspy), ``scipy`` (scipy.optimize.milp); ``auto`` takes the first
        that is installed, CBC first for these tightly linked paths.
    time_limit_s: wall seconds for the whole call; None: until proved.
    gap: relative gap at which to stop.
    cutoff: only solutions cheaper than this are wanted; the call raises InfeasibleError when there is none.
    core: solve over reduced-cost cores first (same answer, quicker).

    Raises
    ------
    InfeasibleError: no solution exists (proved). SolverError: the solver is missing or stopped with no solution.
    """
    begun = time.perf_counter()
    name = best_available(solver)
    deadline = math.inf if time_limit_s is None else begun + time_limit_s
    relaxed = solve_relaxation(program, _left(deadline))
    if relaxed.status == "infeasible" or relaxed.objective >= cutoff + abs(cutoff) * TOLERANCE:
        raise InfeasibleError(f"{program.name}: no solution satisfies the constraints", seen="LP relaxation is infeasible")
    if relaxed.status != "optimal":
        raise SolverError(f"{program.name}: the LP relaxation did not finish", seen=relaxed.status, fix="allow more time")
    if core:
        raw, bound = _solve_cores(program, relaxed, name, deadline, gap, cutoff)
    else:
        raw = run_mip(program, name, None, _left(deadline), gap, cutoff)
        bound = max(raw.bound, relaxed.objective)
    return _finish(program, raw, bound, name, gap, time.perf_counter() - begun)


def _left(deadline: float) -> float:
    return max(0.05, deadline - time.perf_counter()) if math.isfinite(deadline) else math.inf


def _solve_cores(
    program: Program, relaxed: RawSolution, name: str, deadline: float, gap: float, cutoff: float
) -> tuple[RawSolution, float]:
    """Solve growing cores until the answer is proved within all columns. Returns it with a valid lower bound."""
    integer = np.array(program.integer)
    if _integral(relaxed.values, integer):
        return relaxed, relaxed.objective
    reduced = np.where(integer, relaxed.reduced_costs, 0.0)
    width = _first_width(reduced[integer], relaxed.objective)
    best: RawSolution | None = None
    while True:
        known = cutoff if best is None else min(cutoff, best.objective)
        if math.isfinite(known):
            width = min(width, known - relaxed.objective) if best is None else known - relaxed.objective
        width = max(width, abs(relaxed.objective) * TOLERANCE)
        allowed = reduced <= width * (1 + 1e-9)
        raw = run_mip(program, name, allowed, _left(deadline), gap, known)
        if raw.has_values and (best is None or raw.objective < best.objective):
            best = raw
        # outside the core every solution costs more than the relaxation plus the width
        proved = relaxed.objective + width
        if raw.status == "time":
            bound = min(proved, max(raw.bound, relaxed.objective))
            return (best or raw), bound
        inside = raw.bound if raw.has_values else known
        if best is not None and best.objective <= proved * (1 + TOLERANCE):
            return best, min(inside, best.objective)
        if bool(allowed.all()) or (math.isfinite(known) and width >= known - relaxed.objective and best is None):
            return (best or raw), inside
        if best is None:
            width *= 4


def _first_width(reduced: Array, objective: float) -> float:
    if len(reduced) <= CORE_COLUMNS:
        return math.inf
    return max(float(np.partition(reduced, CORE_COLUMNS)[CORE_COLUMNS]), abs(objective) * 1e-4)


def _integral(values: Array, integer: Array) -> bool:
    return bool(np.all(np.abs(values[integer] - np.round(values[integer])) < 1e-7))


def _finish(program: Program, raw: RawSolution, bound: float, name: str, gap: float, seconds: float) -> Solution:
    """Recompute the objective, derive the gap, and name the status."""
    if not raw.has_values:
        if raw.status == "time":
            raise SolverError(
                f"{program.name}: {name} found no solution in time", seen=f"{seconds:.1f} s", fix="allow more time (--budget)"
            )
        raise InfeasibleError(f"{program.name}: no solution satisfies the constraints", seen=f"{name}: {raw.status}")
    integer = np.array(program.integer)
    values = np.where(integer, np.round(raw.values), raw.values)
    objective = float(np.dot(program.cost, values))
    bound = min(bound, objective)
    rel = (objective - bound) / max(abs(objective), 1e-300)
    rel = 0.0 if rel < max(TOLERANCE, 1e-12) else rel
    status = "optimal" if rel <= max(gap, TOLERANCE) else "feasible"
    report = SolverReport(name, version_of(name), status, objective, objective if rel == 0.0 else bound, rel, seconds)
    return Solution(values, report)
