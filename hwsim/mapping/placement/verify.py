"""A mapper's word is checked: legal, costed here, its claims compared. Bounds that nothing beats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.placement.answer import Placement, Staging, Tiering, judged
from hwsim.mapping.placement.chain import Chain, cost_of_stages, stage_violations
from hwsim.mapping.placement.problem import GraphProblem, cost_of, violations
from hwsim.mapping.placement.tiers import TierProblem, tier_violations, time_of


def verified(problem: Any, objective: str, answer: Any) -> SolverReport:
    """The report of an answer with the objective recomputed and a bound that holds.

    Raises
    ------
    InfeasibleError: the answer is not legal. CheckFailedError: it claims another objective, or is no answer to this
    kind of problem.
    """
    value, floor, wrong = _examined(problem, objective, answer)
    if wrong:
        raise InfeasibleError(f"the placement of {problem.name} is not legal", seen="; ".join(wrong[:3]))
    old: SolverReport = answer.report
    if not math.isnan(old.objective) and abs(old.objective - value) > 1e-9 * abs(value):
        raise CheckFailedError("the mapper's objective is not that of its placement", seen=f"{old.objective}, {value}")
    bound = floor if math.isnan(old.bound) else max(floor, old.bound)
    return judged(old.solver, old.version, value, bound, old.seconds)


def _examined(problem: Any, objective: str, answer: Any) -> tuple[float, float, list[str]]:
    """Value, floor, and what is wrong."""
    if isinstance(problem, GraphProblem) and isinstance(answer, Placement):
        wrong = violations(problem, answer.choice)
        return (0.0 if wrong else cost_of(problem, answer.choice).value(objective)), floor_of(problem, objective), wrong
    if isinstance(problem, Chain) and isinstance(answer, Staging):
        wrong = stage_violations(problem, answer.stages, answer.order)
        value = 0.0 if wrong else cost_of_stages(problem, answer.stages, answer.order).value(objective)
        return value, chain_floor(problem, objective), wrong
    if isinstance(problem, TierProblem) and isinstance(answer, Tiering):
        wrong = tier_violations(problem, answer.shares)
        return (
            (0.0 if wrong else time_of(problem, answer.shares)),
            sum(p.count * p.floor_s for p in problem.phases),
            wrong,
        )
    raise CheckFailedError(
        "the mapper's answer does not belong to the problem",
        seen=f"{type(answer).__name__} to {type(problem).__name__}",
    )


def floor_of(problem: GraphProblem, objective: str) -> float:
    """A value that no placement beats: the cheapest candidate of every operator, nothing sent."""
    time, energy = (_least(problem, name) for name in ("time_s", "energy_j"))
    return _goal(objective, time, energy, len(problem.sites))


def _least(problem: GraphProblem, name: str) -> float:
    least = np.full(len(problem.items), math.inf)
    np.minimum.at(least, problem.column_item, problem.of(name))
    return float((least * problem.copies).sum())


def chain_floor(chain: Chain, objective: str) -> float:
    """As `floor_of`, for stages."""
    time, energy = float(chain.time_s.min(axis=1).sum()), float(chain.energy_j.min(axis=1).sum())
    return _goal(objective, time, energy, len(chain.sites))


def _goal(objective: str, time_s: float, energy_j: float, sites: int) -> float:
    return {"latency": time_s, "throughput": time_s / sites, "energy": energy_j, "edp": time_s * energy_j}[objective]
