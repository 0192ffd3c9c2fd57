"""The best contiguous stages of a chain over devices, by the prefix form, with its proof.

Boundaries that no solution as good as a known one can have are ruled out first (`cuts.windows`), so the program that
is left is small.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError, SolverError
from hwsim.mapping.blocks.hull import Corner, least_product_on_hull
from hwsim.mapping.blocks.linear import Sum, least_of, total
from hwsim.mapping.blocks.prefix import Prefix
from hwsim.mapping.ilp import Program
from hwsim.mapping.placement.answer import Staging, judged, known_objective, run
from hwsim.mapping.placement.chain import Chain, cost_of_stages, kinds
from hwsim.mapping.placement.cuts import windows
from hwsim.mapping.placement.stages.solve import best_stages
from hwsim.mapping.placement.weighed import weighed_chain
from hwsim.mapping.solve import SolverName
from hwsim.units import gib

Array = np.ndarray[Any, Any]
UNITS = 1e3
MOST_ORDERS = 24  # different orders of devices that are tried: all of up to four different devices


def place_chain(
    chain: Chain,
    objective: str = "latency",
    *,
    any_order: bool = True,
    budget_s: float | None = None,
    solver: SolverName = "auto",
) -> Staging:
    """Contiguous stages of least ``latency``, ``throughput`` (the busiest stage), ``energy`` or ``edp``.

    ``auto`` walks shortest paths (`stages/`), which is exact; a named solver solves the whole program, order by order.
    `any_order` searches every different order of the devices: where those are at most `MOST_ORDERS` with a named
    solver, or at most `MOST_STEPS` additions by paths; else as given.

    Raises
    ------
    InfeasibleError: names device, operators and shortfall. SolverError: missing solver, or no answer in the budget.
    """
    known_objective(objective)
    if solver == "auto":
        try:
            return best_stages(chain, objective, any_order=any_order, budget_s=budget_s)
        except InfeasibleError:
            raise _does_not_fit(chain) from None
    return _by_program(chain, objective, any_order, budget_s, solver)


def _by_program(chain: Chain, objective: str, any_order: bool, budget_s: float | None, solver: SolverName) -> Staging:
    """The whole program of every order."""
    begun = time.perf_counter()
    best: Staging | None = None
    bound, stopped = math.inf, None
    for order in orders(chain) if any_order else [tuple(range(len(chain.sites)))]:
        left = None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.05)
        try:
            found = _in_order(chain, objective, order, left, solver)
        except SolverError as error:
            bound, stopped = 0.0, error
            continue
        except InfeasibleError:
            continue
        bound = min(bound, found.report.bound)
        if best is None or found.report.objective < best.report.objective:
            best = found
    if best is None:
        raise stopped if stopped is not None else _does_not_fit(chain)
    old, seconds = best.report, time.perf_counter() - begun
    return replace(best, report=judged(old.solver, old.version, old.objective, min(bound, old.objective), seconds))


def orders(chain: Chain) -> list[tuple[int, ...]]:
    """Different orders of the sites, the given one first; only that one where there are too many."""
    n = len(chain.sites)
    given = tuple(range(n))
    kind = kinds(chain)
    counts = [kind.count(k) for k in set(kind)]
    if math.factorial(n) / math.prod(math.factorial(c) for c in counts) > MOST_ORDERS:
        return [given]
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    for order in _distinct(kind):
        seen.setdefault(tuple(kind[i] for i in order), order)
    return list(seen.values())


def _distinct(kind: list[int]) -> list[tuple[int, ...]]:
    """Orders that differ in kinds; equal sites keep their given order."""
    if not kind:
        return [()]
    members: dict[int, list[int]] = {}
    for site, k in enumerate(kind):
        members.setdefault(k, []).append(site)

    def extend(used: tuple[int, ...]) -> list[tuple[int, ...]]:
        if len(used) == len(kind):
            return [used]
        heads = (next((s for s in own if s not in used), None) for own in members.values())
        return list(itertools.chain.from_iterable(extend((*used, s)) for s in heads if s is not None))

    return extend(())


def _in_order(
    chain: Chain, objective: str, order: tuple[int, ...], budget_s: float | None, solver: SolverName
) -> Staging:
    """Stages for one order of the sites. Raises InfeasibleError where there are none."""
    if objective == "edp":
        return _product(chain, order, budget_s, solver)
    target = StageProgram(chain, order, windows(chain, order, objective))
    unit = target.aim(objective)
    solution = run(target.program, solver, budget_s)
    stages = target.prefix.read(solution.values)
    value = cost_of_stages(chain, stages, order).value(objective)
    bound = (solution.report.bound + target.constant) * unit
    return Staging(stages, order, judged(solution.report.solver, solution.report.version, value, bound, 0.0))


def _product(chain: Chain, order: tuple[int, ...], budget_s: float | None, solver: SolverName) -> Staging:
    """Least energy x time: weighed sums of both are minimised until no other product can be less."""

    def weighed(joules: float, seconds: float, left_s: float | None) -> Corner[Staging]:
        found = _in_order(weighed_chain(chain, joules, seconds), "latency", order, left_s, solver)
        cost = cost_of_stages(chain, found.stages, order)
        return Corner(found, cost.energy_j, cost.time_s, found.report.bound)

    best = least_product_on_hull(weighed, budget_s=budget_s)
    old = best.found.report
    return replace(best.found, report=judged(old.solver, old.version, best.value, best.bound, 0.0))


class StageProgram:
    """The prefix form of a chain for one order of sites; `window`: first and last stage of each operator."""

    def __init__(self, chain: Chain, order: tuple[int, ...], window: tuple[Array, Array]) -> None:
        self.chain, self.order, self.constant = chain, order, 0.0
        self.program = Program(f"stages of {chain.name}")
        self.program.at_most(self.program.columns(1, 1.0, integer=False))  # all that is left where all is known
        earliest, latest = window
        self.prefix = Prefix(self.program, len(chain.names), len(order), earliest, latest)
        finite = np.where(np.isfinite(chain.time_s), chain.time_s, 0.0)
        self.time_unit = float(finite.min(axis=1).sum()) / UNITS or 1.0
        energy = np.where(np.isfinite(chain.energy_j), chain.energy_j, 0.0)
        self.energy_unit = float(energy.min(axis=1).sum()) / UNITS or 1.0
        self.busy = [self._stage(d, finite, chain.hop_s).scaled(1 / self.time_unit) for d in range(len(order))]
        self.joules = [self._stage(d, energy, chain.hop_j).scaled(1 / self.energy_unit) for d in range(len(order))]
        for d, site in enumerate(order):
            self._memory(d, site)
            banned = ~np.isfinite(chain.time_s[:, site])
            if banned.any():
                self.prefix.inside(d, banned.astype(float)).row(self.program, high=0.0)

    def _stage(self, d: int, weights: Array, hop: Any) -> Sum:
        own = self.prefix.inside(d, weights[:, self.order[d]])
        return own if d == 0 else own.plus(self.prefix.cut(d - 1, hop(self.order[d - 1], self.order[d])))

    def _memory(self, d: int, site: int) -> None:
        room = self.chain.sites[site].memory_bytes
        if not math.isfinite(room):
            return
        unit = max(room, 1.0)
        sizes = self.chain.memory_bytes[:, site]
        used = self.prefix.inside(d, np.where(np.isfinite(sizes), sizes, 0.0) / unit)
        for size, positions in self.chain.shared:
            held = self.program.columns(1, integer=False)
            for at in positions:
                one = np.zeros(len(self.chain.names))
                one[at] = 1.0
                Sum(held).plus(self.prefix.inside(d, one), -1.0).row(self.program, low=0.0)
            used.add(held, size / unit)
        used.row(self.program, high=room / unit, name=f"memory of {self.chain.sites[site].name}")

    def aim(self, objective: str) -> float:
        """Set the objective; returns the unit of its value (`constant` is to be added before)."""
        if objective == "throughput":
            self.program.cost[least_of(self.program, self.busy, "stage")] = 1.0
            return self.time_unit
        goal = total(self.joules if objective == "energy" else self.busy)
        goal.minimise(self.program)
        self.constant = goal.constant
        return self.energy_unit if objective == "energy" else self.time_unit


def _does_not_fit(chain: Chain) -> InfeasibleError:
    need = np.where(np.isfinite(chain.memory_bytes), chain.memory_bytes, math.inf).min(axis=1)
    room = sum(s.memory_bytes for s in chain.sites)
    short = max(float(need.sum()) - room, 0.0)
    largest = int(np.argmax(need))
    where = " + ".join(f"{s.name} {gib(s.memory_bytes)}" for s in chain.sites)
    how = f"{gib(short)} short" if short else "in no contiguous cut, because operators are not divided"
    return InfeasibleError(
        f"{chain.name} does not fit: {how}",
        where=where,
        seen=f"{gib(float(need.sum()))} needed, {gib(room)} usable; largest operator {chain.names[largest]} "
        f"{gib(float(need[largest]))}",
        fix="add a device or memory, a smaller --weights format, a shorter context, or --cut graph",
        budget={"needed_bytes": float(need.sum()), "usable_bytes": room, "shortfall_bytes": short},
    )
