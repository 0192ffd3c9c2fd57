"""Greedy: move one prime factor at a time to where it helps most, until nothing helps. Proves nothing.

The baseline of hand-written mappers: it starts with all loops at the farthest level, then repeatedly takes the single
best change - a prime factor moved to another level or onto the fan-out, or another innermost loop at a level.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hwsim.mapping import (
    Decision,
    Gemm,
    InfeasibleError,
    Machine,
    Tiling,
    claim,
    count,
    divisors,
    goal_of,
    violations,
)

ORDERS = ("NKM", "MKN", "MNK")  # outermost to innermost: M, N or K innermost


class Greedy:
    """Steepest descent over single moves."""

    name = "greedy"
    summary = "steepest descent, no proof"

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        """A local optimum; stops early when the budget ends."""
        begun = time.perf_counter()
        at = start(machine, gemm)
        if violations(machine, gemm, at):
            raise InfeasibleError(f"not even unit tiles of {gemm.name} fit {machine.name}", where=machine.name)
        value = key(machine, gemm, objective, at)
        while budget_s is None or time.perf_counter() - begun < budget_s:
            legal = [t for t in neighbours(machine, at) if not violations(machine, gemm, t)]
            best = min(legal, key=lambda t: key(machine, gemm, objective, t), default=at)
            new = key(machine, gemm, objective, best)
            if new >= value:
                break
            at, value = best, new
        return Decision(at, claim("greedy", time.perf_counter() - begun))

    def pick(self, machine: Machine, gemm: Gemm, tilings: Sequence[Tiling], objective: str) -> int:
        """Of a kernel library's tilings the largest output tile, the rule of thumb; the first of equals."""
        del gemm, objective
        near = machine.batch_level
        sizes = [tiling.tile(near)[0] * tiling.tile(near)[1] for tiling in tilings]
        return sizes.index(max(sizes))


def start(machine: Machine, gemm: Gemm) -> Tiling:
    """Unit tiles everywhere, all loops at the last level."""
    near = len(machine.levels) - 1
    return Tiling(
        temporal=(*(((1, 1, 1),) * near), gemm.extents),
        spatial=((1, 1, 1),) * near,
        order=("MNK",) * (near + 1),
        keep=tuple(level.keep for level in machine.levels),
    )


def key(machine: Machine, gemm: Gemm, objective: str, tiling: Tiling) -> tuple[float, float, float]:
    """Objective first, then energy, then the sum of all parts in cycles (so that plateaus still slope)."""
    counts = count(machine, gemm, tiling)
    energy = float(counts.energy)
    slope = sum(float(part) for part in counts.cycles_by.values())
    return goal_of(objective).value(energy, float(counts.cycles)), energy, slope


def neighbours(machine: Machine, tiling: Tiling) -> Iterator[Tiling]:
    """Every tiling one move away."""
    levels = len(machine.levels)
    for level in range(1, levels):
        for order in ORDERS:
            if order != tiling.order[level]:
                yield replace(tiling, order=(*tiling.order[:level], order, *tiling.order[level + 1 :]))
    for d in range(3):
        for source in range(levels):
            factor = tiling.temporal[source][d]
            for prime in (p for p in divisors(factor) if p > 1 and len(divisors(p)) == 2):
                taken = scaled(tiling.temporal, source, d, factor // prime)
                for target in range(levels):
                    if target != source:
                        grown = scaled(taken, target, d, taken[target][d] * prime)
                        yield replace(tiling, temporal=grown)
                for target in range(levels - 1):
                    grown = scaled(tiling.spatial, target, d, tiling.spatial[target][d] * prime)
                    yield replace(tiling, temporal=taken, spatial=grown)


def scaled(table: tuple[tuple[int, int, int], ...], level: int, d: int, value: int) -> tuple[tuple[int, int, int], ...]:
    """The table with one factor replaced."""
    row = list(table[level])
    row[d] = value
    return (*table[:level], (row[0], row[1], row[2]), *table[level + 1 :])


MAPPER = Greedy()
