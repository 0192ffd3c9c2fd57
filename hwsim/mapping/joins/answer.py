"""The best tiling by the join search, as a `TilingResult`: batch spreads, the two steps of latency, bound and gap."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, Final

from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.candidates import Options
from hwsim.mapping.counts import count
from hwsim.mapping.joins.case import Case
from hwsim.mapping.joins.search import Found, Search
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Gemm
from hwsim.mapping.tiling.goal import Goal
from hwsim.mapping.tiling.result import TilingResult, batch_spreads

NAME: Final = "join search"
SAME: Final = 1e-9  # relative gap below which bound and value are called equal


def join_tiling(
    machine: Machine, gemm: Gemm, goal: Goal, *, options: Options, deadline: float = math.inf
) -> TilingResult:
    """The best tiling of `gemm`; after `deadline` (of `time.perf_counter`) the best found, with what is proved.

    For ``latency`` the bound is of cycles; least energy among equal cycles is proved only where time sufficed.
    Raises InfeasibleError where nothing fits.
    """
    begun = time.perf_counter()
    best, bound, members = Found(), math.inf, 1
    for side_by_side in batch_spreads(machine, gemm, goal.name):
        case = Case(machine.share(side_by_side), gemm, options, side_by_side)
        before = best.tiling
        best.bound, best.finished = math.inf, True
        _search(case, goal, best, deadline)
        bound = min(bound, best.bound)
        if best.tiling is not before:
            members = side_by_side
    if best.tiling is None:
        raise InfeasibleError(f"no tiling of {gemm.name} on {machine.name}", where=machine.name)
    tiling = replace(best.tiling, batch_spatial=members)
    counts = count(machine, gemm, tiling)
    value = float(goal.value(float(counts.energy), float(counts.cycles)))
    bound = min(bound, value)
    gap = (value - bound) / value if value else 0.0
    gap, bound = (0.0, value) if gap < SAME else (gap, bound)
    report = SolverReport(
        NAME, _version(), "feasible" if gap else "optimal", value, bound, gap, time.perf_counter() - begun
    )
    return TilingResult(machine, gemm, goal.name, tiling, counts, report)


def _search(case: Case, goal: Goal, best: Found, deadline: float) -> None:
    """One search, or two for latency: least cycles first, then least energy among those."""
    if goal.name != "latency":
        Search(case, goal.value, goal.name != "energy", deadline=deadline, best=best).run()
        return
    known = best.value, best.tiling
    first = Search(case, _cycles_alone, deadline=deadline, best=best)
    first.run()
    if not best.finished or best.tiling is None:
        return
    if known[1] is not None and best.tiling is known[1]:
        return
    second = Found(value=best.energy, energy=best.energy, tiling=best.tiling)
    Search(case, _energy_alone, cap=best.value, deadline=deadline, best=second, outlook=first.outlook).run()
    best.tiling, best.energy = second.tiling, second.energy


def _cycles_alone(energy: Any, cycles: Any) -> Any:
    return cycles


def _energy_alone(energy: Any, cycles: Any) -> Any:
    return energy


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"hwsim {version('hwsim')}"
    except PackageNotFoundError:
        return "hwsim"
