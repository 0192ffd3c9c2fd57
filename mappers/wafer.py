"""Squares of cores on a wafer-scale mesh: one side for every operator of a phase, proved.

Decode wants few cores (reductions wait on hops), prefill many; an operator may leave the others' square where that
pays for moving its activations. ``hwsim evaluate MODEL --hw wse2 --mapper wafer``.
"""

from __future__ import annotations

from hwsim.mapping import MeshDecision, MeshProblem, best_squares


class Wafer:
    """A path over operators under the memory of a core, by integer programming."""

    name = "wafer"
    kind = "mesh"
    summary = "squares of cores on a mesh, integer program, proved"

    def map(self, problem: MeshProblem, objective: str, budget_s: float | None) -> MeshDecision:
        """The sides with the fewest cycles."""
        del objective  # power does not depend on the squares: time is energy here
        return best_squares(problem, budget_s=budget_s)


MAPPER = Wafer()
