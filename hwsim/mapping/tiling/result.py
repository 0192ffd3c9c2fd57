"""The form of an answer, and what every search knows before it starts: batch spreads and the floor of cycles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwsim.ir.mapped import SolverReport
from hwsim.mapping.candidates import divisors
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling


@dataclass(frozen=True, slots=True)
class Step:
    """One solve of the certificate: the cap on cycles, what was found under it, and the bound that it proves."""

    cap_cycles: float
    energy: float
    cycles: float
    energy_bound: float
    status: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TilingResult:
    """A tiling, its exact counts on the machine, and what the solver proved."""

    machine: Machine
    gemm: Gemm
    objective: str
    tiling: Tiling
    counts: Counts
    report: SolverReport
    steps: tuple[Step, ...] = field(default=())

    @property
    def energy_pj(self) -> float:
        return float(self.counts.energy)

    @property
    def cycles(self) -> int:
        return int(self.counts.cycles)

    @property
    def edp(self) -> float:
        return self.energy_pj * self.cycles


def batch_spreads(machine: Machine, gemm: Gemm, objective: str) -> list[int]:
    """How many members of the batch to run side by side: for energy one is best (no reuse, less room)."""
    if gemm.batch == 1 or objective == "energy":
        return [1]
    fan = machine.levels[machine.batch_level].fanout
    return [d for d in divisors(gemm.batch) if d <= fan]


def cycle_floor(machine: Machine, gemm: Gemm) -> int:
    """Cycles that no mapping beats: all multipliers busy, and the compulsory words of the last level."""
    last = machine.levels[-1]
    a, b, z = (s * w * gemm.batch for s, w in zip(gemm.sizes, machine.widths, strict=True))
    floor = gemm.macs / machine.multipliers
    if last.shared_port:
        floor = max(floor, (a + b + z) / last.read_words_per_cycle)
    else:
        floor = max(floor, (a + b) / last.read_words_per_cycle, z / last.write_words_per_cycle)
    return math.ceil(floor * (1 - 1e-13))
