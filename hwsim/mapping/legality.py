"""Is a mapping allowed on a machine? Every violation is named with level, tensor and how much is short."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.counts import Array, Nest, tiles
from hwsim.mapping.machine import DIMS, RELEVANT, TENSORS, Level, Machine
from hwsim.mapping.problem import Gemm, Tiling


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken limit: `kind` is capacity, fanout, cover or keep; `short` in words, units or iterations."""

    kind: str
    level: str
    detail: str
    short: float


def violations(machine: Machine, gemm: Gemm, tiling: Tiling) -> list[Violation]:
    """All limits that the tiling breaks on the machine; empty if it is legal."""
    if len(tiling.temporal) != len(machine.levels):
        return [Violation("levels", machine.name, "the tiling has another number of levels", 0.0)]
    found = _cover(gemm, tiling)
    for index, level in enumerate(machine.levels):
        found += _held(machine, index, tiling) + _order(level, index, tiling)
        if index < len(machine.levels) - 1:
            used = math.prod(tiling.spatial[index])
            limit = level.fanout // (tiling.batch_spatial if index == machine.batch_level else 1)
            if used > limit:
                found.append(Violation("fanout", level.name, f"{used} of {limit} units used", used - limit))
            bad = [d for d, f in zip(DIMS, tiling.spatial[index], strict=True) if f > 1 and d not in level.dims]
            if bad:
                found.append(Violation("dataflow", level.name, f"{', '.join(bad)} may not be spread here", 0.0))
    return found + _capacity(machine, gemm, tiling)


def check(machine: Machine, gemm: Gemm, tiling: Tiling) -> None:
    """Raise InfeasibleError listing every broken limit."""
    found = violations(machine, gemm, tiling)
    if found:
        worst = found[0]
        raise InfeasibleError(
            f"illegal mapping of {gemm.name}: {worst.kind} of {worst.level}",
            where=f"{machine.name}.{worst.level}",
            seen="; ".join(f"{v.level}: {v.detail}" for v in found),
            budget={f"{v.level} {v.kind}": v.short for v in found},
        )


def _cover(gemm: Gemm, tiling: Tiling) -> list[Violation]:
    whole = tiling.tile(len(tiling.temporal) - 1)
    return [
        Violation("cover", d, f"loops reach {have} of {need}", need - have)
        for d, have, need in zip(DIMS, whole, gemm.extents, strict=True)
        if have < need
    ]


def _order(level: Level, index: int, tiling: Tiling) -> list[Violation]:
    """Loops that the level's dataflow does not allow, and an innermost loop that it does not."""
    inward = [d for d in tiling.order[index] if tiling.temporal[index][DIMS.index(d)] > 1]
    found = [
        Violation("dataflow", level.name, f"{d} may not be looped here", 0.0) for d in inward if d not in level.loops
    ]
    if index > 0 and len(inward) > 1 and inward[-1] not in level.stationary:
        found.append(Violation("dataflow", level.name, f"{inward[-1]} may not be innermost here", 0.0))
    return found


def _held(machine: Machine, index: int, tiling: Tiling) -> list[Violation]:
    level, kept = machine.levels[index], tiling.keep[index]
    group = [i for i, other in enumerate(machine.levels) if other.memory == level.memory]
    found = [Violation("keep", level.name, f"{t} may not be held here", 0.0) for t in kept if t not in level.keep]
    together = "".join(tiling.keep[i] for i in group)
    for t in TENSORS:
        if t in level.keep and t not in level.bypass and t not in together:
            found.append(Violation("keep", level.name, f"{t} must be held here", 0.0))
    return found


def footprint(machine: Machine, index: int, gemm: Gemm, tiling: Tiling) -> dict[str, float]:
    """Words that each tensor takes of one instance of the level (both halves where tiles are held twice)."""
    level = machine.levels[index]
    share = tiling.batch_spatial if index > machine.batch_level else 1
    twice = 2 if level.double_buffer else 1
    extents = [min(t, e) for t, e in zip(tiling.tile(index), gemm.extents, strict=True)]
    return {
        t: machine.widths[v] * extents[RELEVANT[v][0]] * extents[RELEVANT[v][1]] * share * twice
        for v, t in enumerate(TENSORS)
        if t in tiling.keep[index]
    }


def _capacity(machine: Machine, gemm: Gemm, tiling: Tiling) -> list[Violation]:
    found = []
    used: dict[str, dict[str, float]] = {}
    for index, level in enumerate(machine.levels):
        mine = used.setdefault(level.memory, {})
        for t, words in footprint(machine, index, gemm, tiling).items():
            mine[t] = mine.get(t, 0.0) + words
    for level in {level.memory: level for level in machine.levels}.values():
        total = sum(used[level.memory].values())
        if total > level.words * (1 + 1e-12):
            largest = max(used[level.memory], key=lambda t: used[level.memory][t])
            short = total - level.words
            detail = f"{total:g} of {level.words:g} words needed, {short:g} short, most for {largest}"
            found.append(Violation("capacity", level.memory, detail, short))
    return found


def fits(machine: Machine, nest: Nest) -> Array:
    """Whether each nest of an array keeps within capacities and fan-outs; shape is the nests' trailing one."""
    tile = tiles(nest).astype(np.float64)
    good = np.ones(tile.shape[2:], dtype=bool)
    used: dict[str, Array] = {}
    for index, level in enumerate(machine.levels):
        for v in range(3):
            size = machine.widths[v] * tile[index, RELEVANT[v][0]] * tile[index, RELEVANT[v][1]]
            used[level.memory] = used.get(level.memory, 0.0) + np.where(nest.keep[index, v], size, 0.0)
        if index < len(machine.levels) - 1:
            good &= np.prod(nest.spatial[index], axis=0) <= level.fanout
    for level in machine.levels:
        room = level.words / 2 if level.double_buffer else level.words
        good &= used[level.memory] <= room
    return good
