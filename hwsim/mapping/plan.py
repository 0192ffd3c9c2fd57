"""Map the distinct GEMMs of a workload on a machine and describe the result as one document."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hwsim.errors import InfeasibleError, InputError, unknown_name
from hwsim.ir.platform import Device
from hwsim.mapping import cache
from hwsim.mapping.adapt import core_of, machine_of
from hwsim.mapping.describe import operator as describe
from hwsim.mapping.gemms import Work
from hwsim.mapping.machine import TENSORS, Machine
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.protocol import Decision, costed
from hwsim.mapping.registry import LoadedMapper, load_mapper
from hwsim.mapping.tiling.goal import goal_of
from hwsim.mapping.tiling.limits import capacity, does_not_fit
from hwsim.mapping.tiling.result import cycle_floor
from hwsim.units import si

LEAST_BUDGET_S: Final = 0.2
# the loop that keeps a tile in place runs over the dimension which its tensor lacks: weights are B, inputs A
STATIONARY: Final = {"weights": "M", "inputs": "N", "outputs": "K"}
# Where a device file gives no energies, near words still have to be preferred over far ones among equal latencies:
# pJ a word of nearest, middle and last level with the ratios of Eyeriss (Chen et al., ISCA 2016). Never reported.
TIE_BREAK_PJ: Final = (1.0, 6.0, 200.0)


Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a mapping run has decided before the first GEMM. `known`: the device file gives energies."""

    device: Device
    machine: Machine
    objective: str
    loaded: LoadedMapper
    known: bool
    options: dict[str, Any]


def prepare(device: Device, *, objective: str | None = None, mapper: str = "tiling", **options: Any) -> Setup:
    """The machine, objective and mapper of a run; the options are those of `map_workload`. Raises as it does."""
    loaded = load_mapper(mapper)
    kind = getattr(loaded.mapper, "kind", "tiling")
    if kind != "tiling":
        fix = f"`hwsim evaluate MODEL --hw {device.name} --mapper {mapper}` uses it, if that device's family does"
        raise InputError(f"mapper {mapper!r} decides no loops ({kind})", where="--mapper", seen=mapper, fix=fix)
    machine, said = _machine(device, **options)
    known = machine.mac_energy > 0 or any(level.read_energy > 0 for level in machine.levels)
    objective = objective or ("edp" if known else "latency")
    goal_of(objective)
    if not known:
        machine = _tie_break(machine, objective)
    _require_elements(machine)
    return Setup(device, machine, objective, loaded, known, said)


def _machine(
    device: Device,
    *,
    counting: str = "timeloop",
    bypass: bool = False,
    uneven: str | None = None,
    dtype: str | None = None,
    dataflow: str | None = None,
) -> tuple[Machine, dict[str, Any]]:
    """The tiling machine as the options change it, and those options as a document repeats them."""
    machine = machine_of(device, dtype=dtype, counting=counting, bypass=bypass)
    if dataflow is not None:
        machine = _stationary(machine, dataflow)
    for name in [] if uneven is None else uneven.split(","):
        names = [level.name for level in machine.levels[:-1]]
        if name not in names:
            raise unknown_name("memory between the multipliers and the last", name, names, where="--uneven")
        machine = machine.split_level(name)
    return machine, {"counting": counting, "bypass": bypass, "uneven": uneven, "dataflow": dataflow}


def _stationary(machine: Machine, dataflow: str) -> Machine:
    """A copy whose nearest tiles of one tensor stay while the innermost loop above them runs."""
    if dataflow not in STATIONARY:
        raise unknown_name("dataflow", dataflow, STATIONARY, where="--dataflow")
    return machine.with_level(machine.levels[1].name, stationary=STATIONARY[dataflow])


