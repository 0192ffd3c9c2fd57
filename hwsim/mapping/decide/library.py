"""GPU kernels come from a library: a mapper picks one of its tiles, it cannot invent one.

Every tile (rows, columns, splits of K) of the library is written as a tiling of the device's memories: the output
tile in the registers, operand slices of `K_STEP` in shared memory, thread blocks spread over the units in the ways
that fill them. A mapper with a method ``pick(machine, gemm, tilings, objective) -> index`` chooses among these by exact
counts; of any other mapper the tile of its own tiling is looked up in the library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.ir.mapped import SolverReport
from hwsim.ir.platform import Device
from hwsim.mapping.counts import Nest, count, count_nests, nest_of
from hwsim.mapping.legality import violations
from hwsim.mapping.machine import DIMS, Machine
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.protocol import Decision
from hwsim.mapping.tiling.goal import goal_of

K_STEP: Final = 64  # elements of K in one pipeline stage of the CUTLASS and cuBLAS main loops
# Dimensions whose waves of thread blocks run over what the first shared memory holds, and the order of the waves.
# K is innermost: the output tile stays in the registers.
WAVES: Final = (("", "MNK"), ("", "NMK"), ("K", "MNK"), ("K", "NMK"), ("MK", "NMK"), ("NK", "MNK"), ("MNK", "MNK"))
Block = tuple[int, int, int]


def free_of(machine: Machine) -> Machine:
    """The machine with every middle level open to bypass: registers hold outputs, shared memory operands."""
    levels = list(machine.levels)
    for index in range(1, len(levels) - 1):
        levels[index] = replace(levels[index], bypass=levels[index].keep)
    return machine.with_(levels=tuple(levels))


def kernels(machine: Machine, device: Device, gemm: Gemm, blocks: Sequence[Block]) -> list[tuple[Block, Tiling]]:
    """Legal tilings of the library's blocks, each with the ways to lay its grid over the units."""
    inside = sum(1 for memory in device.memories if memory.scope == "unit")
    if not inside:
        return []
    found = []
    for block in blocks:
        for tiling in _tilings(machine, gemm, block, inside):
            if not violations(machine, gemm, tiling):
                found.append((block, tiling))
    return found


def _tilings(machine: Machine, gemm: Gemm, block: Block, inside: int) -> Iterator[Tiling]:
    rows, cols, split = (min(b, e) for b, e in zip(block, (gemm.m, gemm.n, block[2]), strict=True))
    latches = len(machine.levels) - len([level for level in machine.levels if level.name != "latch"])
    near = latches + inside - 1  # the farthest memory of one unit
    fan = machine.levels[0].fanout if latches else 1
    side = min(2 ** int(math.log2(math.isqrt(fan))), rows)
    spread = (side, min(cols, max(fan // side, 1)), 1)
    depth = min(K_STEP, gemm.k)
    inner = (math.ceil(rows / spread[0]), math.ceil(cols / spread[1]), depth)
    tile = (inner[0] * spread[0], inner[1] * spread[1])
    grid = (math.ceil(gemm.m / tile[0]), math.ceil(gemm.n / tile[1]))
    units = machine.levels[near].fanout
    for wide in _widths(grid[0], max(units // split, 1)):
        high = min(grid[1], max(units // split // wide, 1))
        outer = (math.ceil(grid[0] / wide), math.ceil(grid[1] / high), math.ceil(gemm.k / (depth * split)))
        for shared, order in WAVES:
            yield _nest(machine, near, (inner, spread), ((wide, high, split), outer), (shared, order))


def _widths(most: int, units: int) -> list[int]:
    """Blocks side by side along M: one, about the square root of the units, as many as there are."""
    top = min(most, units)
    return sorted({1, min(top, math.isqrt(units)), top})


def _nest(machine: Machine, near: int, block: tuple[Any, Any], grid: tuple[Any, Any], waves: tuple[str, str]) -> Tiling:
    levels = len(machine.levels)
    one = (1, 1, 1)
    temporal: list[Any] = [one] * levels
    spatial: list[Any] = [one] * (levels - 1)
    first = min(1, near)
    temporal[first] = block[0]
    spatial[0] = block[1] if near > 0 else one
    spatial[near] = grid[0]
    shared, order = waves
    temporal[near + 1] = tuple(n if d in shared else 1 for d, n in zip(DIMS, grid[1], strict=True))
    if near + 2 < levels:
        temporal[-1] = tuple(1 if d in shared else n for d, n in zip(DIMS, grid[1], strict=True))
    elif shared != "MNK":
        temporal[near + 1] = grid[1]
    keep = ["ABZ"] * levels
    if near >= 2:  # latch, registers, ..., shared memory
        keep[first : near + 1] = ["Z", *[""] * (near - 2), "AB"]
    return Tiling(tuple(temporal), tuple(spatial), (order,) * levels, tuple(keep))


def pick_least(machine: Machine, gemm: Gemm, tilings: Sequence[Tiling], objective: str) -> int:
    """Index of the tiling with the least objective by exact counts, then the least energy; the first of equals."""
    nests = [nest_of(tiling) for tiling in tilings]
    fields = ("temporal", "spatial", "inner", "keep")
    stacked = Nest(*(np.stack([getattr(nest, name) for nest in nests], axis=-1) for name in fields))
    counts = count_nests(machine, gemm, stacked)
    value = goal_of(objective).value(counts.energy, counts.cycles)
    return int(np.lexsort((counts.energy, value))[0])


def picked(
    mapper: Any, machine: Machine, gemm: Gemm, found: Sequence[tuple[Block, Tiling]], objective: str
) -> tuple[Block, Decision]:
    """The mapper's choice among the kernels; optimal means: best of the library by counts."""
    begun = time.perf_counter()
    tilings = [tiling for _, tiling in found]
    index = mapper.pick(machine, gemm, tilings, objective)
    block, tiling = found[index]
    counts = count(machine, gemm, tiling)
    value = goal_of(objective).value(float(counts.energy), float(counts.cycles))
    best = found[pick_least(machine, gemm, tilings, objective)][1]
    least = count(machine, gemm, best)
    bound = goal_of(objective).value(float(least.energy), float(least.cycles))
    gap = (value - bound) / value if value else 0.0
    status = "optimal" if gap <= 0 else "feasible"
    name = f"choice of {len(tilings)} kernels"
    return block, Decision(tiling, SolverReport(name, "", status, value, bound, gap, time.perf_counter() - begun))


def block_of(machine: Machine, device: Device, tiling: Tiling) -> Block:
    """(rows, columns, splits of K) of one unit's tile in a free tiling."""
    units = sum(1 for memory in device.memories if memory.scope == "unit")
    latches = 1 if machine.levels[0].name == "latch" else 0
    near = min(max(latches + units - 1, 0), len(machine.levels) - 2)
    rows, cols, _ = tiling.tile(near)
    return rows, cols, tiling.spatial[near][2]
