"""What more of a part of the machine would buy: the same GEMM mapped again on a changed machine, exact differences.

Four kinds of parts: capacities of levels, their ports, fan-outs (multipliers), each with three questions. `free`: all
the gain there could ever be (the part without limit; twice as many for a fan-out). `one_more`: one KiB, one GB/s, one
unit. `smallest`: the least step at which the optimum improves, by bisection - the optimum never worsens as a part
grows, and between two footprints of tiles nothing changes, so bisection over those finds the exact step.

Assumption: a part that grows keeps its energy a word and its rate. Differences are those of the mapper's answers;
they are exact where every answer is proved optimal, which `proved` says.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hwsim.errors import InfeasibleError
from hwsim.mapping.candidates import Options, admissible_extents, divisors
from hwsim.mapping.counts import count
from hwsim.mapping.describe.operator import PJ, ports_of
from hwsim.mapping.legality import footprint
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling
from hwsim.mapping.protocol import Decision
from hwsim.mapping.tiling.goal import goal_of

KIB: Final = 1024
LATCH_WORDS: Final = 3  # operand latches hold one word of each tensor: there is nothing to size
GB_PER_S: Final = 1e9
BETTER: Final = 1e-9  # relative: values nearer than this are the same optimum

Solve = Callable[[Machine, float | None], Decision]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A mapping on a changed machine: pJ, cycles, the objective's value and whether it is proved."""

    energy: float
    cycles: int
    value: float
    tiling: Tiling
    counts: Counts
    proved: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that could grow. `grown(amount)` is the machine with `amount` of it, in words, words a cycle or units.

    `now` and `one` are in the same measure, `si` turns it into bytes, B/s or units.
    """

    name: str
    kind: str
    now: float
    one: float
    si: float
    free: float
    grown: Callable[[float], Machine]
    steps: Callable[[float, float], Sequence[float]]
    needed: Callable[[Outcome], float]


@dataclass(slots=True)
class Probe:
    """Solves changed machines within a deadline; remembers what was proved."""

    machine: Machine
    gemm: Gemm
    objective: str
    solve: Solve
    known: bool
    deadline: float = math.inf
    seen: dict[Machine, Outcome | None] = field(default_factory=dict)

    def at(self, machine: Machine) -> Outcome | None:
        """The outcome on a machine; None where the time is over or there is no answer in it."""
        if machine not in self.seen:
            left = None if math.isinf(self.deadline) else self.deadline - time.perf_counter()
            if left is not None and left <= 0:
                return None
            self.seen[machine] = self._solved(machine, left)
        return self.seen[machine]

    def today(self, tiling: Tiling, proved: bool) -> None:
        """Take over a mapping that was already found for the unchanged machine."""
        self.seen[self.machine] = self._outcome(self.machine, tiling, proved)

    def _solved(self, machine: Machine, left: float | None) -> Outcome | None:
        try:
            decision = self.solve(machine, left)
        except InfeasibleError:  # a budget that ends without an answer
            return None
        if decision.tiling is None:
            return None
        return self._outcome(machine, decision.tiling, decision.report.status == "optimal")

    def _outcome(self, machine: Machine, tiling: Tiling, proved: bool) -> Outcome:
        counts = count(machine, self.gemm, tiling)
        energy, cycles = float(counts.energy), int(counts.cycles)
        value = goal_of(self.objective).value(energy, float(cycles))
        return Outcome(energy, cycles, value, tiling, counts, proved)

    def better(self, machine: Machine, than: Outcome) -> bool | None:
        """Whether the objective improves by more than rounding; None where that is not known."""
        found = self.at(machine)
        if found is None:
            return None
        if found.value < than.value * (1 - BETTER):
            return True if than.proved else None  # today's machine may have a better mapping as well
        return False if found.proved else None


def what_more_buys(probe: Probe, deep: bool = True) -> list[dict[str, Any]]:
    """Every part of the probe's machine, far to near; `deep` also looks for the smallest step that helps."""
    base = probe.at(probe.machine)
    if base is None:
        return []
    return [_answers(probe, base, part, deep) for part in parts_of(probe.machine, probe.gemm)]


