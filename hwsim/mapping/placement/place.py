"""The best general placement of a graph, with its proof: `place_graph`."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Final

import numpy as np

from hwsim.errors import InfeasibleError, OutOfTimeError, SolverError
from hwsim.mapping.backends import version_of
from hwsim.mapping.blocks.hull import Corner, least_product_on_hull
from hwsim.mapping.placement.answer import SOLVER, Placement, closed, judged, known_objective, proved, run
from hwsim.mapping.placement.arrange import arrange
from hwsim.mapping.placement.graph import build
from hwsim.mapping.placement.incumbent import legal_choice
from hwsim.mapping.placement.paths.solve import PathAnswer, applies, solve_by_paths
from hwsim.mapping.placement.polish import can_polish, polish
from hwsim.mapping.placement.problem import GraphProblem, cost_of
from hwsim.mapping.placement.unroll import folded_choice, unrolled_problem
from hwsim.mapping.placement.verify import floor_of
from hwsim.mapping.placement.weighed import weighed_graph
from hwsim.mapping.solve import SolverName
from hwsim.units import gib

REFINED_ABOVE: Final = 3e-4  # gap that nesting folded layers may leave before they are told apart
REFINING_S: Final = 2.0  # most seconds for that
MOST_UNROLLED: Final = 1000  # operators
PATHS_S: Final = 30.0  # most seconds of the search over paths without a budget, before HiGHS goes on
SOLVES: Final = 3  # of the time that is left for a product, one solve takes a share of one in this many
POLISHING: Final = 0.15  # share of a budget that is kept for moves on an incumbent that is not proved


def place_graph(
    problem: GraphProblem,
    objective: str = "latency",
    *,
    budget_s: float | None = None,
    solver: SolverName = "auto",
) -> Placement:
    """Minimise ``latency`` (sum of operators and transfers), ``throughput`` (busiest site), ``energy`` or ``edp``.

    Folded layers are arranged afterwards at exact cost; where that costs more than the program proved, the gap says so.
    ``auto`` searches paths (`paths/`) where placements are paths, and gives what that leaves open, and everything
    else, to HiGHS; a named solver solves the whole program itself.

    Raises
    ------
    InfeasibleError: names the device, the operators and the shortfall. SolverError: missing solver. OutOfTimeError: no
    solver and no rule found a placement in time; what a rule found comes back with its bound and gap.
    """
    known_objective(objective)
    _require_room(problem)
    begun = time.perf_counter()
    try:
        if objective == "edp":
            return _product(problem, budget_s, solver, begun)
        return _single(problem, objective, budget_s, solver, begun)
    except SolverError:
        raise
    except InfeasibleError:
        raise _explained(problem, solver) from None


def _single(
    problem: GraphProblem, objective: str, budget_s: float | None, solver: SolverName, begun: float
) -> Placement:
    target = build(problem)
    unit = target.aim(objective)
    polishable = budget_s is not None and can_polish(problem, objective)
    known: PathAnswer | None = None
    if solver == "auto" and applies(problem, objective):
        with suppress(OutOfTimeError):
            known = solve_by_paths(target, objective, unit, PATHS_S if budget_s is None else budget_s * (1 - POLISHING))
        if (
            known is not None
            and known.choice is not None
            and (budget_s is not None or closed(known.value, known.bound))
        ):
            return _polished(problem, objective, known, (budget_s or 0.0) * POLISHING, begun)
    limit = budget_s * (1 - POLISHING) if budget_s is not None and polishable else budget_s
    try:
        solution = run(target.program, _named(solver), _left(limit, begun))
    except OutOfTimeError:
        rule = _by_rules(problem, objective, known)
        if rule is None:
            raise
        return _polished(problem, objective, rule, (budget_s or 0.0) * POLISHING, begun, known is not None)
    choice = arrange(problem, target.counts(solution.values), objective)
    if budget_s is not None and polishable and not solution.optimal:
        choice = polish(problem, choice, objective, budget_s * POLISHING)
    value, bound = cost_of(problem, choice).value(objective), solution.report.bound * unit
    if known is not None:
        bound = max(bound, min(known.bound, value))
        if known.choice is not None and known.value < value:
            choice, value = known.choice, known.value
    found = Placement(choice, proved(solution, value, bound, time.perf_counter() - begun))
    if solution.optimal and found.report.gap > REFINED_ABOVE and _unrolls(problem):
        return _refined(problem, objective, found, _left(budget_s, begun), solver)
    return found


def _named(solver: SolverName) -> SolverName:
    """The solver of whole programs."""
    return SOLVER if solver == "auto" else solver


def _by_rules(problem: GraphProblem, objective: str, known: PathAnswer | None) -> PathAnswer | None:
    """What rules find where no solver answered in time, with the best bound there is; None: no legal placement."""
    choice = legal_choice(problem, objective)
    if choice is None:
        return None
    value = cost_of(problem, choice).value(objective)
    return PathAnswer(choice, value, min(value, floor_of(problem, objective) if known is None else known.bound))


def _polished(
    problem: GraphProblem, objective: str, known: PathAnswer, budget_s: float, begun: float, by_paths: bool = True
) -> Placement:
    """What the search over paths (its relaxation and prices are HiGHS's) or rules found; moves where not proved."""
    choice, value = known.choice or (), known.value
    if not closed(value, known.bound) and can_polish(problem, objective):
        choice = polish(problem, choice, objective, budget_s)
        value = cost_of(problem, choice).value(objective)
    solver, version = ("paths", f"with {version_of(SOLVER)}") if by_paths else ("rules and moves", "no solver in time")
    report = judged(solver, version, value, known.bound, time.perf_counter() - begun)
    return Placement(choice, report)


def _unrolls(problem: GraphProblem) -> bool:
    """Whether the layers are folded and few enough to be told apart."""
    folded = int(problem.copies.max()) > 1 and int(problem.copies.sum()) <= MOST_UNROLLED
    return folded and not any(c.keeps for c in problem.columns)


def _refined(
    problem: GraphProblem, objective: str, found: Placement, left_s: float | None, solver: SolverName
) -> Placement:
    """What nesting the layers lost, won back on the unrolled graph where time allows."""
    limit = REFINING_S if left_s is None else min(left_s, REFINING_S)
    try:
        flat = _single(unrolled_problem(problem), objective, limit, solver, time.perf_counter())
    except SolverError:
        return found
    old, new = found.report, flat.report
    choice = folded_choice(problem, flat.choice) if new.objective < old.objective else found.choice
    value = cost_of(problem, choice).value(objective)
    seconds = old.seconds + new.seconds
    return Placement(choice, judged(new.solver, new.version, value, min(max(old.bound, new.bound), value), seconds))


def _product(problem: GraphProblem, budget_s: float | None, solver: SolverName, begun: float) -> Placement:
    """Least energy x time: weighed sums of both are minimised until no other product can be less."""

    def weighed(joules: float, seconds: float, left_s: float | None) -> Corner[Placement]:
        share = None if left_s is None else left_s / SOLVES
        found = _single(weighed_graph(problem, joules, seconds), "latency", share, solver, time.perf_counter())
        cost = cost_of(problem, found.choice)
        return Corner(found, cost.energy_j, cost.time_s, found.report.bound)

    best = least_product_on_hull(weighed, budget_s=_left(budget_s, begun))
    old = best.found.report
    report = judged(old.solver, old.version, best.value, best.bound, time.perf_counter() - begun)
    return Placement(best.found.choice, report)


def _left(budget_s: float | None, begun: float) -> float | None:
    return None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.05)


