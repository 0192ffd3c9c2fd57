"""Tiling by integer programming: the best loops of a GEMM, with a proof.

A tensor of a GEMM lacks exactly one dimension, so its traffic depends on that dimension's path of tile extents alone
and energy is a sum over three paths: an exact, small integer program (docs/formulas/mapping.md). EDP and latency are
solved under falling caps on cycles until nothing better can exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hwsim.mapping import (
    Attention,
    Decision,
    FusedDecision,
    Gemm,
    InfeasibleError,
    Loops,
    Machine,
    best_attention,
    best_tiling,
    pick_least,
)


class Tiling:
    """Proved optimum over tile extents, spreads, loop orders and bypass."""

    name = "tiling"
    summary = "integer program, proved optimal"

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        """The best tiling within the budget, with its bound and gap."""
        found = best_tiling(machine, gemm, objective, budget_s=budget_s)
        return Decision(found.tiling, found.report)

    def map_attention(
        self, machine: Machine, attention: Attention, objective: str, vector_per_cycle: float
    ) -> FusedDecision:
        """Both products and the softmax as one mapping: scores on the chip, or spilled where no memory holds them."""
        for scores in (("on-chip",), ("spilled",)):
            with suppress(InfeasibleError):
                return best_attention(machine, attention, objective, vector_per_cycle=vector_per_cycle, scores=scores)
        return best_attention(machine, attention, objective, vector_per_cycle=vector_per_cycle)

    def pick(self, machine: Machine, gemm: Gemm, tilings: Sequence[Loops], objective: str) -> int:
        """The best of a kernel library's tilings by exact counts."""
        return pick_least(machine, gemm, tilings, objective)


MAPPER = Tiling()
