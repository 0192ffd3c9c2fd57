"""One `solve` for every integer program of hwsim, with an honest word about what was proved.

PuLP calls any incumbent of a time-out "Optimal"; so the status here is read from `sol_status`, the objective is
recomputed from the columns, and the bound and gap are ours: ``gap = (objective - bound) / |objective|``.

How a program is solved (the same for CBC, HiGHS and scipy): where the program names disjunctions (loop orders, for
tilings), a best-first search branches on them with LP bounds, which are nearly tight once the disjunctions are
decided. In a leaf, a column whose reduced cost exceeds incumbent - bound cannot be in a better solution (LP
duality), so a small core of cheap columns is solved first, and if the answer does not prove itself, the core that
is large enough to.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwsim.errors import InfeasibleError, OutOfTimeError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.backends import RawSolution, Relaxation, best_available, run_mip, version_of
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
    InfeasibleError: no solution exists (proved). SolverError: the solver is missing. OutOfTimeError: it
    stopped with no solution.
    """
    begun = time.perf_counter()
    name = best_available(solver)
    deadline = math.inf if time_limit_s is None else begun + time_limit_s
    search = _Search(program, name, deadline, gap, cutoff, core)
    raw, bound = search.run()
    return _finish(program, raw, bound, name, gap, time.perf_counter() - begun)


class _Search:
    """Best-first search over the program's disjunctions; leaves are solved by the chosen backend."""

    def __init__(self, program: Program, name: str, deadline: float, gap: float, cutoff: float, core: bool) -> None:
        self.program, self.name, self.deadline, self.gap, self.core = program, name, deadline, gap, core
        self.best: RawSolution | None = None
        self.known = cutoff
        self.relaxation = Relaxation(program)
        self.ticket = itertools.count()

    def run(self) -> tuple[RawSolution, float]:
        """The best solution (or none) and a lower bound on every solution."""
        if not self.core:
            raw = run_mip(self.program, self.name, None, _left(self.deadline), self.gap, self.known)
            return raw, raw.bound
        queue: list[tuple[float, int, int, Array, RawSolution]] = []
        self._push(queue, 0, np.zeros(self.program.n_columns, dtype=bool))
        while queue:
            bound, depth, _, closed, relaxed = heapq.heappop(queue)
            depth = -depth
            if bound >= self.known - abs(self.known) * max(self.gap, TOLERANCE):
                break
            if time.perf_counter() > self.deadline:
                return self._answer("time"), bound
            if depth < len(self.program.disjunctions):
                for columns in self.program.disjunctions[depth]:
                    also = closed.copy()
                    also[columns] = True
                    self._push(queue, depth + 1, also)
                continue
            raw, leaf_bound = _solve_cores(self.program, relaxed, closed, self)
            if raw.has_values and raw.objective < self.known:
                self.best, self.known = raw, raw.objective
            if raw.status == "time":
                return self._answer("time"), min(leaf_bound, queue[0][0] if queue else math.inf)
        return self._answer("infeasible"), self.known

    def _answer(self, otherwise: str) -> RawSolution:
        return self.best if self.best is not None else RawSolution(otherwise)

    def _push(self, queue: list[Any], depth: int, closed: Array) -> None:
        relaxed = self.relaxation.solve(closed, _left(self.deadline))
        if relaxed.status == "infeasible":
            return
        if relaxed.status != "optimal":
            fix = "allow more time (--budget)"
            raise OutOfTimeError(f"{self.program.name}: the LP relaxation did not finish", seen=relaxed.status, fix=fix)
        heapq.heappush(queue, (relaxed.objective, -depth, next(self.ticket), closed, relaxed))


def _left(deadline: float) -> float:
    return max(0.05, deadline - time.perf_counter()) if math.isfinite(deadline) else math.inf


def _solve_cores(program: Program, relaxed: RawSolution, closed: Array, search: _Search) -> tuple[RawSolution, float]:
    """Solve growing cores of a leaf until the answer is proved within it. Returns it with a lower bound of the leaf."""
    integer = np.array(program.integer)
    if _integral(relaxed.values, integer):
        return relaxed, relaxed.objective
    reduced = np.where(integer, relaxed.reduced_costs, 0.0)
    width = _first_width(reduced[integer & ~closed], relaxed.objective)
    best = RawSolution("infeasible")
    while True:
        known = min(search.known, best.objective)
        floor = abs(relaxed.objective) * TOLERANCE
        needed = max(known - relaxed.objective, floor)
        width = needed if best.has_values else max(min(width, needed), floor)
        allowed = ~closed & (reduced <= width * (1 + 1e-9))
        raw = run_mip(program, search.name, allowed, _left(search.deadline), search.gap, known)
        if raw.has_values and raw.objective < best.objective:
            best = raw
        # outside the core every solution of the leaf costs more than the relaxation plus the width
        outside = relaxed.objective + width
        if raw.status == "time":
            return RawSolution("time", best.objective, values=best.values), min(
                outside, max(raw.bound, relaxed.objective)
            )
        if best.has_values and best.objective <= outside * (1 + TOLERANCE):
            return best, min(raw.bound, best.objective)
        if width >= needed or bool((allowed | closed).all()):
            return best, min(raw.bound, outside)
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
            raise OutOfTimeError(
                f"{program.name}: {name} found no solution in time",
                seen=f"{seconds:.1f} s",
                fix="allow more time (--budget)",
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
