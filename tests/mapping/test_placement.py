"""Placement programs against complete enumeration, each other's solvers, and what they must refuse."""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim.errors import CheckFailedError, InfeasibleError, OutOfTimeError, SolverError, UnknownNameError
from hwsim.mapping.conformance import check_mapper
from hwsim.mapping.optimize import best_tiling
from hwsim.mapping.placement import place, tier_program
from hwsim.mapping.placement.answer import Placement, Tiering
from hwsim.mapping.placement.baselines import alone, equal_stages, greedy
from hwsim.mapping.placement.chain import chain_of, cost_of_stages, stage_violations
from hwsim.mapping.placement.contiguous import orders, place_chain
from hwsim.mapping.placement.cuts import shortest
from hwsim.mapping.placement.incumbent import legal_choice
from hwsim.mapping.placement.place import place_graph
from hwsim.mapping.placement.polish import can_polish, polish
from hwsim.mapping.placement.problem import cost_of, violations
from hwsim.mapping.placement.tier_baselines import interleave, nearest_first
from hwsim.mapping.placement.tier_program import place_tiers
from hwsim.mapping.placement.tiers import TierProblem, tier_violations, time_of
from hwsim.mapping.placement.unroll import folded_choice, unrolled_problem
from hwsim.mapping.placement.verify import floor_of, verified
from hwsim.mapping.problem import Gemm
from hwsim.mapping.protocol import claim
from hwsim.mapping.registry import load_mapper
from tests.mapping.placement_cases import (
    enumerate_graph,
    enumerate_stages,
    enumerate_tiers,
    random_chain,
    random_graph,
    random_tiers,
)
from tests.mapping.reference import small

OBJECTIVES = ("latency", "throughput", "energy", "edp")


def _same(report: Any, value: float) -> None:
    assert report.status == "optimal" and report.gap == 0.0
    assert report.objective == pytest.approx(value, rel=1e-7)


