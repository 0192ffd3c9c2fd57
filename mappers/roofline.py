"""No mapping: every tensor moves once and every multiplier is busy. Instant, and a floor for every other mapper."""

from __future__ import annotations

from hwsim.mapping import Decision, Gemm, Machine, claim


class Roofline:
    """The ideal that no mapping beats."""

    name = "roofline"
    summary = "ideal: compulsory traffic, all multipliers busy"

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        """No loops are decided."""
        del machine, gemm, objective, budget_s
        return Decision(None, claim("none", 0.0, "ideal"))


MAPPER = Roofline()
