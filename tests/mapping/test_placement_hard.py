"""Stages over unequal devices, and tensors over any number of tiers, against enumeration and rules of thumb."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hwsim.errors import InfeasibleError
from hwsim.mapping.placement.contiguous import place_chain
from hwsim.mapping.placement.tier_baselines import aware, interleave, nearest_first
from hwsim.mapping.placement.tier_program import place_tiers
from hwsim.mapping.placement.tiers import Link, Phase, Tensor, Tier, TierProblem, tier_violations, time_of
from tests.mapping.placement_cases import enumerate_stages, hard_chain

OBJECTIVES = ("latency", "throughput", "energy", "edp")


def _same(report: Any, value: float) -> None:
    assert report.status == "optimal" and report.gap == 0.0
    assert report.objective == pytest.approx(value, rel=1e-7)


def _cards_case(seed: int) -> None:
    """Tiers of any number, count and rate, any mix of tensors: no legal rule of thumb is faster than the program."""
    rng = np.random.default_rng(seed)
    tiers, tensors = int(rng.integers(2, 5)), int(rng.integers(2, 9))
    sizes, rates = rng.lognormal(2, 1, tensors), np.sort(rng.uniform(5, 300, tiers))[::-1]
    shares = [rng.uniform(0.1, 0.9), *rng.uniform(1.0, 2.0, tiers - 1)]
    cards = [1, *rng.integers(1, 9, tiers - 1).tolist()]
    link = Link("link", float(rng.uniform(5, 60)), tuple(range(tiers)))
    moved = sizes * rng.integers(0, 4, (2, tensors))
    phases = (
        Phase("stream", moved[0], rates, float(rng.uniform(0, 5)), 1.0, (link,)),
        Phase("walk", moved[1], rates, serial=seed % 2 == 1),
    )
    kinds = tuple(Tier(f"t{t}", float(sizes.sum() * shares[t]), cards[t]) for t in range(tiers))
    problem = TierProblem("cards", kinds, tuple(Tensor(f"k{k}", float(s)) for k, s in enumerate(sizes)), phases)
    best = place_tiers(problem).report
    assert best.status == "optimal"
    hot = np.argsort(-moved[1] / sizes, kind="stable").tolist()
    walked = [k for k in hot if moved[1][k] > 0]
    rules = (
        interleave(problem),
        nearest_first(problem),
        nearest_first(problem, hot),
        aware(problem, walked, [k for k in hot if k not in walked]),
    )
    for shares_of in rules:
        if not tier_violations(problem, shares_of):
            assert time_of(problem, shares_of) >= best.objective * (1 - 1e-9)


def test_tiers_are_never_worse_than_greedy_and_interleave() -> None:
    for seed in range(20):
        _cards_case(seed)


@pytest.mark.long
def test_tiers_are_never_worse_than_greedy_and_interleave_on_200_cases() -> None:
    for seed in range(200):
        _cards_case(3000 + seed)


def test_hard_stages_equal_enumeration() -> None:
    for seed in range(12):
        chain = hard_chain(seed, 7, 2 + seed % 2, (1.05, 1.3, 2.0)[seed % 3], (0.1, 1.0, 3.0)[seed % 3])
        for objective in OBJECTIVES:
            best = enumerate_stages(chain, objective)
            if math.isinf(best):
                with pytest.raises(InfeasibleError):
                    place_chain(chain, objective)
            else:
                _same(place_chain(chain, objective).report, best)
