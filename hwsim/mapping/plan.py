"""Map the distinct GEMMs of a workload on a machine and describe the result as one document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from hwsim.errors import InfeasibleError, InputError
from hwsim.ir.platform import Device
from hwsim.mapping import cache
from hwsim.mapping.adapt import machine_of
from hwsim.mapping.describe import operator as describe
from hwsim.mapping.gemms import Work
from hwsim.mapping.machine import TENSORS, Machine
from hwsim.mapping.optimize import cycle_floor, goal_of
from hwsim.mapping.problem import Gemm
from hwsim.mapping.protocol import Decision, costed
from hwsim.mapping.registry import LoadedMapper, load_mapper

LEAST_BUDGET_S: Final = 0.2
# Where a device file gives no energies, near words still have to be preferred over far ones among equal latencies:
# pJ a word of nearest, middle and last level with the ratios of Eyeriss (Chen et al., ISCA 2016). Never reported.
TIE_BREAK_PJ: Final = (1.0, 6.0, 200.0)


def map_workload(
    works: Sequence[Work],
    device: Device,
    *,
    objective: str | None = None,
    mapper: str = "tiling",
    counting: str = "timeloop",
    bypass: bool = False,
    uneven: str | None = None,
    budget_s: float | None = None,
    use_cache: bool = True,
) -> dict[str, Any]:
    """Every distinct GEMM mapped, costed and described.

    Parameters
    ----------
    works: distinct GEMMs with their executions (`hwsim.mapping.works_of`).
    objective: ``energy``, ``latency``, ``edp``; None: edp where the device gives energies, else latency.
    uneven: a memory in which tensors may be tiled at different depths of the loop nest (shown as two halves).
    budget_s: wall seconds for all of them together; None: until proved.

    Raises
    ------
    InfeasibleError: a GEMM does not fit; names level, tensor and shortfall. SolverError: no answer in the budget.
    InputError: unknown names, or an energy objective on a device without energies.
    """
    begun = time.perf_counter()
    loaded = load_mapper(mapper)
    machine = machine_of(device, counting=counting, bypass=bypass)
    machine = machine if uneven is None else machine.split_level(uneven)
    known = machine.mac_energy > 0 or any(level.read_energy > 0 for level in machine.levels)
    objective = objective or ("edp" if known else "latency")
    goal_of(objective)
    if not known:
        machine = _tie_break(machine, objective)
    rows = []
    for index, work in enumerate(works):
        _require_room(device, machine, work.gemm)
        left = None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.0) / (len(works) - index)
        rows.append(_row(machine, work, objective, loaded, left, known, use_cache))
    return {
        "schema": "hwsim/mapping@1",
        "hardware": device.name,
        "objective": objective,
        "mapper": loaded.mapper.name,
        "counting": counting,
        "bypass": bypass,
        "uneven": uneven,
        "machine": describe.machine_of_document(machine, known),
        "operators": rows,
        "total": _total(rows),
        "seconds": time.perf_counter() - begun,
    }


def _tie_break(machine: Machine, objective: str) -> Machine:
    if objective != "latency":
        fix = "add energy: to its memories and compute, or use --objective latency"
        raise InputError(
            f"{machine.name} gives no energies", where=machine.name, seen=f"--objective {objective}", fix=fix
        )
    near, middle, far = TIE_BREAK_PJ
    last = len(machine.levels) - 1
    pj = [near if i == 0 else far if i == last else middle for i in range(last + 1)]
    levels = (replace(item, read_energy=e, write_energy=e) for item, e in zip(machine.levels, pj, strict=True))
    return machine.with_(levels=tuple(levels), mac_energy=near)


def _require_room(device: Device, machine: Machine, gemm: Gemm) -> None:
    """The last level holds every tensor whole."""
    room = float(device.main_memory.size_bytes)
    byte = machine.word_bits / 8
    need = {t: size * gemm.batch * byte for t, size in zip(TENSORS, gemm.sizes, strict=True)}
    total = sum(need.values())
    if total > room:
        largest = max(need, key=lambda t: need[t])
        raise InfeasibleError(
            f"{gemm.name} does not fit in {device.main_memory.name}",
            where=f"{device.name}.{device.main_memory.name}",
            seen=f"{total:.4g} B needed, {total - room:.4g} B short, most for tensor {largest}",
            fix="use a smaller GEMM or a larger memory",
            budget={"needed_bytes": total, "shortfall_bytes": total - room},
        )


def decide(
    machine: Machine, gemm: Gemm, objective: str, loaded: LoadedMapper, budget_s: float | None, use_cache: bool
) -> tuple[Decision, bool]:
    """The mapper's decision, and whether it came from the cache. Only proved or unhurried answers are kept."""
    key = cache.key_of(machine, gemm, objective, loaded.sha256)
    kept = cache.load(key) if use_cache else None
    if kept is not None:
        return kept, True
    limit = None if budget_s is None else max(budget_s, LEAST_BUDGET_S)
    decision = loaded.mapper.map(machine, gemm, objective, limit)
    if use_cache and (budget_s is None or decision.report.status == "optimal"):
        cache.store(key, decision)
    return decision, False


def _row(
    machine: Machine,
    work: Work,
    objective: str,
    loaded: LoadedMapper,
    budget_s: float | None,
    known: bool,
    use_cache: bool,
) -> dict[str, Any]:
    gemm = work.gemm
    decision, cached = decide(machine, gemm, objective, loaded, budget_s, use_cache)
    row = {
        "name": gemm.name,
        "used_by": list(work.used_by),
        "count": work.count,
        "gemm": {"batch": gemm.batch, "m": gemm.m, "n": gemm.n, "k": gemm.k},
        "compulsory": (least := describe.compulsory(machine, gemm)),
        "compulsory_words": sum(least.values()),
        "cycle_floor": cycle_floor(machine, gemm),
        "cached": cached,
    }
    if decision.tiling is None:
        return {**row, **describe.ideal(machine, gemm, objective, decision.report, known)}
    counts, report = costed(machine, gemm, objective, decision)
    return {
        **row,
        **describe.mapped(machine, gemm, decision.tiling, counts, known),
        "report": describe.report_of(report),
    }


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all executions, one after another."""
    energies = [row["energy_j"] for row in rows]
    return {
        "executions": sum(row["count"] for row in rows),
        "cycles": sum(row["cycles"] * row["count"] for row in rows),
        "time_s": sum(row["time_s"] * row["count"] for row in rows),
        "energy_j": None if None in energies else sum(row["energy_j"] * row["count"] for row in rows),
    }
