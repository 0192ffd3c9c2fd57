"""The choice among costed layouts: limits, memory, uneven stages, and a proof that nothing better is left.

Columns assume that every pipeline stage takes the same time. Real stages hold whole layers, an embedding and a head,
so a pipeline is never quicker than its column: the columns bound the truth from below. Candidates are refined (their
layers put on stages) in the order of that bound until the best refined one is not above the next bound; the pick is
then a one-hot program over what was refined.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.ilp import Program
from hwsim.mapping.parallelism.columns import Columns, Limits, allowed
from hwsim.mapping.parallelism.stages import Partition
from hwsim.mapping.solve import TOLERANCE, solve

MOST_REFINEMENTS = 100  # pipelines refined by one search; where more are open the answer carries its gap


@dataclass(frozen=True, slots=True)
class Refined:
    """A column with its layers on stages: what changes, and the partition."""

    index: int
    ttft_s: float
    tpot_s: float
    latency_s: float
    tokens_per_s: float
    energy_j_per_token: float
    cost_usd_per_mtok: float
    partition: Partition | None = None

    def value(self, objective: str, devices: int) -> float:
        """What is minimised, as `Columns.value`."""
        return {
            "latency": self.latency_s,
            "throughput": -self.tokens_per_s / devices,
            "energy": self.energy_j_per_token,
            "cost": self.cost_usd_per_mtok,
        }[objective]


Refine = Callable[[int], Refined]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen column, refined, every refined candidate best first, and the solver's report."""

    best: Refined
    refined: tuple[Refined, ...]
    report: SolverReport


def as_is(columns: Columns, index: int) -> Refined:
    """A column whose figures are already exact (no pipeline)."""
    return Refined(
        index,
        float(columns.ttft_s[index]),
        float(columns.tpot_s[index]),
        float(columns.latency_s[index]),
        float(columns.tokens_per_s[index]),
        float(columns.energy_j_per_token[index]),
        float(columns.cost_usd_per_mtok[index]),
    )


def choose(columns: Columns, objective: str, limits: Limits, refine: Refine, budget_s: float | None = None) -> Choice:
    """The best column under the limits.

    Parameters
    ----------
    refine: exact figures of a column; raises InfeasibleError where its layers cannot be put on stages.
    budget_s: wall seconds; when they end the best so far is returned with its bound and gap.

    Raises
    ------
    InfeasibleError: no column keeps memory and limits. UnknownNameError: an unknown objective.
    """
    begun = time.perf_counter()
    bound = columns.value(objective)
    order = _best_first(columns, bound, allowed(columns, limits))
    if not len(order):
        raise InfeasibleError("no layout keeps the memory and the limits")
    found: list[tuple[float, Refined]] = []
    left = np.inf
    for tried, index in enumerate(order.tolist()):
        if found and bound[index] >= (least := min(value for value, _ in found)) - abs(least) * TOLERANCE:
            break
        late = budget_s is not None and time.perf_counter() - begun > budget_s
        if found and (late or tried >= MOST_REFINEMENTS):
            left = float(bound[index])
            break
        found += _refined(columns, objective, limits, refine, index)
    if not found:
        raise InfeasibleError("no pipeline keeps memory and limits once its layers are put on stages")
    found.sort(key=lambda item: item[0])
    best, report = _pick(found, left)
    seconds = time.perf_counter() - begun
    return Choice(best, tuple(r for _, r in found), replace(report, seconds=seconds))


def _best_first(columns: Columns, bound: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Allowed columns by bound; among equals (to 12 digits) the quicker, then fewer devices."""
    index = np.flatnonzero(good & np.isfinite(bound))
    values, latency = (
        np.round(x[index] / np.abs(x[index]).min(initial=np.inf), 12) for x in (bound, columns.latency_s)
    )
    keys = (columns.layout[index], columns.used[index], latency, values)
    return np.asarray(index[np.lexsort(keys)])


def _refined(
    columns: Columns, objective: str, limits: Limits, refine: Refine, index: int
) -> list[tuple[float, Refined]]:
    """The refined column with its value, or nothing where it breaks a limit or does not fit by stages."""
    try:
        exact = refine(index)
    except InfeasibleError:
        return []
    if exact.ttft_s > limits.ttft_s or exact.tpot_s > limits.tpot_s:
        return []
    return [(exact.value(objective, columns.devices), exact)]


def _pick(found: list[tuple[float, Refined]], left: float) -> tuple[Refined, SolverReport]:
    """One-hot over the refined candidates, and the bound over those left out."""
    program = Program("choice of a layout")
    program.one_hot(program.columns(len(found), [value for value, _ in found]), "one layout")
    solution = solve(program)
    at = int(np.argmax(solution.values))
    value = found[at][0]
    bound = min(left, value)
    gap = (value - bound) / max(abs(value), 1e-300)
    status = "optimal" if gap <= TOLERANCE else "feasible"
    report = solution.report
    return found[at][1], SolverReport(report.solver, report.version, status, value, bound, max(gap, 0.0), 0.0)
