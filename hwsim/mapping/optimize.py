"""The best tiling of one GEMM for energy, latency, EDP or a weighted sum, with what is proved about it."""

from __future__ import annotations

import math
import time
from typing import Final

from hwsim.mapping.candidates import Options
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Gemm
from hwsim.mapping.solve import SolverName
from hwsim.mapping.tiling.goal import goal_of
from hwsim.mapping.tiling.result import TilingResult

DEFAULT_OPTIONS: Final = Options()


def best_tiling(
    machine: Machine,
    gemm: Gemm,
    objective: str = "edp",
    *,
    options: Options = DEFAULT_OPTIONS,
    solver: SolverName = "auto",
    budget_s: float | None = None,
    weights: tuple[float, float] = (0.5, 0.5),
) -> TilingResult:
    """The best tiling of `gemm` on `machine`.

    Parameters
    ----------
    objective: ``energy`` (pJ), ``latency`` (cycles, then energy), ``edp`` (pJ x cycles) or ``weighted``.
    solver: ``auto`` searches by joins of dimension paths (no solver needed); ``cbc``, ``highs`` and ``scipy`` solve
        the integer program of the same tilings.
    budget_s: wall seconds; when they end, the best found is returned with the gap that is proved for it.

    Raises
    ------
    InfeasibleError: nothing fits; names level, tensors and shortfall. SolverError: no answer in the budget.
    """
    deadline = math.inf if budget_s is None else time.perf_counter() + budget_s
    goal = goal_of(objective, weights)
    if solver == "auto":
        from hwsim.mapping.joins.answer import join_tiling

        return join_tiling(machine, gemm, goal, options=options, deadline=deadline)
    from hwsim.mapping.integer.search import program_tiling

    return program_tiling(machine, gemm, goal, options=options, solver=solver, deadline=deadline)
