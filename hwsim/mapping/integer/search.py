"""The best tiling by the integer program, with a certificate.

Objectives that grow with both energy E and cycles C are solved by the epsilon constraint: with E0 = least energy
under the current cap on C, nothing whose objective at (E0, C) reaches the incumbent is worth looking at, so the cap
falls; when no mapping is left under it, the incumbent is proved. Latency means fewest cycles, then least energy.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from hwsim.errors import InfeasibleError, InputError, SolverError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.candidates import Options, admissible_extents
from hwsim.mapping.counts import count
from hwsim.mapping.integer.columns import TilingProgram
from hwsim.mapping.integer.program import build, make_graphs, read_tiling, with_cap
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling
from hwsim.mapping.solve import SolverName, solve
from hwsim.mapping.tiling.goal import Goal
from hwsim.mapping.tiling.result import Step, TilingResult, batch_spreads, cycle_floor


def program_tiling(
    machine: Machine, gemm: Gemm, goal: Goal, *, options: Options, solver: SolverName, deadline: float = math.inf
) -> TilingResult:
    """The best tiling of `gemm`; after `deadline` (of `time.perf_counter`) the best found, with what is proved.

    Raises
    ------
    InputError: the program cannot say what the machine restricts. InfeasibleError: nothing fits. SolverError: no
    answer in time.
    """
    begun = time.perf_counter()
    _without_dataflow(machine)
    _exact_in_arcs(machine, gemm, options)
    run = _Run(goal, options, solver, deadline)
    for members in batch_spreads(machine, gemm, goal.name):
        if not run.hopeless(machine, gemm, members):
            run.search(machine, gemm, members)
    return run.result(machine, gemm, time.perf_counter() - begun)


def _without_dataflow(machine: Machine) -> None:
    """The integer program knows no restricted loops."""
    for level in machine.levels:
        if set("MNK") - set(level.loops) or set("MNK") - set(level.stationary):
            fix = "use the solver 'auto'"
            raise InputError("the integer program cannot restrict loops", where=f"{machine.name}.{level.name}", fix=fix)


def _exact_in_arcs(machine: Machine, gemm: Gemm, options: Options) -> None:
    """The arcs of the integer program count partial tiles exactly only under one fan-out, below the nearest level."""
    near, *others = machine.levels[:-1]
    simple = set(near.keep) - set(near.bypass) == set("ABZ") or near.fanout == 1
    if simple and all(level.fanout == 1 for level in others):
        return
    if any(e % x for e in gemm.extents for x in admissible_extents(e, options)):
        fix = "use the solver 'auto', or Options('never')"
        raise InputError("the integer program counts no partial tiles on several fan-outs", where=machine.name, fix=fix)


class _Run:
    """State of one search: the incumbent, what is proved, and the steps of the certificate."""

    def __init__(self, goal: Goal, options: Options, solver: SolverName, deadline: float) -> None:
        self.goal, self.options, self.solver, self.deadline = goal, options, solver, deadline
        self.best: tuple[Tiling, Counts] | None = None
        self.value = math.inf
        self.bound = math.inf
        self.energy_floor = 0.0
        self.steps: list[Step] = []
        self.reports: list[SolverReport] = []

    def hopeless(self, machine: Machine, gemm: Gemm, members: int) -> bool:
        """Whether even the least energy of any spread at the floor of cycles does not beat the incumbent."""
        if members == 1 or self.best is None:
            return False
        floor = cycle_floor(machine, gemm)
        low = self.goal.value(self.energy_floor, floor)
        if self.goal.name == "latency":
            return bool(self.best[1].cycles <= floor)
        return low >= self.value * (1 - 1e-12)

    def search(self, machine: Machine, gemm: Gemm, members: int) -> None:
        """Search the tilings with `members` of the batch side by side."""
        shared = machine.share(members)
        case = _Case(machine, shared, gemm, members, build(shared, gemm, make_graphs(shared, gemm, self.options)))
        if self.goal.name == "latency":
            self._fewest_cycles(case)
        else:
            self._lower_caps(case)

    def _lower_caps(self, case: _Case) -> None:
        floor = cycle_floor(case.machine, case.gemm)
        cap = math.inf
        while True:
            step = self._step(case, cap, self._cutoff(floor))
            if step is None:
                return
            self.energy_floor = self.energy_floor or step.energy_bound
            reach = self.goal.reach(step.energy_bound, self.value)
            cap = min(math.ceil(reach * (1 - 1e-12)) - 1, cap - 1) if math.isfinite(reach) else math.inf
            if step.status != "optimal":
                self.bound = min(self.bound, self.goal.value(step.energy_bound, floor))
                return
            if cap < floor or self.goal.name == "energy":
                return

    def _cutoff(self, floor: float) -> float:
        """Energy above which no mapping can win, even at the floor of cycles."""
        if self.best is None or not math.isfinite(self.value):
            return math.inf
        low, high = 0.0, max(s.energy for s in self.steps) * 1e3
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.goal.value(middle, floor) < self.value else (low, middle)
        return high

    def _fewest_cycles(self, case: _Case) -> None:
        """First the floor itself; where it cannot be reached, bisection on the cap (each answer moves an end)."""
        floor = cycle_floor(case.machine, case.gemm)
        low, high = floor, self.value
        if not math.isfinite(high):
            step = self._step(case, floor, math.inf) or self._step(case, math.inf, math.inf)
            if step is None or step.cycles <= floor:
                return
            low, high = floor + 1, int(self.value)
        while low < high:
            middle = (low + int(high) - 1) // 2 if high / low < 1.01 else int(math.sqrt(low * high))
            step = self._step(case, min(middle, high - 1), math.inf)
            if step is None:
                low = min(middle, int(high) - 1) + 1
            elif step.status == "optimal":
                high = min(int(self.value), middle)
            if time.perf_counter() > self.deadline:
                self.bound = min(self.bound, low)
                return
        self._step(case, high, math.inf)

    def _step(self, case: _Case, cap: float, cutoff: float) -> Step | None:
        """Least energy with cycles <= cap, below the cutoff; None where there is none. Updates the incumbent."""
        tp = case.program
        rounds = -(-case.gemm.batch // case.members)
        program = tp.program if math.isinf(cap) else with_cap(tp, cap, rounds)
        scaled = (cutoff - tp.constant_energy) * tp.energy_scale
        left = None if math.isinf(self.deadline) else max(0.1, self.deadline - time.perf_counter())
        try:
            solution = solve(program, solver=self.solver, time_limit_s=left, cutoff=scaled)
        except SolverError:
            if self.best is None:
                raise
            self.bound = min(self.bound, self.goal.value(max((s.energy_bound for s in self.steps), default=0.0), 1.0))
            return None
        except InfeasibleError:
            return None
        tiling = replace(read_tiling(tp, solution.values), batch_spatial=case.members)
        counts = count(case.machine, case.gemm, tiling)
        bound = solution.report.bound / tp.energy_scale + tp.constant_energy
        energy, cycles = float(counts.energy), float(counts.cycles)
        if solution.report.status == "optimal":
            bound = min(bound, energy) if abs(bound / energy - 1) > 1e-8 else energy
        self._keep(tiling, counts)
        step = Step(cap, energy, cycles, bound, solution.report.status, solution.report.seconds)
        self.steps.append(step)
        self.reports.append(solution.report)
        return step

    def _keep(self, tiling: Tiling, counts: Counts) -> None:
        value = self.goal.value(float(counts.energy), float(counts.cycles))
        better = value < self.value * (1 - 1e-12)
        tie = self.best is not None and value <= self.value and counts.energy < self.best[1].energy
        if self.best is None or better or tie:
            self.best, self.value = (tiling, counts), value

    def result(self, machine: Machine, gemm: Gemm, seconds: float) -> TilingResult:
        if self.best is None:
            raise InfeasibleError(f"no tiling of {gemm.name} on {machine.name}", where=machine.name)
        bound = min(self.bound, self.value)
        gap = (self.value - bound) / self.value
        gap = 0.0 if gap < 1e-9 else gap
        status = "optimal" if gap == 0.0 else "feasible"
        last = self.reports[-1]
        report = SolverReport(last.solver, last.version, status, self.value, bound, gap, seconds)
        return TilingResult(machine, gemm, self.goal.name, *self.best, report, tuple(self.steps))


@dataclass(frozen=True)
class _Case:
    machine: Machine
    shared: Machine
    gemm: Gemm
    members: int
    program: TilingProgram
