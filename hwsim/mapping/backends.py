"""The solvers behind `solve`: CBC through PuLP, HiGHS through highspy, scipy's milp. Nothing else knows them."""

from __future__ import annotations

import importlib.util
import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import SolverError, unknown_name
from hwsim.mapping.ilp import Program

Array = np.ndarray[Any, Any]
_PACKAGE = {"cbc": "pulp", "highs": "highspy", "scipy": "scipy"}
_EMPTY: Array = np.zeros(0)


@dataclass(frozen=True, slots=True)
class RawSolution:
    """A backend's own words: status ``optimal``, ``time``, ``infeasible`` or another, values, bound."""

    status: str
    objective: float = math.inf
    bound: float = -math.inf
    values: Array = field(default_factory=lambda: _EMPTY)
    reduced_costs: Array = field(default_factory=lambda: _EMPTY)
    row_duals: Array = field(default_factory=lambda: _EMPTY)

    @property
    def has_values(self) -> bool:
        return len(self.values) > 0


def best_available(name: str) -> str:
    """The solver to use. Raises UnknownNameError or SolverError with what to install."""
    if name == "auto":
        for option, package in _PACKAGE.items():
            if importlib.util.find_spec(package) is not None:
                return option
    if name not in _PACKAGE:
        raise unknown_name("solver", name, [*_PACKAGE, "auto"])
    if importlib.util.find_spec(_PACKAGE[name]) is None:
        raise SolverError(f"solver {name} is not installed", fix=f'pip install "{_PACKAGE[name]}"')
    return name


def version_of(name: str) -> str:
    """Solver and interface versions."""
    from importlib.metadata import version

    return f"{_PACKAGE[name]} {version(_PACKAGE[name])}"


class Relaxation:
    """The LP relaxation of a program in HiGHS, kept warm: re-solved with some columns fixed to 0."""

    def __init__(self, program: Program) -> None:
        self._highs = _highs(program, None, relax=True, time_limit_s=math.inf)
        self._upper = np.array(program.upper, dtype=float)
        self._closed = np.zeros(program.n_columns, dtype=bool)

    def solve(self, closed: Array | None = None, time_limit_s: float = math.inf) -> RawSolution:
        """Bound, values and reduced costs (>= 0 at the lower bound) with the `closed` columns (a mask) at 0."""
        closed = np.zeros_like(self._closed) if closed is None else closed
        changed = np.flatnonzero(closed != self._closed).astype(np.int32)
        if len(changed):
            upper = np.where(closed[changed], 0.0, self._upper[changed])
            self._highs.changeColsBounds(len(changed), changed, np.zeros(len(changed)), upper)
            self._closed = closed.copy()
        if math.isfinite(time_limit_s):
            self._highs.setOptionValue("time_limit", self._highs.getRunTime() + float(time_limit_s))
        self._highs.run()
        status = str(self._highs.getModelStatus()).rsplit(".", 1)[-1]
        if status != "kOptimal":
            word = "infeasible" if "nfeasible" in status else "time" if "Time" in status else status
            return RawSolution(word, bound=math.inf if word == "infeasible" else -math.inf)
        solution = self._highs.getSolution()
        values, duals = np.array(solution.col_value), np.array(solution.col_dual)
        objective = self._highs.getObjectiveValue()
        rows = np.array(solution.row_dual)
        return RawSolution("optimal", objective, objective, values, np.maximum(duals, 0.0), rows)


class Planes:
    """The highest point under planes ``value + slope x point``, within a box; kept warm while planes are added."""

    def __init__(self, size: int) -> None:
        best_available("highs")
        import highspy

        self._highs, self._size = highspy.Highs(), size
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("threads", 1)
        self._highs.addVar(-math.inf, math.inf)
        self._highs.changeColCost(0, -1.0)
        for _ in range(size):
            self._highs.addVar(0.0, math.inf)
        self._columns = np.arange(size + 1, dtype=np.int32)

    def add(self, value: float, slope: Array) -> None:
        """One more plane."""
        self._highs.addRow(-math.inf, value, self._size + 1, self._columns, np.concatenate([[1.0], -slope]))

    def highest(self, low: Array, high: Array) -> tuple[float, Array, Array]:
        """Height, point, and the weight of each plane (their mean is flat); an infinite height where it failed."""
        self._highs.changeColsBounds(self._size, self._columns[1:], low, high)
        self._highs.run()
        if not str(self._highs.getModelStatus()).endswith("kOptimal"):
            return math.inf, low, np.zeros(0)
        solution = self._highs.getSolution()
        values = np.array(solution.col_value)
        return float(values[0]), values[1:], np.abs(np.array(solution.row_dual))


