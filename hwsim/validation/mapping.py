"""Exact cases of tilings: ``specs.json`` machines, ``count_checks.json`` fixed mappings, ``optimum.json`` optima.

Counts and cycles must be equal, energies to 1e-9. Where a case lists the least energy among the fewest cycles, a
lower one that is legal at the same cycles also passes and is shown: the list was then not the minimum. Cycles that
are one off only because the list rounded an exact integer up in floating point pass too, and are shown
(`float_cycles`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.mapping.candidates import Options
from hwsim.mapping.counts import count
from hwsim.mapping.legality import check, violations
from hwsim.mapping.machine import TENSORS, Level, Machine
from hwsim.mapping.optimize import best_tiling
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.schema.malformed import read_json, reading

ENERGY_TOLERANCE: Final = 1e-9
_OPTIMA: Final = {"energy": "min_energy", "latency": "min_cycles_then_energy", "edp": "min_EDP"}
_SPEC: Final = ("rf_words", "glb_words", "pes", "e_mac", "e_rf", "e_glb", "e_dram")


def validate_mapping(folder: Path, *, optima: bool = True, solver: str = "auto") -> dict[str, Any]:
    """Deviations of every count check and every optimum of a folder.

    Raises InputError where a file is missing or malformed.
    """
    with reading(folder / "specs.json"):
        machines = {name: machine_of_spec(name, spec) for name, spec in _read(folder, "specs.json").items()}
    if not machines:
        raise InputError("specs.json lists no machine", where=str(folder / "specs.json"))
    counts = [check_counts(machines, case, i) for i, case in enumerate(_cases(folder, "count_checks.json"))]
    cases = _cases(folder, "optimum.json") if optima else []
    found = [row for case in cases for row in check_optimum(machines, case, solver)]
    return {
        "schema": "hwsim/validate-mapping@1",
        "folder": str(folder),
        "count_checks": counts,
        "optima": found,
        "passed": all(row["passed"] for row in (*counts, *found)),
    }


def _read(folder: Path, name: str) -> dict[str, Any]:
    data = read_json(folder / name, "the folder holds specs.json, count_checks.json and optimum.json")
    if not isinstance(data, dict):
        raise InputError(f"{name} holds an object", where=str(folder / name), seen=type(data).__name__)
    return data


def _cases(folder: Path, name: str) -> list[Mapping[str, Any]]:
    cases = _read(folder, name).get("cases")
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise InputError(f"{name} lists its cases under `cases`", where=str(folder / name), seen=repr(cases)[:60])
    return cases


def machine_of_spec(name: str, spec: Mapping[str, Any]) -> Machine:
    """The three-level machine of one entry of ``specs.json``. Raises InputError."""
    missing = [key for key in _SPEC if not isinstance(spec.get(key), int | float)]
    if missing:
        raise InputError(f"machine {name} lacks {', '.join(missing)}", where=f"specs.json: {name}", fix="give numbers")

    def rate(key: str) -> float:
        value = spec.get(key, math.inf)
        return float(value) if isinstance(value, int | float) else math.inf

    shared = bool(spec.get("shared_rw_bandwidth", True))

    def level(title: str, short: str, words: float, bandwidth: float, fanout: int = 1) -> Level:
        pj = float(spec[f"e_{short}"])
        return Level(title, words, pj, pj, fanout, "MNK", bandwidth, bandwidth, shared)

    return Machine(
        name,
        (
            level("RF", "rf", spec["rf_words"], rate("bw_rf_words_per_cycle"), int(spec["pes"])),
            level("GLB", "glb", spec["glb_words"], rate("bw_glb_words_per_cycle")),
            level("DRAM", "dram", math.inf, rate("bw_dram_words_per_cycle")),
        ),
        mac_energy=float(spec["e_mac"]),
        word_bits=float(spec.get("word_bits", 16)),
    )


def _machine(machines: Mapping[str, Machine], case: Mapping[str, Any]) -> Machine:
    name = case.get("spec", next(iter(machines)))
    if name not in machines:
        raise InputError(f"no machine {name!r} in specs.json", seen=repr(name))
    return machines[name]


def check_counts(machines: Mapping[str, Machine], case: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Deviations of one fixed mapping; `wrong` names each count that differs with both values."""
    machine = _machine(machines, case)
    try:
        m, n, k = case["shape_MNK"]
        gemm = Gemm(m, n, k, name=f"case {index}")
        tiling = tiling_of_case(case)
        check(machine, gemm, tiling)
        counts = count(machine, gemm, tiling)
        wrong = _differences(machine, counts, case["accesses"])
        cycles, energy = int(case["cycles"]), float(case["energy"])
    except (KeyError, TypeError) as error:
        raise InputError(f"count check {index} lacks {error}", where="count_checks.json") from None
    deviation = abs(float(counts.energy) / energy - 1)
    off = int(counts.cycles) - cycles
    rounded = off != 0 and float_cycles(machine, counts) == cycles
    return {
        "name": f"{index} {'x'.join(str(e) for e in gemm.extents)}",
        "wrong": wrong,
        "cycles": off,
        "energy": deviation,
        "rounded": rounded,
        "passed": not wrong and (off == 0 or rounded) and deviation <= ENERGY_TOLERANCE,
    }


