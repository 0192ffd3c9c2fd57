"""Stages as shortest paths: against enumeration of all cuts and orders, the integer program, and a clock."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from hwsim.errors import InfeasibleError, SolverError
from hwsim.mapping.blocks.hull import Corner, least_product_on_hull
from hwsim.mapping.placement.chain import Chain, cost_of_stages, stage_violations
from hwsim.mapping.placement.contiguous import place_chain
from hwsim.mapping.placement.stages.nodes import count_all, in_any_order
from tests.mapping.placement_cases import enumerate_stages, hard_chain

OBJECTIVES = ("latency", "throughput", "energy", "edp")


def _twins(chain: Chain) -> Chain:
    """The same with its last site a copy of the first, links included."""
    last = len(chain.sites) - 1
    same = [*range(last), 0]
    tables = {k: getattr(chain, k)[:, same] for k in ("time_s", "energy_j", "memory_bytes")}
    rates = {k: np.array(getattr(chain, k))[np.ix_(same, same)] for k in ("seconds_per_byte", "joules_per_byte")}
    for rate in rates.values():
        rate[0, last] = rate[last, 0] = 0.7
    return replace(chain, sites=tuple(chain.sites[s] for s in same), **tables, **rates)


def _banned(chain: Chain, seed: int) -> Chain:
    """Some operators impossible on some sites, the first one on one site for certain."""
    rng = np.random.default_rng(seed)
    out = rng.random(chain.time_s.shape) < 0.12
    out[0, 0] = True
    tables = {k: np.where(out, np.inf, getattr(chain, k)) for k in ("time_s", "energy_j", "memory_bytes")}
    return replace(chain, **tables)


def _case(seed: int) -> float:
    """All objectives of one instance; returns the last optimum."""
    chain = hard_chain(seed, 6, 2 + seed % 3, (1.05, 1.4, 2.0)[seed % 3], (0.1, 1.0, 3.0)[seed // 3 % 3])
    chain = (chain, _twins(chain), _banned(chain, seed))[seed // 2 % 3]
    best = math.inf
    for objective in OBJECTIVES:
        best = enumerate_stages(chain, objective)
        if math.isinf(best):
            with pytest.raises(InfeasibleError):
                place_chain(chain, objective)
            continue
        found = place_chain(chain, objective)
        assert stage_violations(chain, found.stages, found.order) == []
        assert sorted(found.order) == list(range(len(chain.sites)))
        value = cost_of_stages(chain, found.stages, found.order).value(objective)
        assert found.report.objective == value == pytest.approx(best, rel=1e-9)
        assert found.report.status == "optimal"
    return best


def test_stages_equal_enumeration() -> None:
    legal = [math.isfinite(_case(seed)) for seed in range(18)]
    assert sum(legal) >= 9


@pytest.mark.long
def test_stages_equal_enumeration_on_200_instances() -> None:
    for seed in range(200):
        _case(1000 + seed)


def _against_program(seed: int) -> None:
    chain = hard_chain(seed, 12, 3, (1.2, 1.6)[seed % 2], 1.0)
    if seed % 3 == 2:
        chain = _banned(chain, seed)
    objective, any_order = OBJECTIVES[seed % 4], seed % 8 < 4
    try:
        path = place_chain(chain, objective, any_order=any_order).report
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            place_chain(chain, objective, any_order=any_order, solver="highs")
        return
    program = place_chain(chain, objective, any_order=any_order, solver="highs").report
    assert (program.solver, program.status, program.gap) == ("highs", "optimal", 0.0)
    assert path.solver == "stages" and path.objective == pytest.approx(program.objective, rel=1e-9)


def test_stages_equal_the_whole_program() -> None:
    for seed in range(12):
        _against_program(seed)


@pytest.mark.long
def test_stages_equal_the_whole_program_on_60_instances() -> None:
    for seed in range(60):
        _against_program(100 + seed)


@pytest.mark.parametrize("any_order", [False, True])
def test_200_operators_on_8_unequal_devices_within_two_seconds(any_order: bool) -> None:
    for seed, objective in itertools.product((0, 1), OBJECTIVES):
        begun = time.process_time()
        report = place_chain(hard_chain(seed, 200, 8, 1.3, 1.0), objective, any_order=any_order).report
        assert time.process_time() - begun < 2
        assert report.status == "optimal" and report.gap == 0.0


def test_all_orders_cost_no_more_than_the_given_one() -> None:
    chain = hard_chain(1, 40, 6, 1.6, 2.0)
    for objective in OBJECTIVES:
        given, free = (place_chain(chain, objective, any_order=a).report.objective for a in (False, True))
        assert free < given


def test_a_budget_that_ends_gives_the_order_as_given_with_a_bound() -> None:
    chain = hard_chain(0, 200, 8, 1.3, 1.0)
    for objective in OBJECTIVES:
        report = place_chain(chain, objective, budget_s=1e-4).report
        given = place_chain(chain, objective, any_order=False).report.objective
        best = place_chain(chain, objective).report.objective
        assert report.objective == given and report.status == "feasible"
        assert 0 < report.bound <= best


def test_equal_sites_share_nodes() -> None:
    assert len(in_any_order([8]).kind) == 8
    assert len(in_any_order([1] * 8).kind) == 8 * 2**7
    for counts in ([8], [1] * 5, [2, 1, 3]):
        assert len(in_any_order(counts).kind) == count_all(counts)


def test_the_report_says_which_orders_were_searched() -> None:
    few, many = hard_chain(0, 20, 4, 1.5, 1.0), hard_chain(0, 20, 24, 3.0, 1.0)
    assert place_chain(few).report.version == "shortest paths, all orders"
    assert place_chain(few, any_order=False).report.version == "shortest paths, given order"
    assert place_chain(many).report.version == "shortest paths, given order"
    assert place_chain(many).order == tuple(range(24))


def _on_hull(points: np.ndarray, slack: float) -> tuple[float, float]:
    """Least product of points by weighed sums whose bounds are `slack` too low."""

    def solve(a: float, b: float, left_s: float | None) -> Corner[int]:
        sums = a * points[:, 0] + b * points[:, 1]
        at = int(np.argmin(sums))
        return Corner(at, *points[at], bound=float(sums[at]) * (1 - slack))

    best = least_product_on_hull(solve)
    assert best.value == points[best.found].prod()
    return best.value, best.bound


def test_the_least_product_lies_on_the_hull() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        points = rng.lognormal(0, 1, (200, 2)) if seed % 2 else np.floor(rng.uniform(1, 9, (40, 2)))
        least = points.prod(axis=1).min()
        assert _on_hull(points, 0.0) == pytest.approx((least, least), rel=1e-9)
        value, bound = _on_hull(points, 0.01)
        assert bound <= least <= value <= least * 1.05 and bound >= least * 0.9
    assert _on_hull(np.array([[0.0, 3.0], [1.0, 1.0]]), 0.0) == (0.0, 0.0)


def test_a_solver_that_stops_leaves_the_corner_of_the_lines_as_bound() -> None:
    def solve(a: float, b: float, left_s: float | None) -> Corner[str]:
        if a and b:
            raise SolverError("out of time")
        return Corner("left", 1.0, 8.0, 1.0) if a else Corner("right", 8.0, 2.0, 2.0)

    best = least_product_on_hull(solve)
    assert (best.found, best.value, best.bound) == ("left", 8.0, 2.0)
