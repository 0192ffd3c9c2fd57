"""The search over paths against complete enumeration and the whole program."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim.errors import InfeasibleError
from hwsim.mapping.placement.place import place_graph
from hwsim.mapping.placement.problem import Shared, cost_of, violations
from hwsim.mapping.placement.unroll import unrolled_problem
from tests.mapping.placement_cases import enumerate_graph, random_graph


def _same(report: Any, value: float) -> None:
    assert report.status == "optimal" and report.gap == 0.0
    assert report.objective == pytest.approx(value, rel=1e-7)


def _path_case(seed: int) -> None:
    """Sums and products over unfolded graphs go by paths, and what they say is the enumeration's word."""
    rng = np.random.default_rng(seed)
    shape = [(5, 3, 1), (4, 2, 2), (6, 2, 1), (4, 3, 2)][seed % 4]
    problem = random_graph(rng, *shape, tight=(0.4, 0.45, 0.6, 0.8)[seed % 4], uniform=seed % 2 == 0)
    if seed % 5 == 0:
        problem = replace(problem, shared=(Shared("tied", 3.0, (0, 2)),))
    objective = ("energy", "latency", "edp")[seed % 3]
    best = enumerate_graph(problem, objective)
    if math.isinf(best):
        with pytest.raises(InfeasibleError):
            place_graph(problem, objective)
        return
    found = place_graph(problem, objective)
    _same(found.report, best)
    assert found.report.solver == "paths" and violations(problem, found.choice) == []


def test_paths_equal_enumeration() -> None:
    for seed in range(8):
        _path_case(seed)


@pytest.mark.long
def test_paths_equal_enumeration_on_300_instances() -> None:
    for seed in range(300):
        _path_case(2000 + seed)


@pytest.mark.parametrize("memories", [1, 2, 3])
def test_paths_equal_the_whole_program_where_memories_are_full(memories: int) -> None:
    problem = random_graph(np.random.default_rng(memories), 24, 3, 3, tight=0.5)
    need = 17.0 * len(problem.items)
    rooms = tuple(
        replace(s, memory_bytes=s.memory_bytes if k < memories else need) for k, s in enumerate(problem.sites)
    )
    problem = replace(problem, sites=rooms)
    for objective in ("latency", "energy", "edp"):
        paths, whole = place_graph(problem, objective), place_graph(problem, objective, solver="highs")
        assert (paths.report.solver, whole.report.solver) == ("paths", "highs")
        assert paths.report.status == "optimal" and violations(problem, paths.choice) == []
        assert paths.report.objective == pytest.approx(whole.report.objective, rel=1e-9)


def test_equal_operators_do_not_multiply_paths() -> None:
    layers = random_graph(np.random.default_rng(4), 2, 2, 2, tight=0.6, copies=24)
    problem = unrolled_problem(replace(layers, shared=()))
    begun = time.process_time()
    found = place_graph(problem)
    assert found.report.status == "optimal" and found.report.solver == "paths"
    assert time.process_time() - begun < 5


def test_the_product_is_proved_where_a_memory_is_full() -> None:
    problem = random_graph(np.random.default_rng(2), 40, 3, 3, tight=0.6)
    rooms = (problem.sites[0], *(replace(s, memory_bytes=1e6) for s in problem.sites[1:]))
    problem = replace(problem, sites=rooms)
    begun = time.process_time()
    found = place_graph(problem, "edp")
    assert found.report.status == "optimal" and violations(problem, found.choice) == []
    assert time.process_time() - begun < 6
    for other in ("latency", "energy"):
        cost = cost_of(problem, place_graph(problem, other).choice)
        assert cost.value("edp") >= found.report.objective * (1 - 1e-9)