def float_cycles(machine: Machine, counts: Any) -> int:
    """Cycles as a slow-down of compute in floating point: the sum of each tensor's rates over the port's rate.

    Equal to ``ceil(max of parts)`` but for rounding noise, which turns an exact integer into the next one. That
    timeloop-model computes like this is inferred from its listed values, not read in its source.
    """
    compute = counts.cycles_by["compute"]
    worst = float(compute)
    for index, level in enumerate(machine.levels):
        words = [int(array[index][v]) for array in (counts.reads, counts.fills, counts.updates) for v in range(3)]
        asked = sum(w / compute for w in words)
        if math.isfinite(level.read_words_per_cycle) and asked > level.read_words_per_cycle:
            worst = max(worst, float(compute / (level.read_words_per_cycle / asked)))
    return math.ceil(worst)


def tiling_of_case(case: Mapping[str, Any]) -> Tiling:
    """The fixed mapping of a count check."""
    return Tiling.from_dict(
        {
            "temporal": [case["rf_temporal"], case["glb_temporal"], case["dram_temporal"]],
            "spatial": [case["spatial"], [1, 1, 1]],
            "order_outer_to_inner": ["MNK", case["glb_order_outer_to_inner"], case["dram_order_outer_to_inner"]],
            "keep": case.get("keep", ["ABZ"] * 3),
        }
    )


def _differences(machine: Machine, counts: Any, listed: Mapping[str, Any]) -> list[str]:
    wrong = []
    for index, level in enumerate(machine.levels):
        for v, tensor in enumerate(TENSORS):
            for kind in ("reads", "fills", "updates"):
                mine, theirs = int(getattr(counts, kind)[index][v]), listed[level.name][tensor][kind]
                if mine != theirs:
                    wrong.append(f"{level.name} {tensor} {kind}: {mine}, listed {theirs}")
    return wrong


def check_optimum(machines: Mapping[str, Machine], case: Mapping[str, Any], solver: str) -> list[dict[str, Any]]:
    """One row an objective: relative deviations of the optimum found, its proof and wall seconds."""
    machine = _machine(machines, case)
    try:
        gemm = Gemm(case["M"], case["N"], case["K"], name=str(case["name"]))
        listed = {objective: case[key] for objective, key in _OPTIMA.items() if key in case}
    except KeyError as error:
        raise InputError(f"an optimum lacks {error}", where="optimum.json") from None
    return [_optimum_row(machine, gemm, objective, best, solver) for objective, best in listed.items()]


def _optimum_row(
    machine: Machine, gemm: Gemm, objective: str, listed: Mapping[str, Any], solver: str
) -> dict[str, Any]:
    begun = time.perf_counter()
    found = best_tiling(machine, gemm, objective, options=Options("never"), solver=solver)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    energy = found.energy_pj / listed["energy"] - 1
    cycles = found.cycles / listed["cycles"] - 1
    deviation = {"energy": energy, "latency": cycles, "edp": found.edp / (listed["energy"] * listed["cycles"]) - 1}
    off = deviation[objective]
    passed = abs(off) <= ENERGY_TOLERANCE and (objective != "latency" or energy <= ENERGY_TOLERANCE)
    legal = not violations(machine, gemm, found.tiling)
    return {
        "name": gemm.name,
        "objective": objective,
        "deviation": off,
        "energy": energy,
        "cycles": cycles,
        "status": found.report.status,
        "gap": found.report.gap,
        "solver": found.report.solver,
        "seconds": seconds,
        "passed": passed and legal and found.report.status == "optimal",
    }