def _answers(probe: Probe, base: Outcome, part: Part, deep: bool) -> dict[str, Any]:
    """The three questions about a part; a part that could not gain anything without limit is not asked further."""
    free = part.grown(part.free)
    binds = probe.better(free, base)
    row: dict[str, Any] = {
        "part": part.name,
        "kind": part.kind,
        "now": part.now * part.si,
        "binds": binds,
        "free": _change(probe, base, part, probe.at(free), part.free, known=binds is not None),
        "one_more": None,
        "smallest": None,
    }
    if binds is False:
        row["one_more"] = {**_nothing(probe), "step": part.one * part.si}
        return row
    more = part.now + part.one
    row["one_more"] = _change(probe, base, part, probe.at(part.grown(more)), more)
    if binds and deep:
        row["smallest"] = _smallest(probe, base, part)
    return row


def _smallest(probe: Probe, base: Outcome, part: Part) -> dict[str, Any] | None:
    """The least step at which the objective improves, or None where time ends first or there are no steps."""
    best = probe.at(part.grown(part.free))
    if best is None:
        return None
    steps = part.steps(part.now, min(part.needed(best), part.free))
    low, high = -1, len(steps) - 1
    if high < 0:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        gains = probe.better(part.grown(steps[middle]), base)
        found = probe.at(part.grown(steps[middle]))
        if gains is None or found is None:
            return None
        if gains:  # what the better mapping uses may be less than it was given, but more than failed
            high = max(low + 1, min(middle, bisect_left(steps, part.needed(found) * (1 - BETTER))))
        else:
            low = middle
    return _change(probe, base, part, probe.at(part.grown(steps[high])), steps[high])


def _change(
    probe: Probe, base: Outcome, part: Part, found: Outcome | None, amount: float, known: bool = True
) -> dict[str, Any] | None:
    """Differences against today in J, cycles, s and J s; `enough`: what the new mapping uses of the part."""
    if found is None or not known:
        return None
    clock = probe.machine.clock_hz
    return {
        "step": (amount - part.now) * part.si if math.isfinite(amount) else None,
        "enough": part.needed(found) * part.si,
        "energy_j": (found.energy - base.energy) * PJ if probe.known else None,
        "cycles": found.cycles - base.cycles,
        "time_s": (found.cycles - base.cycles) / clock,
        "edp_js": (found.energy * found.cycles - base.energy * base.cycles) * PJ / clock if probe.known else None,
        "objective_share": found.value / base.value - 1.0,
        "proved": found.proved and base.proved,
    }


def _nothing(probe: Probe) -> dict[str, Any]:
    """No change at all, which the free part has shown."""
    none = 0.0 if probe.known else None
    return {
        "step": 0.0,
        "enough": None,
        "energy_j": none,
        "cycles": 0,
        "time_s": 0.0,
        "edp_js": none,
        "objective_share": 0.0,
        "proved": True,
    }


def parts_of(machine: Machine, gemm: Gemm) -> list[Part]:
    """Everything of a machine that could grow, far to near: ports, capacities, fan-outs."""
    found: list[Part] = []
    memories: set[str] = set()
    for index in reversed(range(len(machine.levels))):
        level = machine.levels[index]
        if level.memory not in memories:
            memories.add(level.memory)
            found += _ports(machine, gemm, index)
            if LATCH_WORDS < level.words < math.inf:
                found.append(_capacity(machine, gemm, index))
        if index < len(machine.levels) - 1 and level.fanout > 1:
            found.append(_fanout(machine, gemm, index))
    return found


def _group(machine: Machine, index: int, **changes: Any) -> Machine:
    """The machine with all levels of one memory changed."""
    memory = machine.levels[index].memory
    levels = tuple(replace(v, **changes) if v.memory == memory else v for v in machine.levels)
    return replace(machine, levels=levels)


