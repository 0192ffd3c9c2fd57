"""Shared pieces of the kernel models against their definitions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwsim.cost.gpu.common import pick, resident, smooth_max, waves

positive = st.floats(1e-9, 1e6)


@given(positive, positive, st.floats(1, 16))
def test_smooth_max_lies_between_maximum_and_sum(a, b, p):
    value = float(smooth_max(a, b, p))
    assert max(a, b) * (1 - 1e-12) <= value <= (a + b) * (1 + 1e-12)


def test_smooth_max_of_equal_parts_is_the_p_norm():
    assert np.isclose(smooth_max(2.0, 2.0, 4.0), 2.0 * 2**0.25)
    assert smooth_max(0.0, 0.0) == 0.0


def test_waves_hard_and_soft():
    assert waves(109, 108, 1.0) == 2.0
    assert np.isclose(waves(109, 108, 0.0), 109 / 108)
    assert waves(10, 108, 0.0) == 1.0  # part of a wave takes the time of a whole block


@given(st.integers(1, 5000), st.integers(1, 200), st.floats(0, 1))
def test_waves_never_beat_perfect_balance(blocks, slots, q):
    assert waves(blocks, slots, q) >= max(blocks / slots, 1.0) - 1e-9


@given(positive, positive)
def test_residency_falls_with_the_working_set(small, more):
    a, b = resident(small, 40.0, 0.5), resident(small + more, 40.0, 0.5)
    assert 0.0 <= b <= a <= 1.0


def test_residency_is_half_where_the_set_fills_its_share():
    assert np.isclose(resident(20.0, 40.0, 0.5), 0.5)


def test_pick_takes_the_chosen_candidate_of_each_row():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert pick(values, np.array([[1], [0]])).tolist() == [2.0, 3.0]
    assert pick(7.0, np.array([[1], [0]])).tolist() == [7.0, 7.0]
