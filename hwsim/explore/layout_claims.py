"""What is true of a layout mapper's choice, whatever it claims: its figures, a bound that holds, and what beats it.

Columns bound their layouts from below, refined ones are exact. So the least over all allowed columns, each with what
is known best of it, is a bound on every layout, and a choice is proved only where it meets that.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field, replace

import numpy as np

from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.parallelism.choose import Choice, Refine, Refined
from hwsim.mapping.parallelism.columns import Columns, Limits, allowed
from hwsim.mapping.solve import TOLERANCE


@dataclass(slots=True)
class Asked:
    """`refine` that remembers what it answered; None: the layers cannot be put on stages."""

    refine: Refine
    answers: dict[int, Refined | None] = field(default_factory=dict)

    def __call__(self, index: int) -> Refined:
        """Exact figures of a column. Raises InfeasibleError."""
        index = int(index)
        if index not in self.answers:
            self.answers[index] = self._first(index)
        found = self.answers[index]
        if found is None:
            raise InfeasibleError("the layers of this layout cannot be put on stages")
        return found

    def _first(self, index: int) -> Refined | None:
        try:
            return self.refine(index)
        except InfeasibleError:
            return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The report that holds of a choice, and the best known layout where that is another one."""

    report: SolverReport
    better: Refined | None


def keeps(one: Refined, limits: Limits) -> bool:
    """Whether exact figures are within the limits."""
    return one.ttft_s <= limits.ttft_s and one.tpot_s <= limits.tpot_s


def same_figures(one: Refined, other: Refined) -> bool:
    """Whether two refined columns say the same; unknown prices (NaN) are equal."""
    pairs = zip(astuple(replace(one, partition=None)), astuple(replace(other, partition=None)), strict=True)
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def judged(columns: Columns, objective: str, limits: Limits, choice: Choice, asked: Asked) -> Verdict:
    """What holds of a choice under the limits that were asked for.

    Raises CheckFailedError where the mapper claims another objective than its choice has.
    """
    own = choice.best.value(objective, columns.devices)
    said = choice.report.objective
    if not math.isnan(said) and abs(said - own) > TOLERANCE * abs(own):
        raise CheckFailedError("the mapper's objective is not that of its choice", seen=f"{said} and {own}")
    value = columns.value(objective)
    bound = np.where(allowed(columns, limits) & np.isfinite(value), value, np.inf)
    exact = bound < np.inf
    exact &= np.array([layout.pp == 1 for layout in columns.layouts])[columns.layout]
    for index, found in asked.answers.items():
        if bound[index] < np.inf:
            known = found is not None and keeps(found, limits)
            bound[index] = found.value(objective, columns.devices) if found is not None and known else np.inf
            exact[index] = known
    least = min(float(bound.min(initial=np.inf)), own)
    gap = (own - least) / max(abs(own), 1e-300)
    gap = 0.0 if gap <= TOLERANCE else gap
    status = "feasible" if gap else "optimal"
    report = replace(choice.report, status=status, objective=own, bound=least if gap else own, gap=gap)
    at = int(np.argmin(np.where(exact, bound, np.inf)))
    beaten = bool(exact[at]) and float(bound[at]) < own - TOLERANCE * abs(own)
    return Verdict(report, asked(at) if beaten else None)
