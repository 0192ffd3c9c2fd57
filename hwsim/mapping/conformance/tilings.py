"""The laws of tiling mappers, on machines small enough that complete enumeration knows the truth."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

from hwsim.errors import HwsimError, InfeasibleError, SolverError
from hwsim.mapping.conformance.breaches import Breach, guarded, tally
from hwsim.mapping.counts import count
from hwsim.mapping.enumerate import enumerate_best
from hwsim.mapping.legality import violations
from hwsim.mapping.machine import Level, Machine
from hwsim.mapping.problem import Gemm
from hwsim.mapping.protocol import Decision, floor_of
from hwsim.mapping.tiling.goal import goal_of

CLOSE: Final = 1e-9  # relative
_STATUSES: Final = ("optimal", "feasible", "ideal")


def _machine(name: str, near: int, buffer: int, **middle: Any) -> Machine:
    return Machine(
        name,
        (
            Level("rf", near, 1.0, 1.25, fanout=4),
            Level("glb", buffer, 5.0, 7.0, read_words_per_cycle=3, **middle),
            Level("dram", math.inf, 90.0, 110.0, read_words_per_cycle=1.5),
        ),
        mac_energy=0.7,
    )


MACHINES: Final = (
    _machine("plain", 12, 120),
    _machine("tight", 5, 20),
    _machine("double-buffered", 12, 120, double_buffer=True),
    _machine("bypass", 12, 60, bypass="AB"),
    Machine(
        "two levels, weights stationary",
        (
            Level("sram", 40, 2.0, 2.0, fanout=8, dims="NK"),
            Level("dram", math.inf, 60.0, 60.0, read_words_per_cycle=2),
        ),
    ),
)
GEMMS: Final = (Gemm(4, 6, 8), Gemm(3, 5, 7), Gemm(1, 8, 12), Gemm(6, 1, 4), Gemm(1, 1, 1), Gemm(2, 4, 3, batch=2))
LARGE: Final = Gemm(96, 240, 360)
IMPOSSIBLE: Final = Machine(
    "no room", (Level("rf", 2, 1.0, 1.0), Level("dram", math.inf, 60.0, 60.0, read_words_per_cycle=2))
)


@lru_cache(maxsize=len(MACHINES) * len(GEMMS) * 3)
def optimum(machine: Machine, gemm: Gemm, objective: str) -> float:
    """The best value over all even tilings."""
    _, exact, _ = enumerate_best(machine, gemm, objective)
    return float(goal_of(objective).value(float(exact.energy), float(exact.cycles)))


@dataclass(slots=True)
class Tilings:
    """Runs a tiling mapper; `run` returns breaches, cases a law, and the worst distance to the optimum."""

    mapper: Any
    budget_s: float
    grace_s: float
    LAWS: ClassVar[dict[str, str]] = {
        "answers": "returns a Decision, or raises an error of hwsim",
        "legal": "the mapping fits the machine: capacity, fan-out, coverage, what may be held where",
        "counts": "a claimed objective is what the counts of the mapping give",
        "floor": "no value, claimed or counted, lies below the floor of the machine",
        "bound": "a claimed bound is true: not above the value, nor above what enumeration finds",
        "status": "what is called optimal is not beaten by complete enumeration",
        "gap": "a claimed gap is (objective - bound) / objective",
        "deterministic": "asked twice, it answers the same",
        "budget": "a large case ends within the budget and the grace, or is refused at once",
        "infeasible": "where nothing fits it raises InfeasibleError that names the place",
    }
    OBJECTIVES: ClassVar[tuple[str, ...]] = ("energy", "latency", "edp")

    def run(self, objectives: tuple[str, ...]) -> tuple[list[Breach], dict[str, int], float]:
        breaches: list[Breach] = []
        counts: dict[str, int] = {}
        worst = 0.0
        for machine in MACHINES:
            for gemm in GEMMS:
                for objective in objectives:
                    worst = max(worst, self._case(machine, gemm, objective, breaches, counts))
        self._budget(objectives[0], breaches, counts)
        self._infeasible(objectives[0], breaches, counts)
        return breaches, counts, worst

    def _ask(self, machine: Machine, gemm: Gemm, objective: str, budget: float | None = None) -> Any:
        return guarded(lambda: self.mapper.map(machine, gemm, objective, budget))

    def _case(
        self, machine: Machine, gemm: Gemm, objective: str, breaches: list[Breach], counts: dict[str, int]
    ) -> float:
        where = f"{gemm.m}x{gemm.n}x{gemm.k} batch {gemm.batch} on {machine.name}, {objective}"
        decision, error, crash = self._ask(machine, gemm, objective)
        tally(counts, ["answers"])
        if crash or error is not None or not isinstance(decision, Decision):
            breaches.append(("answers", f"{where}: {crash or error or type(decision).__name__}"))
            return 0.0
        if decision.tiling is None:
            tally(counts, ["status"])
            if decision.report.status != "ideal":
                breaches.append(("status", f"{where}: no mapping, yet called {decision.report.status}"))
            return 0.0
        tally(counts, ["legal"])
        broken = violations(machine, gemm, decision.tiling)
        if broken:
            breaches.append(("legal", f"{where}: {broken[0].kind} of {broken[0].level}, {broken[0].detail}"))
            return 0.0
        again = self._ask(machine, gemm, objective)[0]
        tally(counts, ["deterministic"])
        if not isinstance(again, Decision) or again.tiling != decision.tiling:
            breaches.append(("deterministic", f"{where}: two answers to one question"))
        return self._figures(machine, gemm, objective, decision, where, breaches, counts)

    def _figures(
        self,
        machine: Machine,
        gemm: Gemm,
        objective: str,
        decision: Decision,
        where: str,
        breaches: list[Breach],
        counts: dict[str, int],
    ) -> float:
        """Value, bound, gap and status against the counts and complete enumeration."""
        assert decision.tiling is not None
        goal, report = goal_of(objective), decision.report
        words = count(machine, gemm, decision.tiling)
        value = goal.value(float(words.energy), float(words.cycles))
        best = optimum(machine, gemm, objective)
        floor = floor_of(machine, gemm, objective)
        claimed = value if math.isnan(report.objective) else report.objective
        reached = min(best, value)  # partial and uneven tiles may beat even ones
        bound = report.bound
        claimed_gap = (value - bound) / abs(value) if math.isfinite(bound) and value else 0.0
        checks = {
            "counts": (
                abs(claimed - value) > CLOSE * abs(value),
                f"claims {claimed:.9g}, the counts give {value:.9g}",
            ),
            "floor": (
                min(value, claimed) < floor * (1 - CLOSE),
                f"{min(value, claimed):.9g} below {floor:.9g}",
            ),
            "bound": (bound > reached * (1 + CLOSE), f"claims bound {bound:.9g}, {reached:.9g} exists"),
            "status": (
                report.status not in _STATUSES or (report.status == "optimal" and value > best * (1 + CLOSE)),
                f"called {report.status} at {value:.9g}, enumeration finds {best:.9g}",
            ),
            "gap": (
                math.isfinite(report.gap) and math.isfinite(bound) and abs(report.gap - claimed_gap) > 1e-6,
                f"claims gap {report.gap:.3g}, objective and bound give {claimed_gap:.3g}",
            ),
        }
        tally(counts, checks)
        breaches += [(law, f"{where}: {text}") for law, (broken, text) in checks.items() if broken]
        return (value - best) / best if best else 0.0

    def _budget(self, objective: str, breaches: list[Breach], counts: dict[str, int]) -> None:
        begun = time.perf_counter()
        decision, error, crash = self._ask(MACHINES[0], LARGE, objective, self.budget_s)
        seconds = time.perf_counter() - begun
        tally(counts, ["budget"])
        if seconds > self.budget_s + self.grace_s:
            breaches.append(("budget", f"{seconds:.1f} s for a budget of {self.budget_s} s"))
        elif crash:
            breaches.append(("budget", f"with a budget of {self.budget_s} s: {crash}"))
        elif error is None and isinstance(decision, Decision) and decision.tiling is not None:
            broken = violations(MACHINES[0], LARGE, decision.tiling)
            if broken:
                breaches.append(("legal", f"under a budget: {broken[0].kind} of {broken[0].level}"))

    def _infeasible(self, objective: str, breaches: list[Breach], counts: dict[str, int]) -> None:
        decision, error, crash = self._ask(IMPOSSIBLE, Gemm(4, 6, 8), objective)
        if isinstance(decision, Decision) and decision.tiling is None:
            return  # an ideal decides no mapping, so nothing has to fit
        tally(counts, ["infeasible"])
        if not _names_the_place(error):
            got = crash or (f"{type(error).__name__}: {error.what}" if error else "a mapping")
            breaches.append(("infeasible", f"a level of 2 words for three operands: {got}"))


def _names_the_place(error: HwsimError | None) -> bool:
    if not isinstance(error, InfeasibleError) or isinstance(error, SolverError):
        return False
    text = error.render()
    return any(name in text for name in (IMPOSSIBLE.name, "rf"))
