"""The laws of layout mappers, on made-up columns whose best choice is known by trying them all."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.conformance.breaches import Breach, guarded, tally
from hwsim.mapping.parallelism.choose import Choice, Refine, Refined, as_is
from hwsim.mapping.parallelism.columns import OBJECTIVES, Columns, Limits, allowed
from hwsim.mapping.parallelism.layouts import Layout

CASES: Final = 12
POINTS: Final = 40
CLOSE: Final = 1e-9


def columns_of(seed: int) -> Columns:
    """Random but plausible columns of 8 devices: half of them pipelines, some without room."""
    rng = np.random.default_rng(seed)
    layouts = tuple(Layout(2**a, 2**b, 2 ** (3 - a - b)) for a in range(4) for b in range(4 - a))
    layout = rng.integers(0, len(layouts), POINTS)
    batch = 2 ** rng.integers(0, 8, POINTS)
    ttft, tpot = rng.uniform(0.05, 2.0, POINTS), rng.uniform(0.005, 0.08, POINTS)
    latency = ttft + 99 * tpot
    return Columns(
        layouts,
        layout,
        batch,
        np.full(POINTS, 8),
        ttft,
        tpot,
        latency,
        batch * 100 / latency,
        rng.uniform(0.1, 2.0, POINTS),
        rng.uniform(0.1, 5.0, POINTS),
        rng.uniform(20e9, 90e9, POINTS),
        np.full(POINTS, 72e9),
        8,
    )


def refine_of(columns: Columns, seed: int) -> Refine:
    """Pipelines are up to 30 % slower than their columns; a few do not fit by stages."""
    slower = 1.0 + np.random.default_rng(seed + 1).uniform(0.0, 0.3, len(columns))

    def refine(index: int) -> Refined:
        one = as_is(columns, index)
        if columns.layouts[int(columns.layout[index])].pp == 1:
            return one
        if slower[index] > 1.28:
            raise InfeasibleError("stage memory")
        s = float(slower[index])
        return Refined(
            one.index,
            one.ttft_s * s,
            one.tpot_s * s,
            one.latency_s * s,
            one.tokens_per_s / s,
            one.energy_j_per_token * s,
            one.cost_usd_per_mtok * s,
        )

    return refine


@dataclass(slots=True)
class Layouts:
    """Runs a layout mapper."""

    mapper: Any
    budget_s: float
    grace_s: float
    LAWS: ClassVar[dict[str, str]] = {
        "answers": "returns a Choice, or raises an error of hwsim",
        "legal": "the chosen column fits and keeps the limits, after its layers are put on stages",
        "counts": "the figures of the choice are those of the engine",
        "bound": "a claimed bound is true: not above the best of all candidates",
        "status": "what is called optimal is not beaten by trying all candidates",
        "deterministic": "asked twice, it answers the same",
        "budget": "it ends within the budget and the grace",
        "infeasible": "where nothing keeps the limits it raises InfeasibleError",
    }
    OBJECTIVES: ClassVar[tuple[str, ...]] = OBJECTIVES

    def run(self, objectives: tuple[str, ...]) -> tuple[list[Breach], dict[str, int], float]:
        breaches: list[Breach] = []
        counts: dict[str, int] = {}
        worst = 0.0
        for seed in range(CASES):
            columns = columns_of(seed)
            for objective in objectives:
                for limits in (Limits(), Limits(1.2, 0.05)):
                    worst = max(worst, self._case(columns, seed, objective, limits, breaches, counts))
        self._infeasible(objectives[0], breaches, counts)
        return breaches, counts, worst

    def _ask(self, columns: Columns, seed: int, objective: str, limits: Limits) -> Any:
        return guarded(lambda: self.mapper.map(columns, objective, limits, refine_of(columns, seed), self.budget_s))

    def _case(
        self,
        columns: Columns,
        seed: int,
        objective: str,
        limits: Limits,
        breaches: list[Breach],
        counts: dict[str, int],
    ) -> float:
        where = f"case {seed}, {objective}, {'limits' if math.isfinite(limits.ttft_s) else 'no limits'}"
        begun = time.perf_counter()
        choice, error, crash = self._ask(columns, seed, objective, limits)
        seconds = time.perf_counter() - begun
        tally(counts, ["answers", "budget"])
        if seconds > self.budget_s + self.grace_s:
            breaches.append(("budget", f"{where}: {seconds:.1f} s"))
        if crash or error is not None or not isinstance(choice, Choice):
            breaches.append(("answers", f"{where}: {crash or error or type(choice).__name__}"))
            return 0.0
        exact = {i: refined for i in range(len(columns)) if (refined := _exact(columns, seed, i, limits)) is not None}
        best = min(one.value(objective, columns.devices) for one in exact.values())
        mine, report = choice.best, choice.report
        value = mine.value(objective, columns.devices)
        again = self._ask(columns, seed, objective, limits)[0]
        true = exact.get(mine.index)
        checks = {
            "legal": (true is None, f"column {mine.index} breaks a limit"),
            "counts": (true is not None and replace(mine, partition=None) != true, "other figures than the engine's"),
            "bound": (report.bound > best + CLOSE * abs(best), f"bound {report.bound:.6g}, {best:.6g} exists"),
            "status": (
                report.status == "optimal" and value > best + CLOSE * abs(best),
                f"called optimal at {value:.6g}, {best:.6g} exists",
            ),
            "deterministic": (not isinstance(again, Choice) or again.best != mine, "two answers to one question"),
        }
        tally(counts, checks)
        breaches += [(law, f"{where}: {text}") for law, (broken, text) in checks.items() if broken]
        return (value - best) / abs(best)

    def _infeasible(self, objective: str, breaches: list[Breach], counts: dict[str, int]) -> None:
        columns = columns_of(0)
        choice, error, crash = self._ask(columns, 0, objective, Limits(1e-9, 1e-9))
        tally(counts, ["infeasible"])
        if not isinstance(error, InfeasibleError):
            breaches.append(("infeasible", f"impossible limits: {crash or error or type(choice).__name__}"))


def _exact(columns: Columns, seed: int, index: int, limits: Limits) -> Refined | None:
    """The refined column where it fits and keeps the limits."""
    if not bool(allowed(columns, limits)[index]):
        return None
    try:
        one = refine_of(columns, seed)(index)
    except InfeasibleError:
        return None
    return one if one.ttft_s <= limits.ttft_s and one.tpot_s <= limits.tpot_s else None
