"""Every even tiling, costed one by one: the referee for small GEMMs. Large ones are refused, never sampled."""

from __future__ import annotations

import time

from hwsim.mapping import Decision, Gemm, Machine, claim, enumerate_best


class Exhaustive:
    """Complete enumeration of even tilings and loop orders."""

    name = "exhaustive"
    summary = "tries every even tiling (small GEMMs)"
    limit = 5_000_000

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        """The best even tiling; the budget plays no part because a partial enumeration proves nothing."""
        del budget_s
        begun = time.perf_counter()
        tiling, _, tried = enumerate_best(machine, gemm, objective, self.limit)
        return Decision(tiling, claim(f"enumeration of {tried}", time.perf_counter() - begun))


MAPPER = Exhaustive()
