"""The best squares of a phase: a path over operators with one memory constraint, by an integer program a region side.

The largest square fixes how many layers a region holds. For each side in the order of a bound (no moves, no memory
limit) a program chooses sides up to it: one-hot sides, joint variables for neighbours, the bytes of a core. The
search stops when the next bound reaches the best.
"""

from __future__ import annotations

import math
import time

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.ilp import Program
from hwsim.mapping.mesh.problem import MeshDecision, MeshProblem, does_not_fit
from hwsim.mapping.solve import solve


def best_squares(problem: MeshProblem, *, budget_s: float | None = None, same: bool = False) -> MeshDecision:
    """The proved best sides of all operators; `same`: one side for all (what the family itself would choose).

    Raises InfeasibleError where nothing fits a core, or a tree needs more routes than a core has.
    """
    begun = time.perf_counter()
    if problem.routes > problem.free_routes:
        raise InfeasibleError(
            f"the reduction tree needs {problem.routes - problem.free_routes} routes more than a core has",
            where="mesh.tree",
            seen=f"{problem.routes} of {problem.free_routes}",
        )
    n, s = problem.cycles.shape
    uniform = [np.full(n, k) for k in range(s)]
    legal = [c for c in uniform if problem.core_bytes(c) <= problem.room]
    best = min(legal, key=problem.value, default=None)
    name, version, bound = f"enumeration of {s} sides", "", math.nan
    if not same:
        best, name, version, bound = _programs(problem, best, math.inf if budget_s is None else begun + budget_s)
    if best is None:
        raise does_not_fit(problem, min(problem.core_bytes(c) for c in uniform))
    value = problem.value(best)
    bound = value if math.isnan(bound) else min(bound, value)
    gap = (value - bound) / value
    status = "optimal" if gap < 1e-9 else "feasible"
    report = SolverReport(name, version, status, value, bound, max(gap, 0.0), time.perf_counter() - begun)
    return MeshDecision(tuple(int(k) for k in best), report)


def _programs(
    problem: MeshProblem, best: np.ndarray | None, deadline: float
) -> tuple[np.ndarray | None, str, str, float]:
    bounds = [float(problem.cycles[:, : k + 1].min(axis=1).sum()) for k in range(problem.cycles.shape[1])]
    order = sorted(range(len(bounds)), key=lambda k: (bounds[k], k))
    name, version = f"enumeration of {len(bounds)} sides", ""
    for k in order:
        value = math.inf if best is None else problem.value(best)
        if bounds[k] >= value * (1 - 1e-12):
            return best, name, version, value
        left = deadline - time.perf_counter()
        if left <= 0:
            return best, name, version, bounds[k]
        try:
            found, name, version = _solve(problem, k, None if math.isinf(left) else left)
        except InfeasibleError:
            continue
        best = found if problem.value(found) < value else best
    return best, name, version, math.nan


def _solve(problem: MeshProblem, largest: int, left: float | None) -> tuple[np.ndarray, str, str]:
    """The best choice of sides up to index `largest`, layers counted for exactly that region."""
    n, s = len(problem.names), largest + 1
    scale = 1.0 / float(problem.cycles[:, :s].min(axis=1).sum())
    program = Program("mesh")
    sides = np.array([program.columns(s, (problem.cycles[i, :s] * scale).tolist()) for i in range(n)])
    for i in range(n):
        program.one_hot(sides[i], f"side {i}")
        before, cost = sides[problem.previous[i]], problem.move[i, :s, :s] * scale
        if not np.any(cost > 0) or problem.previous[i] == i:
            continue
        joint = program.columns(s * s, cost.ravel().tolist(), integer=False).reshape(s, s)
        for k in range(s):
            program.row([*joint[k], before[k]], [*np.ones(s), -1.0], 0.0, 0.0)
            program.row([*joint[:, k], sides[i][k]], [*np.ones(s), -1.0], 0.0, 0.0)
    room = problem.room if math.isfinite(problem.room) else 1e300
    share = problem.held[:, :s].ravel() * problem.layers[largest] / room
    used = share > 1e-12
    if used.any():
        program.row(sides.ravel()[used], share[used], high=1.0, name="core memory")
    solution = solve(program, time_limit_s=left)
    chosen = np.array([int(np.argmax(solution.values[row])) for row in sides])
    return chosen, solution.report.solver, solution.report.version
