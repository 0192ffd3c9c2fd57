"""What more of a part buys: exact differences, least steps that are least, nothing where nothing binds."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from hwsim.errors import SolverError
from hwsim.mapping import optimize
from hwsim.mapping.describe.whatif import Probe, parts_of, what_more_buys
from hwsim.mapping.enumerate import enumerate_best
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Gemm
from hwsim.mapping.protocol import Decision, claim
from hwsim.mapping.tiling.result import TilingResult
from tests.mapping.reference import small

GEMM = Gemm(4, 6, 8)


@lru_cache
def best_tiling(machine: Machine, gemm: Gemm, objective: str = "edp") -> TilingResult:
    return optimize.best_tiling(machine, gemm, objective)


def _solve(objective: str = "edp") -> Any:
    def solve(machine: Machine, budget_s: float | None) -> Decision:
        del budget_s
        found = best_tiling(machine, GEMM, objective)
        return Decision(found.tiling, found.report)

    return solve


def _rows(machine: Machine, objective: str = "edp") -> dict[str, dict[str, Any]]:
    probe = Probe(machine, GEMM, objective, _solve(objective), True)
    return {f"{row['part']} {row['kind']}": row for row in what_more_buys(probe)}


@pytest.mark.parametrize("objective", ["edp", "energy"])
def test_the_smallest_step_is_the_smallest_by_enumeration(objective: str) -> None:
    """Every capacity between today and the step found is tried by complete enumeration."""
    machine = small(rf=12, glb=60, pes=4)
    rows = _rows(machine, objective)
    word = machine.word_bits / 8
    today = enumerate_best(machine, GEMM, objective)[1]
    base = float(today.energy) * (float(today.cycles) if objective == "edp" else 1.0)

    def value(words: float, level: str) -> float:
        counts = enumerate_best(machine.with_level(level, words=words), GEMM, objective)[1]
        return float(counts.energy) * (float(counts.cycles) if objective == "edp" else 1.0)

    tried = 0
    for level in ("rf", "glb"):
        row = rows[f"{level} capacity"]
        now = machine.levels[machine.level(level)].words
        assert row["now"] == now * word
        if row["binds"]:
            step = int(row["smallest"]["step"] / word)
            assert value(now + step, level) < base * (1 - 1e-9)
            assert value(now + step - 1, level) == pytest.approx(base, rel=1e-12)
            assert row["smallest"]["objective_share"] == pytest.approx(value(now + step, level) / base - 1, rel=1e-9)
            tried += 1
    assert tried


def test_more_never_hurts_the_objective_and_free_is_the_most() -> None:
    for row in _rows(small(rf=12, glb=60, pes=4)).values():
        assert row["free"]["objective_share"] <= 0 and row["free"]["proved"]
        for change in (row["one_more"], row["smallest"]):
            if change is not None and row["kind"] != "units":
                assert row["free"]["objective_share"] - 1e-12 <= change["objective_share"] <= 0
        if row["binds"] is False:
            assert row["one_more"]["objective_share"] == 0 and row["smallest"] is None


def test_differences_are_those_of_two_separate_runs() -> None:
    machine = small(rf=12, glb=60, pes=4)
    row = _rows(machine)["dram port"]
    assert row["binds"]
    now, then = best_tiling(machine, GEMM), best_tiling(_faster(machine, row["one_more"]["step"]), GEMM)
    assert row["one_more"]["cycles"] == then.cycles - now.cycles
    assert row["one_more"]["energy_j"] == pytest.approx((then.energy_pj - now.energy_pj) * 1e-12, abs=1e-24)
    edp = (then.edp - now.edp) * 1e-12 / machine.clock_hz
    assert row["one_more"]["edp_js"] == pytest.approx(edp, rel=1e-9)


def _faster(machine: Machine, bytes_per_s: float) -> Machine:
    level = machine.levels[-1]
    more = bytes_per_s / (machine.clock_hz * machine.word_bits / 8)
    return machine.with_level(level.name, read_words_per_cycle=level.read_words_per_cycle + more)


def test_enough_is_enough_and_less_is_not() -> None:
    """The rate that the port without limit would use gives the same cycles; clearly less does not."""
    machine = small(rf=12, glb=60, pes=4)
    row = _rows(machine, "latency")["dram port"]
    free = best_tiling(machine.with_level("dram", read_words_per_cycle=math.inf), GEMM, "latency")
    rate = row["free"]["enough"] / (machine.clock_hz * machine.word_bits / 8)
    assert best_tiling(machine.with_level("dram", read_words_per_cycle=rate), GEMM, "latency").cycles == free.cycles


def test_parts_of_split_ports_latches_and_last_level() -> None:
    machine = small()
    glb = replace(machine.levels[1], shared_port=False, write_words_per_cycle=2.0)
    machine = machine.with_(levels=(machine.levels[0], glb, machine.levels[2]))
    names = [f"{p.name} {p.kind}" for p in parts_of(machine, GEMM)]
    assert names == ["dram port", "glb read port", "glb write port", "glb capacity", "rf capacity", "rf units units"]
    latched = machine.with_level("rf", words=3)
    assert "rf capacity" not in [f"{p.name} {p.kind}" for p in parts_of(latched, GEMM)]


def test_a_budget_that_ends_is_said_not_guessed() -> None:
    machine = small(rf=12, glb=60, pes=4)
    probe = Probe(machine, GEMM, "edp", _solve(), True, deadline=time.perf_counter() - 1)
    assert what_more_buys(probe) == []

    def no_answer(changed: Machine, budget_s: float | None) -> Decision:
        if changed == machine:
            return _solve()(changed, None)
        raise SolverError("out of time")

    rows = what_more_buys(Probe(machine, GEMM, "edp", no_answer, True))
    assert rows and all(row["binds"] is None and row["one_more"] is None and row["free"] is None for row in rows)


def test_an_unproved_answer_never_says_that_nothing_binds() -> None:
    machine = small(rf=12, glb=60, pes=4)
    tiling = best_tiling(machine, GEMM).tiling
    same = Probe(machine, GEMM, "edp", lambda m, left: Decision(tiling, claim("lazy", 0.0)), True)
    for row in what_more_buys(same):
        assert row["binds"] is None


def test_no_energies_no_energy_differences() -> None:
    probe = Probe(small(rf=12, glb=60, pes=4), GEMM, "latency", _solve("latency"), False)
    for row in what_more_buys(probe):
        assert row["one_more"]["energy_j"] is None and row["one_more"]["edp_js"] is None
