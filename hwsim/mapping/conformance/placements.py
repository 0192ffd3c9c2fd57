"""The laws of placement mappers, on small graphs, chains and tiers whose best answer is known."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from hwsim.errors import HwsimError, InfeasibleError
from hwsim.mapping.conformance.breaches import Breach, guarded, tally
from hwsim.mapping.placement.answer import OBJECTIVES, Placement, Staging, Tiering
from hwsim.mapping.placement.chain import Chain, chain_of, cost_of_stages, stage_violations
from hwsim.mapping.placement.contiguous import orders
from hwsim.mapping.placement.cuts import shortest
from hwsim.mapping.placement.problem import Column, Flow, GraphProblem, Item, Site, cost_of, violations
from hwsim.mapping.placement.tier_program import place_tiers
from hwsim.mapping.placement.tiers import Link, Phase, Tensor, Tier, TierProblem, tier_violations, time_of

CASES: Final = 2
CLOSE: Final = 1e-6
ITEMS: Final = 5
VARIANTS: Final = 2


def graph_of(seed: int, room: float = 0.7) -> GraphProblem:
    """Five operators on two devices in two variants; `room`: memory of a device over the least total."""
    rng = np.random.default_rng(seed)
    columns = []
    for i, s, v in itertools.product(range(ITEMS), range(2), range(VARIANTS)):
        memory = float(rng.integers(1, 9)) * (1.0 if v else 0.6)
        columns.append(Column(i, s, float(rng.uniform(1, 9)), float(rng.uniform(1, 9)), memory, f"v{v}"))
    flows = tuple(Flow(f"t{i}", i, (i + 1,), sent_bytes=float(rng.uniform(0, 4))) for i in range(ITEMS - 1))
    least = sum(min(c.memory_bytes for c in columns if c.item == i) for i in range(ITEMS))
    sites = tuple(Site(f"d{s}", least * room) for s in range(2))
    off = 1 - np.eye(2)
    items = tuple(Item(f"o{i}") for i in range(ITEMS))
    return GraphProblem(f"graph {seed}", sites, items, tuple(columns), flows, (), off, off * 0.1, off * 0.5)


def tiers_of(seed: int) -> TierProblem:
    """Four tensors over two tiers in two phases, one of them with a link."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, 4).astype(float)
    tiers = (Tier("near", float(sizes.sum() * 0.5)), Tier("far", float(sizes.sum() * 2)))
    rates = np.array([5.0, 1.5])
    walks = Phase("walk", sizes * rng.integers(0, 3, 4), rates, serial=bool(seed % 2))
    moves = Phase("move", sizes * rng.integers(0, 3, 4), rates, 1.0, 2.0, (Link("link", 1.2, (1,)),))
    return TierProblem(
        f"tiers {seed}", tiers, tuple(Tensor(f"k{k}", float(s)) for k, s in enumerate(sizes)), (walks, moves)
    )


def best_of(problem: Any, objective: str) -> float:
    """The optimum by other means than the mapper's: enumeration, shortest paths, a linear program; inf where none."""
    if isinstance(problem, GraphProblem):
        options = [np.flatnonzero(problem.column_item == i) for i in range(ITEMS)]
        choices = (tuple(np.array([c]) for c in picked) for picked in itertools.product(*options))
        legal = (cost_of(problem, c).value(objective) for c in choices if not violations(problem, c))
        return float(min(legal, default=math.inf))
    if isinstance(problem, Chain):
        return min((_path(problem, order, objective) for order in orders(problem)), default=math.inf)
    return place_tiers(problem, kinds=None).report.objective


def _path(chain: Chain, order: tuple[int, ...], objective: str) -> float:
    try:
        return shortest(chain, order, objective)[0]
    except InfeasibleError:
        return math.inf