def _graph_case(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [(5, 3, 1), (4, 2, 2), (6, 2, 1)][seed % 3]
    problem = random_graph(rng, *shape, tight=(0.45, 0.6, 2.0)[seed % 3], uniform=seed % 2 == 0)
    objective = OBJECTIVES[seed % 4]
    best = enumerate_graph(problem, objective)
    if math.isinf(best):
        with pytest.raises(InfeasibleError):
            place_graph(problem, objective)
        return
    found = place_graph(problem, objective)
    _same(found.report, best)
    assert violations(problem, found.choice) == []
    assert cost_of(problem, found.choice).value(objective) == pytest.approx(best, rel=1e-7)


def _stage_case(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_graph(rng, 6, 2 + seed % 2, tight=(0.45, 0.6, 2.0)[seed % 3], uniform=seed % 2 == 0)
    objective = OBJECTIVES[seed % 4]
    chain = chain_of(problem, objective)
    best = enumerate_stages(chain, objective)
    if math.isinf(best):
        with pytest.raises(InfeasibleError):
            place_chain(chain, objective)
        return
    found = place_chain(chain, objective)
    _same(found.report, best)
    assert stage_violations(chain, found.stages, found.order) == []


def _tier_case(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_tiers(rng, 2 + seed % 2, 3, 2)
    best = enumerate_tiers(problem)
    if math.isinf(best):
        with pytest.raises(InfeasibleError):
            place_tiers(problem)
        return
    found = place_tiers(problem)
    _same(found.report, best)
    assert tier_violations(problem, found.shares) == []
    for rule in (interleave, nearest_first):
        shares = rule(problem)
        if not tier_violations(problem, shares):  # a rule may use more tiers a tensor than the program
            assert time_of(problem, shares) >= best * (1 - 1e-9)


CASES = (_graph_case, _stage_case, _tier_case)


@pytest.mark.parametrize("case", CASES)
def test_programs_equal_enumeration(case: Any) -> None:
    for seed in range(12):
        case(seed)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_programs_equal_enumeration_on_200_instances(case: Any) -> None:
    for seed in range(200):
        case(1000 + seed)


def test_tensors_kept_on_chip_equal_enumeration() -> None:
    for seed in range(4):
        problem = random_graph(np.random.default_rng(seed), 3, 2, keep=True, tight=0.9)
        found = place_graph(problem)
        _same(found.report, enumerate_graph(problem, "latency"))
        assert violations(problem, found.choice) == []


def test_folded_layers_bracket_the_unrolled_optimum() -> None:
    for seed in range(8):
        folded = random_graph(np.random.default_rng(seed), 3, 2 + seed % 2, copies=4, tight=0.45)
        folded = replace(folded, shared=())
        found, exact = place_graph(folded), place_graph(unrolled_problem(folded))
        assert exact.report.status == "optimal"
        assert found.report.bound <= exact.report.objective * (1 + 1e-9)
        assert found.report.objective >= exact.report.objective * (1 - 1e-9)
        assert violations(folded, found.choice) == []
        assert found.report.gap < 0.1
        back = folded_choice(folded, exact.choice)
        assert cost_of(folded, back).time_s == pytest.approx(exact.report.objective, rel=1e-9)
        assert found.report.gap <= 3e-4 or found.report.objective <= exact.report.objective * (1 + 3e-4)


def test_rules_never_beat_the_proof() -> None:
    for seed in range(6):
        problem = random_graph(np.random.default_rng(seed), 12, 3, 2, tight=0.6)
        best = place_graph(problem).report.objective
        for choice in (greedy(problem), *(alone(problem, s) for s in range(3))):
            if choice is not None and not violations(problem, choice):
                assert cost_of(problem, choice).time_s >= best * (1 - 1e-9)
        chain = chain_of(problem)
        staged = place_chain(chain)
        assert staged.report.objective >= best * (1 - 1e-9) or problem.flows  # forwarding may cost more or less
        if not stage_violations(chain, equal_stages(chain), (0, 1, 2)):
            equal = cost_of_stages(chain, equal_stages(chain), (0, 1, 2))
            assert equal.time_s >= staged.report.objective * (1 - 1e-9)


@pytest.mark.parametrize("unequal", [True, False])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_stages_of_200_operators_equal_shortest_paths(unequal: bool, objective: str) -> None:
    chain = random_chain(np.random.default_rng(3), 200, 8, 1.5, unequal)
    found = place_chain(chain, objective, any_order=False)
    value, stages = shortest(chain, tuple(range(8)), objective)
    _same(found.report, value)
    assert cost_of_stages(chain, stages, tuple(range(8))).value(objective) == pytest.approx(value, rel=1e-9)
    assert found.report.seconds < 2


def test_moves_on_an_incumbent_are_legal_and_never_cost_more() -> None:
    gains = 0
    for seed in range(6):
        problem = replace(random_graph(np.random.default_rng(seed), 14, 3, 2, tight=0.55), shared=())
        for objective in ("latency", "energy"):
            start = greedy(problem, objective)
            if start is None:
                continue
            better = polish(problem, start, objective, 5.0)
            assert can_polish(problem, objective) and violations(problem, better) == []
            old, new = (cost_of(problem, c).value(objective) for c in (start, better))
            assert place_graph(problem, objective).report.objective * (1 - 1e-9) <= new <= old * (1 + 1e-12)
            gains += new < old
    assert gains >= 3
    assert not can_polish(random_graph(np.random.default_rng(0), 3, 2, copies=4), "latency")
    assert not can_polish(replace(random_graph(np.random.default_rng(0), 3, 2), shared=()), "throughput")


def test_equal_devices_are_one_order() -> None:
    assert len(orders(random_chain(np.random.default_rng(0), 5, 4, 9.0, unequal=False))) == 1
    assert len(orders(random_chain(np.random.default_rng(0), 5, 3, 9.0))) == 6
    assert len(orders(random_chain(np.random.default_rng(0), 5, 8, 9.0))) == 1  # too many: as given


def _agree(seed: int) -> None:
    """One instance, three solvers, one objective at gap 0."""
    rng = np.random.default_rng(seed)
    kind = seed % 4
    values = []
    for solver in ("highs", "cbc", "scipy"):
        if kind == 0:
            problem = random_graph(np.random.default_rng(seed), 12, 3, 2, tight=0.5, uniform=seed % 8 == 0)
            report = place_graph(problem, ("latency", "energy")[seed % 8 == 4], solver=solver).report  # type: ignore[arg-type]
        elif kind == 1:
            chain = random_chain(np.random.default_rng(seed), 14, 3, 1.6)
            report = place_chain(chain, ("throughput", "latency")[seed % 8 == 5], solver=solver).report  # type: ignore[arg-type]
        elif kind == 2:
            report = place_tiers(random_tiers(np.random.default_rng(seed), 8, 4, 3), solver=solver).report  # type: ignore[arg-type]
        else:
            extents = rng.choice([2, 3, 4, 6, 8, 12], 3) if solver == "highs" else extents  # noqa: F821
            objective = ("energy", "edp")[seed % 8 == 7]
            report = best_tiling(small(12, 80), Gemm(*map(int, extents)), objective, solver=solver).report  # type: ignore[arg-type]
        assert report.status == "optimal" and report.gap == 0.0, (seed, solver, report)
        values.append(report.objective)
    close = 1e-7 if kind == 2 else 1e-9  # shares are real numbers: solvers hold their rows to a tolerance
    assert values == pytest.approx([values[0]] * 3, rel=close), seed


def test_three_solvers_agree() -> None:
    for seed in range(8):
        _agree(seed)


@pytest.mark.long
def test_three_solvers_agree_on_100_instances() -> None:
    for seed in range(100):
        _agree(500 + seed)


def test_a_missing_solver_is_said_and_nothing_else_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "highspy" else real(name, *a))
    rng = np.random.default_rng(0)
    for solve in (
        lambda: place_graph(random_graph(rng, 3, 2, tight=2.0)),
        lambda: place_chain(random_chain(rng, 4, 2, 9.0), solver="highs"),
        lambda: place_tiers(random_tiers(rng, 2, 2, 1)),
    ):
        with pytest.raises(SolverError, match='pip install "highspy"'):
            solve()


def test_a_budget_that_ends_is_told() -> None:
    problem = random_graph(np.random.default_rng(1), 120, 4, 5, tight=0.3)
    found = place_graph(problem, budget_s=4.0)
    assert violations(problem, found.choice) == []
    assert found.report.bound <= found.report.objective
    if found.report.status != "optimal":
        assert found.report.status == "feasible" and found.report.gap > 0
        assert found.report.gap == pytest.approx(1 - found.report.bound / found.report.objective)


HURRIED = [  # items, sites, candidates, tight, copies: greedy runs into full memories in all but the last
    (120, 4, 5, 0.3, 1),
    (160, 6, 6, 0.2, 1),
    (12, 3, 2, 0.38, 3),
    (60, 3, 1, 0.4, 1),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", HURRIED)
def test_rules_answer_where_no_solver_ends_in_time(
    case: tuple[int, int, int, float, int], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so loaded that neither the relaxation nor HiGHS ends: an incumbent with its gap, no error."""
    items, sites, candidates, tight, copies = case
    problem = random_graph(np.random.default_rng(1), items, sites, candidates, tight=tight, copies=copies)

    def late(*given: object, **named: object) -> None:
        raise OutOfTimeError("no solution in time", fix="allow more time (--budget)")

    monkeypatch.setattr(place, "run", late)
    monkeypatch.setattr(place, "solve_by_paths", late)
    found = place_graph(problem, objective, budget_s=0.2)
    assert violations(problem, found.choice) == []
    report = found.report
    assert report.status == "feasible" and 0 < report.gap < 1 and "no solver in time" in report.version
    assert floor_of(problem, objective) * (1 - 1e-9) <= report.bound < report.objective
    assert report.objective == pytest.approx(cost_of(problem, found.choice).value(objective), rel=1e-9)
    monkeypatch.setattr(place, "legal_choice", lambda *given: None)
    with pytest.raises(OutOfTimeError, match="--budget"):
        place_graph(problem, objective, budget_s=0.2)


def test_rules_of_thumb_answer_for_tiers_where_the_solver_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_tiers(np.random.default_rng(0), 6, 3, 2)
    proved = place_tiers(problem).report

    def late(*given: object, **named: object) -> None:
        raise OutOfTimeError("no solution in time")

    monkeypatch.setattr(tier_program, "run", late)
    found = place_tiers(problem, budget_s=0.1)
    assert tier_violations(problem, found.shares) == []
    assert found.report.bound <= proved.objective * (1 + 1e-9) <= found.report.objective * (1 + 2e-9)
    assert "no solver in time" in found.report.version


def test_rules_are_legal_and_never_beat_the_proof() -> None:
    seen = 0
    for seed in range(6):
        problem = random_graph(np.random.default_rng(seed), 12, 3, 2, tight=0.45, copies=1 + seed % 2)
        for objective in ("latency", "energy"):
            choice = legal_choice(problem, objective)
            if choice is not None:
                seen += 1
                assert violations(problem, choice) == []
                best = place_graph(problem, objective).report
                assert cost_of(problem, choice).value(objective) >= best.bound * (1 - 1e-7)
    assert seen >= 10


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InfeasibleError, match="short") as error:
        place_graph(random_graph(np.random.default_rng(0), 4, 2, tight=0.3))
    assert error.value.budget["shortfall_bytes"] > 0 and "d0" in str(error.value)
    problem = random_graph(np.random.default_rng(0), 3, 2, tight=0.6)
    sites = tuple(replace(s, memory_bytes=17.0) for s in problem.sites)
    large = tuple(replace(c, memory_bytes=(16.0, 9.0, 9.0)[c.item]) for c in problem.columns)
    with pytest.raises(InfeasibleError, match="divided over the devices: d[01] is") as error:
        place_graph(replace(problem, sites=sites, columns=large, shared=()))
    assert error.value.budget["shortfall_bytes"] == pytest.approx(1.0)
    with pytest.raises(InfeasibleError, match="0.00 GiB short"):
        place_chain(random_chain(np.random.default_rng(0), 6, 2, 0.9))
    with pytest.raises(InfeasibleError, match="no contiguous cut"):
        place_chain(random_chain(np.random.default_rng(0), 2, 3, 1.4))
    tiers = random_tiers(np.random.default_rng(0), 3, 2, 1)
    with pytest.raises(InfeasibleError, match="short") as error:
        place_tiers(
            TierProblem("t", tuple(replace(t, size_bytes=1.0) for t in tiers.tiers), tiers.tensors, tiers.phases)
        )
    assert error.value.budget["shortfall_bytes"] == pytest.approx(tiers.sizes.sum() - 2)


def test_a_mappers_word_is_checked() -> None:
    problem = random_graph(np.random.default_rng(2), 5, 2, tight=2.0)
    choice = alone(problem, 0)
    assert choice is not None
    report = verified(problem, "latency", Placement(choice, claim("mine", 0.0)))
    assert report.status == "feasible" and 0 < report.bound <= report.objective == cost_of(problem, choice).time_s
    with pytest.raises(CheckFailedError, match="objective"):
        verified(problem, "latency", Placement(choice, replace(claim("mine", 0.0), objective=1e-3)))
    with pytest.raises(CheckFailedError, match="bound"):
        verified(problem, "latency", Placement(choice, replace(claim("mine", 0.0), bound=1e9)))
    with pytest.raises(InfeasibleError, match="not legal"):
        verified(problem, "latency", Placement(choice[:-1] + (choice[0],), claim("mine", 0.0)))
    with pytest.raises(CheckFailedError, match="belong"):
        verified(problem, "latency", Tiering(np.ones((1, 1)), claim("mine", 0.0)))
    with pytest.raises(UnknownNameError, match="latency"):
        place_graph(problem, "latencyy")


def test_any_number_of_tiers_is_never_slower_than_two() -> None:
    for seed in range(4):
        problem = random_tiers(np.random.default_rng(seed), 6, 4, 2)
        free, two = place_tiers(problem, kinds=None), place_tiers(problem)
        assert free.report.objective <= two.report.objective * (1 + 1e-9)
        assert time_of(problem, interleave(problem)) >= free.report.objective * (1 - 1e-9)


class _Broken:
    """The shipped mapper with one law broken on purpose."""

    name, kind, summary = "broken", "placement", "broken on purpose"

    def __init__(self, law: str) -> None:
        self.law, self.asked, self.real = law, 0, load_mapper("placement").mapper

    def map(self, problem: Any, objective: str, budget_s: float | None) -> Any:
        self.asked += 1
        if self.law == "budget" and self.asked == 1:
            time.sleep(0.4)
        if self.law == "answers":
            return problem
        if self.law == "infeasible":
            try:
                return self._map(problem, objective, budget_s)
            except InfeasibleError:
                return None
        return self._map(problem, objective, budget_s)

    def _map(self, problem: Any, objective: str, budget_s: float | None) -> Any:
        answer: Any = self.real.map(problem, objective, budget_s)  # type: ignore[call-arg,arg-type]
        report = answer.report
        if self.law == "counts":
            return replace(answer, report=replace(report, objective=report.objective / 2))
        if self.law == "bound":
            return replace(answer, report=replace(report, bound=report.bound * 2))
        if not isinstance(answer, Placement):
            return answer
        if self.law == "legal":
            return replace(answer, choice=(answer.choice[0] * 0 - 1, *answer.choice[1:]))
        if self.law == "status" or (self.law == "deterministic" and self.asked % 2):
            worse = _any_other(problem, objective, answer.choice)
            value = cost_of(problem, worse).value(objective)
            status = "optimal" if self.law == "status" else "feasible"
            return Placement(worse, replace(report, status=status, objective=value, bound=0.0))
        return answer


def _any_other(problem: Any, objective: str, choice: Any) -> Any:
    """A legal choice that costs more."""
    best = cost_of(problem, choice).value(objective)
    for i, own in enumerate(choice):
        for c in np.flatnonzero(problem.column_item == i):
            other = (*choice[:i], own * 0 + c, *choice[i + 1 :])
            if not violations(problem, other) and cost_of(problem, other).value(objective) > best * 1.01:
                return other
    return choice


def test_the_shipped_mapper_conforms() -> None:
    found = check_mapper(load_mapper("placement").mapper)
    found.raise_if_broken()
    assert found.worst_gap < 1e-6 and len(found.laws) == 8 and all(law.cases for law in found.laws)


@pytest.mark.parametrize(
    "law", ["answers", "legal", "counts", "bound", "status", "deterministic", "budget", "infeasible"]
)
def test_each_law_of_placements_can_fail(law: str) -> None:
    found = check_mapper(_Broken(law), objectives=("latency",), budget_s=0.2, grace_s=0.1 if law == "budget" else 5.0)
    assert not found.law(law).holds
