"""Matrix units, chain length, output tile and buffers of an FPGA overlay within its slices and memory.

``hwsim evaluate MODEL --hw u280 --mapper fpga``. Prompts choose the matrix-matrix build, decode steps the
matrix-vector build of the same slices.
"""

from __future__ import annotations

from hwsim.mapping import OverlayDecision, OverlayProblem, best_overlay


class Fpga:
    """The fastest build within the budget of slices, on-chip bytes and ports."""

    name = "fpga"
    kind = "overlay"
    summary = "chains, tiles and buffers of an FPGA overlay, all builds compared"

    def map(self, problem: OverlayProblem, objective: str, budget_s: float | None) -> OverlayDecision:
        """The fastest build."""
        del objective, budget_s
        return best_overlay(problem)


MAPPER = Fpga()