def _ports(machine: Machine, gemm: Gemm, index: int) -> list[Part]:
    level = machine.levels[index]
    byte = machine.word_bits / 8
    found = []
    for name, kinds, rate in ports_of(level):
        if math.isinf(rate):
            continue
        side = "read" if level.shared_port or "reads" in kinds else "write"
        key = f"{side}_words_per_cycle"
        found.append(
            Part(
                name=name,
                kind="port",
                now=rate,
                one=GB_PER_S / (machine.clock_hz * byte),
                si=machine.clock_hz * byte,
                free=math.inf,
                grown=lambda v, key=key: _group(machine, index, **{key: v}),  # type: ignore[misc]
                steps=lambda low, high: [],
                needed=lambda o, name=name, key=key: _rate_used(machine, gemm, index, name, key, o),  # type: ignore[misc]
            )
        )
    return found


def _rate_used(machine: Machine, gemm: Gemm, index: int, port: str, key: str, outcome: Outcome) -> float:
    """Words a cycle at which the port just keeps up with an outcome."""
    at_one = count(_group(machine, index, **{key: 1.0}), gemm, outcome.tiling)
    return float(at_one.cycles_by[port]) / outcome.cycles


def _capacity(machine: Machine, gemm: Gemm, index: int) -> Part:
    level = machine.levels[index]
    byte = machine.word_bits / 8
    members = gemm.batch if index > machine.batch_level else 1
    whole = sum(s * w for s, w in zip(gemm.sizes, machine.widths, strict=True)) * members * 2
    return Part(
        name=level.memory,
        kind="capacity",
        now=level.words,
        one=KIB / byte,
        si=byte,
        free=max(whole, level.words),
        grown=lambda v: _group(machine, index, words=v),
        steps=lambda low, high: _footprints(machine, gemm, index, low, high),
        needed=lambda o: _held(machine, gemm, index, o.tiling),
    )


def _held(machine: Machine, gemm: Gemm, index: int, tiling: Tiling) -> float:
    """Words of one instance of a memory that a tiling takes."""
    memory = machine.levels[index].memory
    mine = (i for i, v in enumerate(machine.levels) if v.memory == memory)
    return sum(sum(footprint(machine, i, gemm, tiling).values()) for i in mine)


def _footprints(machine: Machine, gemm: Gemm, index: int, low: float, high: float) -> Sequence[float]:
    """Words in (low, high] that tiles of one level can take; every whole number where a memory holds two levels."""
    import numpy as np

    level = machine.levels[index]
    if level.group or machine.levels[index].bypass:
        return range(math.floor(low) + 1, math.floor(high) + 1)
    m, n, k = (
        np.unique(np.minimum(np.array(admissible_extents(e, Options("always")), dtype=np.float64), e))
        for e in gemm.extents
    )
    a, b, z = machine.widths
    one = a * (m[:, None] * k)[:, None] + b * (n[:, None] * k)[None] + z * (m[:, None] * n)[:, :, None]
    shares = np.array(divisors(gemm.batch) if index > machine.batch_level else [1], dtype=np.float64)
    sizes = np.unique(one.ravel()[:, None] * shares * (2 if level.double_buffer else 1))
    return [float(v) for v in sizes[(sizes > low) & (sizes <= high)]]


def _fanout(machine: Machine, gemm: Gemm, index: int) -> Part:
    level = machine.levels[index]
    return Part(
        name=f"{level.name} units",
        kind="units",
        now=level.fanout,
        one=1,
        si=1,
        free=2 * level.fanout,
        grown=lambda v: machine.with_level(level.name, fanout=int(v)),
        steps=lambda low, high: range(int(low) + 1, int(high) + 1),
        needed=lambda o: _units(machine, index, o.tiling),
    )


def _units(machine: Machine, index: int, tiling: Tiling) -> float:
    members = tiling.batch_spatial if index == machine.batch_level else 1
    return float(math.prod(tiling.spatial[index]) * members)
