"""Access counts of fixed tilings: laws, and the array form against the scalar form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InfeasibleError, InputError
from hwsim.mapping.counts import count, count_nests
from hwsim.mapping.enumerate import nests
from hwsim.mapping.legality import check, violations
from hwsim.mapping.problem import Gemm, Tiling
from tests.mapping.reference import g3, small

EVEN = Tiling(
    temporal=((2, 1, 2), (2, 2, 1), (2, 3, 4)),
    spatial=((2, 2, 1), (1, 1, 1)),
    order=("MNK", "NMK", "KMN"),
    keep=("ABZ", "ABZ", "ABZ"),
)
GEMM = Gemm(16, 12, 8)


def test_counts_by_hand() -> None:
    # rf tile (2,1,2); spread (2,2,1); buffer loops (2,2,1) with M innermost (K trivial); DRAM loops K outer, N inner
    c = count(small(), GEMM, EVEN)
    # A skips N: the buffer's innermost non-unit loop is M, so only the spread over N is shared
    assert c.reads[1][0] == 16 * 8 * 12 // 2
    # B skips M: reuse over tile 2 x spread 2 x buffer loop 2 = 8 rows
    assert c.reads[1][1] == 12 * 8 * 16 // 8
    # Z skips K: every K tile of 2 updates the buffer once
    assert c.updates[1][2] == 16 * 12 * 8 // 2
    # into the buffer: A is free along DRAM's innermost loop N, tile 4 x loop 3 = all of N
    assert c.reads[2][0] == 16 * 8


@settings(max_examples=25)
@given(st.sampled_from([2, 3, 4, 6]), st.sampled_from([2, 4, 5]), st.sampled_from([1, 2, 6]))
def test_arrays_equal_scalars_and_compulsory_holds(m: int, n: int, k: int) -> None:
    machine, gemm = small(), Gemm(m, n, k)
    for nest, _ in list(nests(machine, gemm, 10**6))[:3]:
        many = count_nests(machine, gemm, nest)
        floor = np.array(gemm.sizes)
        moved = many.reads[-1] + many.updates[-1]
        assert (moved >= floor[:, None]).all()  # law: nothing below compulsory traffic
        assert (many.cycles >= gemm.macs / machine.multipliers).all()
        for at in (0, nest.temporal.shape[2] // 2, nest.temporal.shape[2] - 1):
            one = count_nests(machine, gemm, _pick(nest, at))
            assert np.array_equal(one.reads, many.reads[:, :, at])
            assert float(one.energy) == pytest.approx(float(many.energy[at]), rel=1e-15)


def _pick(nest: object, at: int) -> object:
    from hwsim.mapping.counts import Nest

    fields = (nest.temporal, nest.spatial, nest.inner, nest.keep)  # type: ignore[attr-defined]
    return Nest(*(f[..., at] for f in fields))


def test_batch_scales_counts() -> None:
    one, many = count(g3(), GEMM, EVEN), count(g3(), Gemm(16, 12, 8, batch=5), EVEN)
    assert np.array_equal(many.reads, 5 * one.reads)
    assert float(many.energy) == pytest.approx(5 * float(one.energy))


def test_legality_names_level_tensor_and_shortfall() -> None:
    big = Tiling(((16, 12, 8), (1, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 1)), EVEN.order, EVEN.keep)
    with pytest.raises(InfeasibleError) as error:
        check(g3(), GEMM, big)
    assert error.value.budget["rf capacity"] == 16 * 8 + 8 * 12 + 16 * 12 - 64
    assert "rf" in str(error.value) and "most for Z" in str(error.value)
    assert violations(small(), GEMM, EVEN) == []


@pytest.mark.parametrize("bad", [0, -3, 2.5, True])
def test_a_gemm_is_positive_integers(bad: object) -> None:
    with pytest.raises(InputError):
        Gemm(bad, 2, 2)  # type: ignore[arg-type]


def test_tiling_round_trip() -> None:
    assert Tiling.from_dict(EVEN.to_dict()) == EVEN
    with pytest.raises(InputError):
        Tiling.from_dict({"temporal": [[1, 2]]})
