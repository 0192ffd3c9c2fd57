"""The integer program finds what complete enumeration finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InfeasibleError
from hwsim.mapping.candidates import Options
from hwsim.mapping.enumerate import enumerate_best
from hwsim.mapping.legality import violations
from hwsim.mapping.optimize import best_tiling
from hwsim.mapping.problem import Gemm
from tests.mapping.reference import g3, small

EVEN_ONLY = Options("never")
EXTENTS = st.sampled_from([1, 2, 3, 4, 6, 8, 12])


@settings(max_examples=12)
@given(EXTENTS, EXTENTS, EXTENTS, st.sampled_from([6, 12, 20]), st.sampled_from([60, 200]))
def test_program_equals_enumeration(m: int, n: int, k: int, rf: int, glb: int) -> None:
    machine, gemm = small(rf, glb), Gemm(m, n, k)
    for objective in ("energy", "latency", "edp"):
        found = best_tiling(machine, gemm, objective, options=EVEN_ONLY)
        _, exact, _ = enumerate_best(machine, gemm, objective)
        assert found.report.status == "optimal" and found.report.gap == 0.0
        assert violations(machine, gemm, found.tiling) == []
        if objective != "latency":
            mine = found.energy_pj * (found.cycles if objective == "edp" else 1)
            theirs = float(exact.energy) * (float(exact.cycles) if objective == "edp" else 1)
            assert mine == pytest.approx(theirs, rel=1e-9)
        else:
            assert found.cycles == int(exact.cycles)
            assert found.energy_pj == pytest.approx(float(exact.energy), rel=1e-9)


def test_bypass_never_costs_more() -> None:
    gemm = Gemm(8, 12, 6)
    kept = best_tiling(small(), gemm, "energy", options=EVEN_ONLY)
    free = small().with_level("glb", bypass="ABZ")
    better = best_tiling(free, gemm, "energy", options=EVEN_ONLY)
    _, exact, _ = enumerate_best(free, gemm, "energy")
    assert better.energy_pj <= kept.energy_pj
    assert better.energy_pj == pytest.approx(float(exact.energy), rel=1e-9)


@pytest.mark.parametrize(("extents", "glb"), [((3, 8, 8), 40), ((2, 4, 6), 20)])
def test_uneven_tiling_equals_enumeration(extents: tuple[int, int, int], glb: int) -> None:
    even, gemm = small(6, glb), Gemm(*extents)
    split = even.split_level("glb")
    found = best_tiling(split, gemm, "energy", options=EVEN_ONLY)
    _, exact, _ = enumerate_best(split, gemm, "energy")
    assert found.energy_pj == pytest.approx(float(exact.energy), rel=1e-9)
    assert found.energy_pj <= best_tiling(even, gemm, "energy", options=EVEN_ONLY).energy_pj * (1 + 1e-12)
    assert violations(split, gemm, found.tiling) == []


def test_partial_tiles_help_odd_sizes() -> None:
    gemm = Gemm(13, 17, 7)
    even = best_tiling(small(), gemm, "latency", options=EVEN_ONLY)
    odd = best_tiling(small(), gemm, "latency", options=Options("always"))
    assert odd.cycles < even.cycles
    assert violations(small(), gemm, odd.tiling) == []


@pytest.mark.parametrize("solver", ["cbc", "highs", "scipy"])
def test_solvers_agree(solver: str) -> None:
    package = {"cbc": "pulp", "highs": "highspy", "scipy": "scipy"}[solver]
    pytest.importorskip(package)
    found = best_tiling(g3(), Gemm(16, 24, 12), "edp", options=EVEN_ONLY, solver=solver)  # type: ignore[arg-type]
    reference = best_tiling(g3(), Gemm(16, 24, 12), "edp", options=EVEN_ONLY)
    assert found.edp == pytest.approx(reference.edp, rel=1e-9)


def test_nothing_fits_is_infeasible() -> None:
    with pytest.raises(InfeasibleError) as error:
        best_tiling(small(rf=2), Gemm(4, 4, 4))
    assert error.value.budget["shortfall_words"] == 1
    assert "A, B, Z" in str(error.value)
