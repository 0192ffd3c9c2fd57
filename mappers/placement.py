"""Placement by integer programming: operators on devices, contiguous stages, tensors in memory tiers, with a proof.

The problem arrives with every candidate costed; the program chooses, and what it chose is costed again. Formulations:
docs/formulas/placement.md. A file of your own may answer any of the three kinds of problem by any rule; it is checked.
"""

from __future__ import annotations

from hwsim.mapping import (
    Chain,
    GraphProblem,
    Placement,
    Staging,
    Tiering,
    TierProblem,
    place_chain,
    place_graph,
    place_tiers,
)


class Place:
    """One-hot candidates with tight edges, prefix-form stages, fractional striping."""

    name = "placement"
    kind = "placement"
    summary = "operators on devices and tensors in memories, integer program, proved"

    def map(
        self, problem: GraphProblem | Chain | TierProblem, objective: str, budget_s: float | None
    ) -> Placement | Staging | Tiering:
        """The best placement within the budget, with its bound and gap."""
        if isinstance(problem, Chain):
            return place_chain(problem, objective, budget_s=budget_s)
        if isinstance(problem, TierProblem):
            return place_tiers(problem, budget_s=budget_s)
        return place_graph(problem, objective, budget_s=budget_s)


MAPPER = Place()
