"""The conformance kit: shipped mappers conform, and every law fails for a mapper that was broken on purpose."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsim import content
from hwsim.errors import CheckFailedError, InfeasibleError, UnknownNameError
from hwsim.mapping import Decision, Gemm, Machine, Tiling, check_mapper, claim, count, goal_of, load_mapper, violations
from hwsim.mapping.conformance import Conformance
from hwsim.mapping.parallelism.choose import choose
from hwsim.mapping.parallelism.columns import Limits

TILING_LAWS = (
    "answers", "legal", "counts", "floor", "bound", "status", "gap", "deterministic", "budget", "infeasible",
)  # fmt: skip
LAYOUT_LAWS = ("answers", "legal", "counts", "bound", "status", "deterministic", "budget", "infeasible")
# placements have a test of their own; plans of one device family are tested with it (test_mesh.py, test_overlay.py)
ELSEWHERE = ("placement", "mesh", "overlay")
SHIPPED = [n for n in content.catalog("mapper") if getattr(load_mapper(n).mapper, "kind", "tiling") not in ELSEWHERE]


def test_there_are_mappers_to_check() -> None:
    assert {"tiling", "greedy", "exhaustive", "roofline", "parallelism"} <= set(SHIPPED)


SLOW = ("exhaustive", "greedy")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOW else n for n in SHIPPED])
def test_shipped_mappers_conform(name: str) -> None:
    objectives = () if name == "parallelism" else ("edp",)
    report = check_mapper(load_mapper(name).mapper, objectives=objectives)
    report.raise_if_broken()
    assert report.passed
    if name in ("tiling", "exhaustive", "parallelism"):
        assert report.worst_gap <= 1e-9
    if name == "greedy":
        assert report.worst_gap > 0  # it says "feasible" and is: no proof, no optimum


@pytest.mark.long
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_mappers_conform_for_every_objective(name: str) -> None:
    check_mapper(load_mapper(name).mapper).raise_if_broken()


class Unit:
    """Honest and simple: unit tiles, all loops at the last level; proves nothing. Subclasses break one law."""

    name = "unit"
    summary = "unit tiles"

    def tiling(self, machine: Machine, gemm: Gemm) -> Tiling:
        near, unit = len(machine.levels) - 1, (1, 1, 1)
        keep = tuple(level.keep for level in machine.levels)
        return Tiling((*((unit,) * near), gemm.extents), (unit,) * near, ("MNK",) * (near + 1), keep)

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        found = self.tiling(machine, gemm)
        broken = violations(machine, gemm, found)
        if broken:
            raise InfeasibleError(f"unit tiles do not fit {machine.name}", where=broken[0].level)
        return Decision(found, claim("unit", 0.0))

    def value(self, machine: Machine, gemm: Gemm, objective: str) -> float:
        words = count(machine, gemm, self.tiling(machine, gemm))
        return float(goal_of(objective).value(float(words.energy), float(words.cycles)))


class Answers(Unit):
    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        raise KeyError("a bug")


class Legal(Unit):
    """Everything into the registers."""

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        near = len(machine.levels) - 1
        honest = super().map(machine, gemm, objective, budget_s)
        assert honest.tiling is not None
        return replace(honest, tiling=replace(honest.tiling, temporal=(gemm.extents, *(((1, 1, 1),) * near))))


class Reporting(Unit):
    """Changes what is said about an honest mapping."""

    def said(self, value: float) -> dict[str, Any]:
        raise NotImplementedError

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        honest = super().map(machine, gemm, objective, budget_s)
        return replace(honest, report=replace(honest.report, **self.said(self.value(machine, gemm, objective))))


class Counts(Reporting):
    def said(self, value: float) -> dict[str, Any]:
        return {"objective": value * 0.999}


class Floor(Reporting):
    def said(self, value: float) -> dict[str, Any]:
        return {"objective": value * 1e-6}


class Bound(Reporting):
    """Calls its own value a bound."""

    def said(self, value: float) -> dict[str, Any]:
        return {"objective": value, "bound": value, "gap": 0.0}


class Status(Reporting):
    def said(self, value: float) -> dict[str, Any]:
        return {"status": "optimal"}


class Gap(Reporting):
    def said(self, value: float) -> dict[str, Any]:
        return {"objective": value, "bound": value * 0.01, "gap": 0.0}


class Deterministic(Unit):
    asked = 0

    def tiling(self, machine: Machine, gemm: Gemm) -> Tiling:
        self.asked += 1
        honest = super().tiling(machine, gemm)
        return honest if self.asked % 2 else replace(honest, order=("KMN",) * len(honest.order))


class Budget(Unit):
    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        if budget_s is not None:
            time.sleep(0.3)
        return super().map(machine, gemm, objective, budget_s)


class Infeasible(Unit):
    """Answers where nothing fits."""

    def map(self, machine: Machine, gemm: Gemm, objective: str, budget_s: float | None) -> Decision:
        return Decision(self.tiling(machine, gemm), claim("unit", 0.0))


def check(mapper: Any) -> Conformance:
    return check_mapper(mapper, objectives=("energy",), budget_s=0.05, grace_s=0.05 if mapper.name == "slow" else 5.0)


def test_the_honest_simple_mapper_conforms() -> None:
    report = check(Unit())
    assert report.passed, str(report)
    assert report.worst_gap > 0.1


BROKEN = (Answers, Legal, Counts, Floor, Bound, Status, Gap, Deterministic, Budget, Infeasible)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__.lower())
def test_each_law_of_tilings_can_fail(broken: type[Unit]) -> None:
    mapper = broken()
    mapper.name = "slow" if broken is Budget else "broken"
    report = check(mapper)
    law = report.law(broken.__name__.lower())
    assert not law.holds
    assert not report.passed
    assert "BROKEN" in str(report)
    with pytest.raises(CheckFailedError, match="breaks"):
        report.raise_if_broken()
    allowed = {"floor": {"counts"}, "bound": set(), "answers": {"infeasible", "budget"}}.get(law.name, set())
    others = {x.name for x in report.laws if not x.holds} - {law.name}
    assert others <= allowed, str(report)


def test_every_law_has_a_mapper_that_breaks_it() -> None:
    assert {c.__name__.lower() for c in BROKEN} == set(TILING_LAWS)
    assert {x.name for x in check(Unit()).laws} == set(TILING_LAWS)
    assert {x.name for x in check_mapper(load_mapper("parallelism").mapper, objectives=("latency",)).laws} == set(
        LAYOUT_LAWS
    )


class Layouts:
    """The shipped rule with one thing changed: `broken` names the law."""

    kind, summary = "layout", "broken on purpose"

    def __init__(self, broken: str) -> None:
        self.name, self.asked = broken, 0

    def map(self, columns: Any, objective: str, limits: Any, refine: Any, budget_s: float | None) -> Any:
        self.asked += 1
        if self.name == "answers":
            return None
        if self.name == "budget" and self.asked == 1:
            time.sleep(0.2)
        free = self.name in ("legal", "infeasible")
        choice = choose(columns, objective, Limits() if free else limits, refine)
        if self.name == "counts":
            return replace(choice, best=replace(choice.best, tpot_s=choice.best.tpot_s * 0.9))
        if self.name == "bound":
            return replace(choice, report=replace(choice.report, bound=abs(choice.report.bound) * 2))
        if self.name == "status" or (self.name == "deterministic" and self.asked % 2):
            worst = max(choice.refined, key=lambda one: one.value(objective, columns.devices))
            return replace(choice, best=worst)
        return choice


@pytest.mark.parametrize("law", LAYOUT_LAWS)
def test_each_law_of_layouts_can_fail(law: str) -> None:
    slow = law == "budget"
    objectives = ("latency",) if slow else ("latency", "throughput")
    report = check_mapper(Layouts(law), objectives=objectives, budget_s=0.05, grace_s=0.05 if slow else 5.0)
    assert not report.law(law).holds, str(report)


def test_unknown_kinds_laws_and_objectives_are_named() -> None:
    class Odd(Unit):
        kind = "tilling"

    with pytest.raises(UnknownNameError, match="tilling"):
        check_mapper(Odd())
    with pytest.raises(UnknownNameError, match="speed"):
        check_mapper(Unit(), objectives=("speed",))
    with pytest.raises(UnknownNameError, match="bounds"):
        check(Unit()).law("bounds")


def test_the_mapper_of_the_recipe_conforms_except_where_nothing_fits(tmp_path: Path) -> None:
    """The recipe's first mapper returns unit tiles always; the kit finds that it does not notice a lack of room."""
    page = Path(__file__).resolve().parents[2] / "docs" / "recipes" / "mapper.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    report = check_mapper(load_mapper(str(path)).mapper, objectives=("energy",))
    assert [law.name for law in report.laws if not law.holds] in ([], ["infeasible"])