@dataclass(slots=True)
class Placements:
    """Runs a placement mapper."""

    mapper: Any
    budget_s: float
    grace_s: float
    LAWS: ClassVar[dict[str, str]] = {
        "answers": "returns a Placement, Staging or Tiering as the problem asks, or raises an error of hwsim",
        "legal": "one candidate an operator, memories not overfull, stages contiguous, shares add up",
        "counts": "a claimed objective is what the placement costs",
        "bound": "a claimed bound is not above what exists",
        "status": "what is called optimal is not beaten",
        "deterministic": "asked twice, an answer as good",
        "budget": "ends within the budget and the grace",
        "infeasible": "where nothing fits it raises InfeasibleError",
    }
    OBJECTIVES: ClassVar[tuple[str, ...]] = OBJECTIVES

    def run(self, objectives: tuple[str, ...]) -> tuple[list[Breach], dict[str, int], float]:
        breaches: list[Breach] = []
        counts: dict[str, int] = {}
        worst = 0.0
        for seed, objective in itertools.product(range(CASES), objectives):
            for problem in _problems(seed, objective):
                worst = max(worst, self._case(problem, objective, breaches, counts))
        self._infeasible(objectives[0], breaches, counts)
        return breaches, counts, worst

    def _ask(self, problem: Any, objective: str) -> tuple[Any, HwsimError | None, str]:
        return guarded(lambda: self.mapper.map(problem, objective, self.budget_s))

    def _case(self, problem: Any, objective: str, breaches: list[Breach], counts: dict[str, int]) -> float:
        where = f"{problem.name}, {type(problem).__name__}, {objective}"
        begun = time.perf_counter()
        answer, error, crash = self._ask(problem, objective)
        tally(counts, ["answers", "budget"])
        if time.perf_counter() - begun > self.budget_s + self.grace_s:
            breaches.append(("budget", f"{where}: {time.perf_counter() - begun:.1f} s"))
        best = best_of(problem, objective)
        if math.isinf(best) and isinstance(error, InfeasibleError):
            return 0.0
        if not isinstance(answer, _answer_to(problem)):
            breaches.append(("answers", f"{where}: {crash or error or type(answer).__name__}"))
            return 0.0
        checks = self._checks(problem, objective, answer, best)
        tally(counts, checks)
        breaches += [(law, f"{where}: {text}") for law, (broken, text) in checks.items() if broken]
        return 0.0 if checks["legal"][0] else _value(problem, objective, answer) / best - 1

    def _checks(self, problem: Any, objective: str, answer: Any, best: float) -> dict[str, tuple[bool, str]]:
        wrong, report = _wrong(problem, answer), answer.report
        if wrong:
            return {"legal": (True, wrong[0])}
        value = _value(problem, objective, answer)
        again = self._ask(problem, objective)[0]
        same = isinstance(again, type(answer)) and not _wrong(problem, again)
        off = not math.isnan(report.objective) and abs(report.objective - value) > CLOSE * value
        return {
            "legal": (False, ""),
            "counts": (off, f"claims {report.objective:.6g}, costs {value:.6g}"),
            "bound": (report.bound > best * (1 + CLOSE), f"bound {report.bound:.6g}, {best:.6g} exists"),
            "status": (
                report.status == "optimal" and value > best * (1 + CLOSE),
                f"called optimal at {value:.6g}, {best:.6g} exists",
            ),
            "deterministic": (
                not same or abs(_value(problem, objective, again) - value) > CLOSE * value,
                "two answers of different cost",
            ),
        }

    def _infeasible(self, objective: str, breaches: list[Breach], counts: dict[str, int]) -> None:
        small = graph_of(0, room=0.3)
        tight = replace(tiers_of(0), tiers=(Tier("near", 1.0), Tier("far", 1.0)))
        for problem in (small, chain_of(small), tight):
            answer, error, crash = self._ask(problem, objective)
            tally(counts, ["infeasible"])
            if not isinstance(error, InfeasibleError):
                name = type(problem).__name__
                breaches.append(("infeasible", f"{name} without room: {crash or error or type(answer).__name__}"))


def _problems(seed: int, objective: str) -> list[Any]:
    """A graph, the chain of it, and tiers where the objective is a time."""
    graph = graph_of(seed)
    chains = (
        [chain_of(graph, objective)] if objective != "edp" else []
    )  # shortest paths add or compare, edp does neither
    return [graph, *chains, *([tiers_of(seed)] if objective == "latency" else [])]


def _answer_to(problem: Any) -> type:
    return Placement if isinstance(problem, GraphProblem) else Staging if isinstance(problem, Chain) else Tiering


def _wrong(problem: Any, answer: Any) -> list[str]:
    """What is illegal about an answer, malformed ones included."""

    def look() -> list[str]:
        if isinstance(problem, GraphProblem):
            return violations(problem, answer.choice)
        if isinstance(problem, Chain):
            return stage_violations(problem, answer.stages, answer.order)
        return tier_violations(problem, answer.shares)

    found, error, crash = guarded(look)
    return [str(error or crash)] if error is not None or crash else list(found)


def _value(problem: Any, objective: str, answer: Any) -> float:
    if isinstance(problem, GraphProblem):
        return cost_of(problem, answer.choice).value(objective)
    if isinstance(problem, Chain):
        return cost_of_stages(problem, answer.stages, answer.order).value(objective)
    return time_of(problem, answer.shares)
