"""Layers on stages: equal to brute force, with memory, ends and different devices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InfeasibleError
from hwsim.mapping.parallelism.stages import Loads, balance, stage_bytes, stage_loads


def equal(stages: int, layers: int, **ends: Any) -> Loads:
    shape = (stages, layers)
    return Loads(np.ones(shape), np.ones(shape), np.full(stages, np.inf), **ends)


def brute_force(loads: Loads) -> float:
    stages, layers = loads.load.shape
    best = np.inf
    for inner in itertools.combinations(range(1, layers), stages - 1):
        cuts = (0, *inner, layers)
        if np.all(stage_bytes(loads, cuts) <= loads.capacity_bytes):
            best = min(best, float(stage_loads(loads, cuts).max()))
    return best


@st.composite
def random_loads(draw: st.DrawFn) -> Loads:
    """Up to 4 different devices and 9 layers; ties are common because times are small integers half of the time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stages = draw(st.integers(1, 4))
    layers = draw(st.integers(stages, 9))
    shape = (stages, layers)
    whole = draw(st.booleans())
    load = rng.integers(1, 4, shape).astype(float) if whole else rng.random(shape)
    capacity = rng.random(stages) * draw(st.sampled_from([2.0, 4.0, 100.0]))
    ends = {"first": (float(rng.random()), 0.1), "last": (float(rng.random()), 0.2)}
    return Loads(load, rng.random(shape), capacity, **ends, handover=draw(st.sampled_from([0.0, 0.05])))


@settings(max_examples=150, deadline=None)
@given(random_loads())
def test_the_partition_is_that_of_brute_force(loads: Loads) -> None:
    best = brute_force(loads)
    if not np.isfinite(best):
        with pytest.raises(InfeasibleError):
            balance(loads)
        return
    found = balance(loads)
    assert found.bottleneck == pytest.approx(best, rel=1e-12)
    assert stage_loads(loads, found.cuts).max() == pytest.approx(best, rel=1e-12)
    assert np.all(stage_bytes(loads, found.cuts) <= loads.capacity_bytes * (1 + 1e-9))
    assert (found.report.status, found.report.gap) == ("optimal", 0.0)


@pytest.mark.parametrize(
    ("layers", "stages", "slowest"), [(80, 8, 10), (61, 4, 16), (61, 8, 8), (126, 4, 32), (3, 3, 1), (5, 1, 5)]
)
def test_equal_layers_need_the_ceiling(layers: int, stages: int, slowest: int) -> None:
    found = balance(equal(stages, layers))
    assert found.bottleneck == slowest
    assert sum(found.counts) == layers
    assert min(found.counts) >= 1


def test_a_heavy_head_gets_fewer_layers() -> None:
    found = balance(equal(4, 32, last=(3.0, 0.0)))
    assert found.counts[-1] < min(found.counts[:-1])
    assert found.bottleneck == 9


def test_a_device_twice_as_fast_gets_twice_the_layers() -> None:
    load = np.stack([np.full(30, 1.0), np.full(30, 0.5)])
    found = balance(Loads(load, np.zeros((2, 30)), np.full(2, np.inf)))
    assert found.counts == (10, 20)


def test_memory_moves_layers_to_slower_devices() -> None:
    load = np.stack([np.full(30, 1.0), np.full(30, 0.5)])
    found = balance(Loads(load, np.ones((2, 30)), np.array([30.0, 12.0])))
    assert found.counts == (18, 12)


def test_too_little_memory_says_how_much_is_missing() -> None:
    loads = Loads(np.ones((2, 10)), np.ones((2, 10)), np.full(2, 4.0))
    with pytest.raises(InfeasibleError, match="no partition of 10 layers into 2 stages") as error:
        balance(loads)
    assert error.value.budget["short_bytes"] == pytest.approx(1.0)


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="leave some without any"):
        balance(equal(4, 3))