def run_mip(
    program: Program, name: str, allowed: Array | None, time_limit_s: float, gap: float, cutoff: float
) -> RawSolution:
    """Solve over the allowed columns (the others are 0), keeping only solutions not above `cutoff`."""
    columns = np.arange(program.n_columns) if allowed is None else np.flatnonzero(allowed)
    raw = _RUN[name](program, columns, time_limit_s, gap, cutoff)
    if not raw.has_values:
        return raw
    values = np.zeros(program.n_columns)
    values[columns] = raw.values
    return RawSolution(raw.status, float(np.dot(program.cost, values)), raw.bound, values)


def _highs(
    program: Program, columns: Array | None, *, relax: bool, time_limit_s: float, cutoff: float = math.inf
) -> Any:
    best_available("highs")  # relaxations need it whatever solves the program: said plainly where it is missing
    import highspy

    matrix = program.matrix()
    if columns is not None:
        matrix = matrix[:, columns]
    pick: Any = slice(None) if columns is None else columns
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_ = np.array(program.cost)[pick]
    lp.col_lower_ = np.zeros(matrix.shape[1])
    # binaries in a one-hot row never pass 1, so a relaxation without upper bounds has clean reduced costs
    lp.col_upper_ = np.array(program.upper)[pick]
    lp.row_lower_ = np.array(program.low)
    lp.row_upper_ = np.array(program.high)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = matrix.indptr
    lp.a_matrix_.index_ = matrix.indices
    lp.a_matrix_.value_ = matrix.data
    if not relax:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(i)] for i in np.array(program.integer)[pick]]
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    if math.isfinite(time_limit_s):
        highs.setOptionValue("time_limit", float(time_limit_s))
    if math.isfinite(cutoff):
        highs.setOptionValue("objective_bound", float(cutoff))
    highs.passModel(lp)
    return highs


def _run_highs(program: Program, columns: Array, time_limit_s: float, gap: float, cutoff: float) -> RawSolution:
    highs = _highs(program, columns, relax=False, time_limit_s=time_limit_s)
    highs.setOptionValue("mip_rel_gap", gap)
    highs.setOptionValue("mip_abs_gap", 1e-9)
    highs.setOptionValue("mip_feasibility_tolerance", 1e-9)
    highs.run()
    status = str(highs.getModelStatus()).rsplit(".", 1)[-1]
    info = highs.getInfo()
    word = {"kOptimal": "optimal", "kTimeLimit": "time", "kInfeasible": "infeasible"}.get(status, status)
    bound = float(info.mip_dual_bound) if word != "infeasible" else math.inf
    if not math.isfinite(info.objective_function_value) or word == "infeasible" or info.primal_solution_status != 2:
        return RawSolution(word, bound=bound)
    if word == "optimal" and not any(program.integer[c] for c in columns):  # a plain LP has no bound of a search
        bound = float(info.objective_function_value)
    return RawSolution(word, float(info.objective_function_value), bound, np.array(highs.getSolution().col_value))


def _run_scipy(program: Program, columns: Array, time_limit_s: float, gap: float, cutoff: float) -> RawSolution:
    from scipy.optimize import Bounds, LinearConstraint, milp

    options: dict[str, Any] = {"mip_rel_gap": gap}
    if math.isfinite(time_limit_s):
        options["time_limit"] = time_limit_s
    rows = LinearConstraint(program.matrix()[:, columns], np.array(program.low), np.array(program.high))
    result = milp(
        np.array(program.cost)[columns],
        constraints=rows,
        integrality=np.array(program.integer)[columns].astype(int),
        bounds=Bounds(0.0, np.array(program.upper)[columns]),
        options=options,
    )
    word = {0: "optimal", 1: "time", 2: "infeasible"}.get(int(result.status), str(result.message))
    bound = float(result.mip_dual_bound) if result.mip_dual_bound is not None else -math.inf
    if result.x is None:
        return RawSolution(word, bound=math.inf if word == "infeasible" else bound)
    if word == "optimal" and result.mip_dual_bound is None:  # a plain LP has no bound of a search
        bound = float(result.fun)
    return RawSolution(word, float(result.fun), bound, np.asarray(result.x))


