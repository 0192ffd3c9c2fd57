"""The join search against complete enumeration, the integer program and the limits of time."""

from __future__ import annotations

import math
import random

import pytest

from hwsim.errors import InfeasibleError, InputError
from hwsim.mapping.candidates import Options
from hwsim.mapping.enumerate import enumerate_best
from hwsim.mapping.legality import violations
from hwsim.mapping.machine import Level, Machine
from hwsim.mapping.optimize import best_tiling
from hwsim.mapping.problem import Counts, Gemm
from hwsim.mapping.tiling.result import TilingResult
from tests.mapping.reference import g3, small

EVEN_ONLY = Options("never")
ENUMERATED = 20_000  # nests of one case that are still quick to try


def random_machine(rng: random.Random) -> Machine:
    """Two to four levels, with bypass, ports, double buffers, element widths and split memories at random."""
    count = rng.choice([2, 3, 3, 4])
    levels = []
    for i in range(count):
        last = i == count - 1
        levels.append(
            Level(
                f"l{i}",
                math.inf if last else rng.choice([3, 6, 10, 16, 24]) * (1, 8, 40)[min(i, 2)],
                rng.choice([1.0, 2.5, 6.0]) * 4**i,
                rng.choice([1.0, 2.0, 6.0]) * 4**i,
                fanout=1 if last else rng.choice([1, 1, 2, 4, 6]),
                dims=rng.choice(["MNK", "MNK", "MN", "NK"]),
                read_words_per_cycle=rng.choice([math.inf, 1, 3, 8]),
                write_words_per_cycle=rng.choice([math.inf, 2, 5]),
                shared_port=rng.random() < 0.6,
                double_buffer=rng.random() < 0.25,
                bypass=rng.choice(["", "", "ABZ", "A", "BZ"]) if 0 < i < count - 1 else "",
            )
        )
    widths = rng.choice([(1.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
    machine = Machine("random", tuple(levels), 0.7, widths=widths, drain_reads=rng.random() < 0.3)
    split = count < 4 and rng.random() < 0.5
    return machine.split_level(f"l{count - 2}") if split else machine


def keys(energy: float, cycles: float, objective: str) -> tuple[float, ...]:
    return {"energy": (energy,), "latency": (cycles, energy), "edp": (energy * cycles,)}[objective]


def compare(machine: Machine, gemm: Gemm) -> int:
    """Objectives on which the search was held against complete enumeration."""
    compared = 0
    for objective in ("energy", "latency", "edp"):
        try:
            _, exact, _ = enumerate_best(machine, gemm, objective, ENUMERATED)
        except InputError:
            return compared
        except InfeasibleError:
            with pytest.raises(InfeasibleError):
                best_tiling(machine, gemm, objective, options=EVEN_ONLY)
            return compared
        found = best_tiling(machine, gemm, objective, options=EVEN_ONLY)
        assert violations(machine, gemm, found.tiling) == []
        assert found.report.status == "optimal"
        mine, theirs = figures(found), (float(exact.energy), float(exact.cycles))
        assert keys(*mine, objective) == pytest.approx(keys(*theirs, objective), rel=1e-9), (machine, gemm, objective)
        compared += 1
    return compared


def figures(found: TilingResult | Counts) -> tuple[float, float]:
    counts = found.counts if isinstance(found, TilingResult) else found
    return float(counts.energy), float(counts.cycles)


def campaign(seed: int, cases: int) -> int:
    rng = random.Random(seed)
    return sum(
        compare(random_machine(rng), Gemm(*(rng.choice([1, 2, 3, 4, 6]) for _ in range(3)))) for _ in range(cases)
    )


def test_random_machines_equal_enumeration() -> None:
    assert campaign(20, 16) >= 9


@pytest.mark.long
def test_many_random_machines_equal_enumeration() -> None:
    assert campaign(21, 400) >= 400


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
@pytest.mark.parametrize("partial", ["never", "always"])
def test_search_equals_integer_program(objective: str, partial: str) -> None:
    pytest.importorskip("highspy")
    gemm, options = Gemm(14, 24, 9), Options(partial)  # type: ignore[arg-type]
    found = best_tiling(small(), gemm, objective, options=options)
    program = best_tiling(small(), gemm, objective, options=options, solver="highs")
    if program.report.status == "optimal":
        assert keys(*figures(found), objective)[0] <= keys(*figures(program), objective)[0] * (1 + 1e-9)
    if partial == "never":
        assert keys(*figures(found), objective) == pytest.approx(keys(*figures(program), objective), rel=1e-9)


def test_uneven_and_bypass_at_real_sizes() -> None:
    even, gemm = g3(), Gemm(2048, 4096, 4096)
    split = even.with_level("glb", bypass="ABZ").split_level("glb")
    found = best_tiling(split, gemm, "energy")
    assert found.report.status == "optimal"
    assert violations(split, gemm, found.tiling) == []
    assert found.energy_pj < best_tiling(even, gemm, "energy").energy_pj


def test_short_budget_gives_a_legal_tiling_and_a_true_bound() -> None:
    machine, gemm = g3().with_level("glb", bypass="ABZ").split_level("glb"), Gemm(512, 768, 1024)
    hurried = best_tiling(machine, gemm, "edp", budget_s=1e-6)
    proved = best_tiling(machine, gemm, "edp")
    assert hurried.report.status == "feasible" and 0 < hurried.report.gap < 1
    assert violations(machine, gemm, hurried.tiling) == []
    assert hurried.report.bound <= proved.edp * (1 + 1e-12) <= hurried.edp * (1 + 1e-9)


@pytest.mark.parametrize(("tensor", "innermost"), [("weights", "M"), ("inputs", "N"), ("outputs", "K")])
def test_a_stationary_dataflow_is_kept_and_never_cheaper(tensor: str, innermost: str) -> None:
    gemm = Gemm(48, 64, 96)
    fixed = small().with_level("glb", stationary=innermost)
    found = best_tiling(fixed, gemm, "energy")
    assert violations(fixed, gemm, found.tiling) == [], tensor
    assert found.energy_pj >= best_tiling(small(), gemm, "energy").energy_pj * (1 - 1e-12)
    with pytest.raises(InputError, match="restrict"):
        best_tiling(fixed, gemm, "energy", solver="highs")


def test_a_forbidden_loop_is_not_used() -> None:
    fixed = small().with_level("glb", loops="MN")
    found = best_tiling(fixed, Gemm(48, 64, 96), "edp")
    assert found.tiling.temporal[1][2] == 1
    assert violations(fixed, Gemm(48, 64, 96), found.tiling) == []


def test_weighted_objective_equals_integer_program() -> None:
    gemm, text = Gemm(12, 16, 24), "0.7*energy+30*latency"
    found = best_tiling(small(), gemm, text, options=EVEN_ONLY)
    program = best_tiling(small(), gemm, text, options=EVEN_ONLY, solver="highs")
    assert found.report.objective == pytest.approx(0.7 * found.energy_pj + 30 * found.cycles, rel=1e-12)
    assert found.report.objective == pytest.approx(program.report.objective, rel=1e-9)