def map_workload(
    works: Sequence[Work],
    device: Device,
    *,
    budget_s: float | None = None,
    use_cache: bool = True,
    say: Say = _quiet,
    **options: Any,
) -> dict[str, Any]:
    """Every distinct GEMM mapped, costed and described.

    Parameters
    ----------
    works: distinct GEMMs with their executions (`hwsim.mapping.works_of`).
    budget_s: wall seconds for all of them together; None: until proved.
    say: is told what is being worked on.
    options: those of `prepare`: objective (``energy``, ``latency``, ``edp``; None: edp where the device gives
        energies, else latency), mapper, counting, bypass, uneven (memories, with commas, in which tensors may be tiled
        at different depths of the loop nest, each shown as two halves), dtype, dataflow (``weights``, ``inputs`` or
        ``outputs``: which tensor's nearest tiles stay while the innermost loop above them runs).

    Raises
    ------
    InfeasibleError: a GEMM does not fit; names level, tensor and shortfall. SolverError: no answer in the budget.
    InputError: unknown names, or an energy objective on a device without energies.
    """
    begun = time.perf_counter()
    setup = prepare(core_of(device), **options)
    rows = []
    for index, work in enumerate(works):
        _require_room(setup.device, setup.machine, work.gemm)
        say(f"mapping {index + 1} of {len(works)}: {work.gemm.name}{_limit(budget_s)}")
        left = None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.0) / (len(works) - index)
        rows.append(_row(setup, work, left, use_cache))
    return {
        "schema": "hwsim/mapping@1",
        "hardware": device.name,
        "objective": setup.objective,
        "mapper": setup.loaded.mapper.name,
        **setup.options,
        "budget_s": budget_s,
        "machine": describe.machine_of_document(setup.machine, setup.known),
        "operators": rows,
        "total": _total(rows),
        "seconds": time.perf_counter() - begun,
    }


def explain_workload(
    works: Sequence[Work],
    device: Device,
    *,
    document: dict[str, Any] | None = None,
    budget_s: float | None = None,
    use_cache: bool = True,
    say: Say = _quiet,
    **options: Any,
) -> list[list[dict[str, Any]]]:
    """For every distinct GEMM, what more of each part of the machine would buy (`describe.whatif`).

    The options are those of `map_workload`, whose `document` saves mapping today's machine again. Every GEMM is asked
    first what binds it; the search for the smallest step that helps comes after, so that a budget is spent on the
    broad answers first.
    """
    from hwsim.mapping.describe.whatif import Probe, what_more_buys

    deadline = math.inf if budget_s is None else time.perf_counter() + budget_s
    setup = prepare(core_of(device), **options)

    def solve(machine: Machine, gemm: Gemm, left: float | None) -> Decision:
        rest = "" if left is None else f", {left:.0f} s left"
        say(f"what more would buy: {gemm.name}{rest}")
        return decide(machine, gemm, setup.objective, setup.loaded, left, use_cache)[0]

    probes = [
        Probe(
            setup.machine,
            work.gemm,
            setup.objective,
            lambda machine, left, gemm=work.gemm: solve(machine, gemm, left),  # type: ignore[misc]
            setup.known,
            deadline,
        )
        for work in works
    ]
    for probe, row in zip(probes, document["operators"] if document else (), strict=document is not None):
        if row["tiling"] is not None:
            probe.today(Tiling.from_dict(row["tiling"]), row["report"]["status"] == "optimal")
    for probe in probes:
        what_more_buys(probe, deep=False)
    return [what_more_buys(probe) for probe in probes]


def _limit(budget_s: float | None) -> str:
    return "" if budget_s is None else f" ({budget_s:g} s for all)"


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
            seen=f"{si(total, 'B')} needed, {si(total - room, 'B')} short, most for tensor {largest}",
            fix="use a smaller GEMM or a larger memory",
            budget={"needed_bytes": total, "shortfall_bytes": total - room},
        )


def _require_elements(machine: Machine) -> None:
    """Every level holds an element of each tensor that may not skip it, whatever the mapper."""
    for index, level in enumerate(machine.levels):
        forced = [v for v, t in enumerate(TENSORS) if t in level.keep and t not in level.bypass and not level.group]
        if sum(machine.widths[v] for v in forced) > capacity(machine, index):
            raise does_not_fit(machine, index, forced)


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


def _row(setup: Setup, work: Work, budget_s: float | None, use_cache: bool) -> dict[str, Any]:
    gemm, machine, objective = work.gemm, setup.machine, setup.objective
    decision, cached = decide(machine, gemm, objective, setup.loaded, budget_s, use_cache)
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
        return {**row, **describe.ideal(machine, gemm, objective, decision.report, setup.known)}
    counts, report = costed(machine, gemm, objective, decision)
    return {
        **row,
        **describe.mapped(machine, gemm, decision.tiling, counts, setup.known),
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