def _run_cbc(program: Program, columns: Array, time_limit_s: float, gap: float, cutoff: float) -> RawSolution:
    import pulp

    problem, variables = _pulp_problem(program, columns)
    with tempfile.TemporaryDirectory(prefix="hwsim-") as folder:
        log = Path(folder) / "cbc.log"
        command = pulp.PULP_CBC_CMD(
            msg=False,
            threads=1,
            gapRel=gap,
            gapAbs=1e-9,
            timeLimit=time_limit_s if math.isfinite(time_limit_s) else None,
            logPath=str(log),
            options=["primalT 1e-9"],
        )
        if not command.available():
            raise SolverError("CBC is not available in this PuLP", fix='pip install "pulp>=3.3,<4"')
        command.tmpDir = folder
        try:
            problem.solve(command)
        except pulp.PulpSolverError as error:
            raise SolverError("CBC failed", seen=str(error)[:120], fix='pip install "highspy" and use HiGHS') from error
        text = log.read_text(errors="replace") if log.exists() else ""
    return _cbc_words(problem, variables, text)


def _pulp_problem(program: Program, columns: Array) -> tuple[Any, list[Any]]:
    import pulp

    matrix = program.matrix()[:, columns].tocsr()
    problem = pulp.LpProblem("hwsim", pulp.LpMinimize)
    variables = []
    for name, column in enumerate(columns):
        kind = pulp.LpInteger if program.integer[column] else pulp.LpContinuous
        upper = program.upper[column]
        variables.append(pulp.LpVariable(f"x{name}", 0, upper if math.isfinite(upper) else None, kind))
    cost = np.array(program.cost)[columns]
    problem.setObjective(pulp.LpAffineExpression({variables[i]: float(cost[i]) for i in np.flatnonzero(cost)}))
    problem.addVariables(variables)
    for row in range(matrix.shape[0]):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        terms = {variables[i]: float(v) for i, v in zip(matrix.indices[span], matrix.data[span], strict=True)}
        _add_pulp_row(problem, terms, program.low[row], program.high[row], row)
    return problem, variables


def _add_pulp_row(problem: Any, terms: dict[Any, float], low: float, high: float, row: int) -> None:
    import pulp

    if not terms:
        if low > 1e-9 or high < -1e-9:  # an empty row that cannot hold: keep it as an impossible row
            dummy = pulp.LpVariable(f"impossible{row}", 0, 0)
            problem.addConstraint(
                pulp.LpConstraint(pulp.LpAffineExpression({dummy: 1.0}), pulp.LpConstraintEQ, f"r{row}", 1.0)
            )
        return
    expression = pulp.LpAffineExpression(terms)
    if low == high:
        problem.addConstraint(pulp.LpConstraint(expression, pulp.LpConstraintEQ, f"r{row}", low))
        return
    if math.isfinite(high):
        problem.addConstraint(pulp.LpConstraint(expression, pulp.LpConstraintLE, f"r{row}u", high))
    if math.isfinite(low):
        problem.addConstraint(pulp.LpConstraint(expression, pulp.LpConstraintGE, f"r{row}l", low))


def _cbc_words(problem: Any, variables: list[Any], log: str) -> RawSolution:
    """What CBC really said: `sol_status` tells an incumbent of a time-out from an optimum, `status` does not."""
    import pulp

    if problem.sol_status in (pulp.LpSolutionInfeasible, pulp.LpSolutionUnbounded):
        return RawSolution(
            "infeasible" if problem.sol_status == pulp.LpSolutionInfeasible else "unbounded", bound=math.inf
        )
    found = re.findall(r"^(?:Lower bound|.*best possible):?\s+([-\d.eE+]+)", log, flags=re.MULTILINE)
    values = np.array([math.nan if v.varValue is None else v.varValue for v in variables])
    solved = problem.sol_status == pulp.LpSolutionOptimal
    stopped = "Stopped on time" in log
    objective = pulp.value(problem.objective)
    if objective is None or np.isnan(values).any() or problem.sol_status == pulp.LpSolutionNoSolutionFound:
        return RawSolution("time" if stopped else f"cbc: {pulp.LpStatus[problem.status]}")
    bound = float(objective) if solved and not stopped else float(found[-1]) if found else -math.inf
    return RawSolution("optimal" if solved and not stopped else "time", float(objective), bound, values)


_RUN = {"cbc": _run_cbc, "highs": _run_highs, "scipy": _run_scipy}
