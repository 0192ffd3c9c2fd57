"""A placement by paths: the relaxation's prices and reduced costs, then the search below rising ceilings."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import InfeasibleError, OutOfTimeError
from hwsim.mapping.backends import RawSolution, Relaxation
from hwsim.mapping.ilp import Program
from hwsim.mapping.placement.graph import GraphProgram
from hwsim.mapping.placement.paths.search import Found, Search
from hwsim.mapping.placement.paths.states import layers_of
from hwsim.mapping.placement.problem import Choice, GraphProblem, cost_of, violations

Array = np.ndarray[Any, Any]
CEILINGS: Final = (1e-3, 4e-3, 1.6e-2, 6.4e-2, 0.25, 1.0, 4.0)  # relative to the relaxation; then everything
EXACT: Final = 1e-9  # relative: a rounded relaxation that costs no more than this above it is optimal
MARGIN: Final = 1e-7  # relative: what a solver's reduced costs and objective may be off


@dataclass(frozen=True, slots=True)
class PathAnswer:
    """The best choice seen (None: none), its value and the proved bound."""

    choice: Choice | None
    value: float
    bound: float


def applies(problem: GraphProblem, objective: str) -> bool:
    """Whether placements are paths: no folded layers, nothing kept on chip, an objective that adds up."""
    plain = int(problem.copies.max()) == 1 and not any(c.keeps for c in problem.columns)
    return plain and objective in ("latency", "energy")


def solve_by_paths(target: GraphProgram, objective: str, unit: float, limit_s: float) -> PathAnswer:
    """The best placement with its bound; without a choice where states or joins are too many for any answer.

    Parameters
    ----------
    target: the program with its objective set, `unit` the unit of its value.

    Raises
    ------
    InfeasibleError: no placement keeps the memories. SolverError: HiGHS is missing. OutOfTimeError: no
    relaxation in time.
    """
    deadline = time.perf_counter() + limit_s
    problem = target.problem
    relaxed = _relaxed(target.program, limit_s)
    floor = relaxed.objective * unit
    rounded = _rounded(problem, relaxed.values[target.x])
    if rounded is not None:
        value = cost_of(problem, rounded).value(objective)
        if value <= floor * (1 + EXACT) and not violations(problem, rounded):
            return PathAnswer(rounded, value, min(floor, value))
    return _under_ceilings(target, objective, unit, relaxed, deadline)


def _relaxed(program: Program, limit_s: float) -> RawSolution:
    """The linear relaxation, its columns without upper bounds (one-hot rows hold them), so that duals are clean."""
    free = program.copy()
    free.upper = [math.inf] * program.n_columns
    raw = Relaxation(free).solve(time_limit_s=limit_s)
    if raw.status == "infeasible":
        raise InfeasibleError(f"{program.name}: no solution satisfies the constraints", seen="highs: infeasible")
    if raw.status != "optimal":
        fix = "allow more time (--budget)"
        raise OutOfTimeError(f"{program.name}: the linear relaxation did not finish", seen=raw.status, fix=fix)
    return raw


def _rounded(problem: GraphProblem, values: Array) -> Choice | None:
    """The choice of an integral relaxation."""
    picked = np.flatnonzero(values > 0.5)
    if np.any(np.abs(values - np.round(values)) > 1e-6) or len(picked) != len(problem.items):
        return None
    order = picked[np.argsort(problem.column_item[picked])]
    return tuple(np.array([c]) for c in order)


def _under_ceilings(
    target: GraphProgram, objective: str, unit: float, relaxed: RawSolution, deadline: float
) -> PathAnswer:
    problem, floor = target.problem, relaxed.objective * unit
    energy = objective == "energy"
    cost = problem.of("energy_j" if energy else "time_s")
    sends = [problem.send_j(f) if energy else problem.send_s(f) for f in problem.flows]
    reduced = relaxed.reduced_costs[target.x] * unit
    most = _most(problem, cost, sends)
    answer = PathAnswer(None, math.inf, floor * (1 - MARGIN))
    for rise in (*CEILINGS, math.inf):
        ceiling = min(floor * (1 + rise), most)
        allowed = reduced <= (ceiling - floor) + MARGIN * abs(floor)
        layers = layers_of(problem, allowed, cost, sends, deadline)
        if layers is None:
            return answer
        prices = _prices(target, relaxed, unit, layers.names)
        search = Search(layers, prices, ceiling, deadline)
        answer = _better(answer, search.run())
        if answer.value <= answer.bound * (1 + EXACT) or answer.bound < ceiling * (1 - EXACT):
            return answer
        if ceiling >= most:
            break
    if answer.choice is None:
        raise InfeasibleError(f"placement of {problem.name}: no solution satisfies the constraints")
    return answer


def _most(problem: GraphProblem, cost: Array, sends: list[Array]) -> float:
    """A cost that no placement passes."""
    dearest = np.zeros(len(problem.items))
    np.maximum.at(dearest, problem.column_item, cost)
    return (float(dearest.sum()) + sum(float(s.max(axis=0).sum()) for s in sends)) * (1 + MARGIN) + 1e-300


def _better(old: PathAnswer, found: Found) -> PathAnswer:
    bound = max(found.bound, old.bound)
    if old.value <= found.cost:
        return PathAnswer(old.choice, old.value, min(bound, old.value))
    choice = None if found.columns is None else tuple(np.array([c]) for c in found.columns)
    return PathAnswer(choice, found.cost, min(bound, found.cost))


def _prices(target: GraphProgram, relaxed: RawSolution, unit: float, names: list[str]) -> Array:
    """Seconds (or joules) a byte of each memory in the relaxation; 0 where it has no row."""
    rows = {name: at for at, name in enumerate(target.program.row_names) if name.startswith("memory of ")}
    sizes = {f"memory of {s.name}": max(s.memory_bytes, 1.0) for s in target.problem.sites}
    out = [-relaxed.row_duals[rows[n]] * unit / sizes[n] if n in rows else 0.0 for n in names]
    return np.maximum(np.array(out), 0.0)