def _least(problem: GraphProblem, name: str) -> np.ndarray:
    """Cheapest candidate of each item times its copies."""
    least = np.full(len(problem.items), math.inf)
    np.minimum.at(least, problem.column_item, problem.of(name))
    out: np.ndarray = least * problem.copies
    return out


def _require_room(problem: GraphProblem) -> None:
    """Refuse what no arrangement can hold, before any solver runs."""
    least = _least(problem, "memory_bytes") + 0.0
    for i, item in enumerate(problem.items):
        if not math.isfinite(least[i]):
            raise InfeasibleError(f"no device can run {item.name}", where=problem.name, fix="add a device")
    need = float(least.sum()) + sum(t.stored_bytes for t in problem.shared)
    room = sum(s.memory_bytes for s in problem.sites)
    if need > room * (1 + 1e-9):
        raise _short(problem, need, room, {s.name: s.memory_bytes for s in problem.sites})


def _short(problem: GraphProblem, need: float, room: float, sites: dict[str, float]) -> InfeasibleError:
    least = _least(problem, "memory_bytes")
    order = np.argsort(-least)[:3]
    most = ", ".join(f"{problem.items[i].name} {gib(least[i])}" for i in order)
    return InfeasibleError(
        f"{problem.name} does not fit: {gib(need - room)} short",
        where=" + ".join(f"{name} {gib(size)}" for name, size in sites.items()),
        seen=f"{gib(need)} needed, {gib(room)} usable; most of it {most}",
        fix="add a device or memory, a smaller --weights format, or a shorter context",
        budget={"needed_bytes": need, "usable_bytes": room, "shortfall_bytes": need - room},
    )


def _explained(problem: GraphProblem, solver: SolverName) -> InfeasibleError:
    """Which memory overflows, by how much, in the placement that overflows least."""
    target = build(problem, overflow=True)
    try:
        solution = run(target.program, _named(solver), 10.0)
    except OutOfTimeError:
        return InfeasibleError(f"{problem.name} cannot be divided over the devices", fix="add memory or a device")
    choice = arrange(problem, target.counts(solution.values), "latency")
    used = cost_of(problem, choice).memory_bytes
    over = np.array([u - s.memory_bytes for u, s in zip(used, problem.sites, strict=True)])
    worst = int(np.argmax(over))
    on_it = {
        item.name: problem.of("memory_bytes")[picked][problem.column_site[picked] == worst].sum()
        for item, picked in zip(problem.items, choice, strict=True)
    }
    largest = max(on_it, key=lambda name: on_it[name])
    site = problem.sites[worst]
    return InfeasibleError(
        f"{problem.name} cannot be divided over the devices: {site.name} is {gib(over[worst])} short at least",
        where=f"memory of {site.name}",
        seen=f"{gib(used[worst])} in {gib(site.memory_bytes)}; most of it {largest} {gib(on_it[largest])}",
        fix="add memory, a smaller --weights format, or a finer cut",
        budget={"needed_bytes": float(used[worst]), "shortfall_bytes": float(over[worst])},
    )
