"""Complete enumeration of even tilings, vectorised: the reference that the integer program is checked against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError, InputError
from hwsim.mapping.candidates import divisors
from hwsim.mapping.counts import Nest, count, count_nests
from hwsim.mapping.legality import fits
from hwsim.mapping.machine import DIMS, TENSORS, Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling

Array = np.ndarray[Any, Any]
CHUNK = 200_000  # nests costed at once: about 200 MB


def factor_chains(extent: int, slots: list[int]) -> Array:
    """All ways to write `extent` as an ordered product of len(slots) factors, factor i at most slots[i]."""
    if len(slots) == 1:
        return np.array([[extent]] if extent <= slots[0] else np.zeros((0, 1)), dtype=np.int64)
    parts = []
    for first in divisors(extent):
        if first <= slots[0]:
            rest = factor_chains(extent // first, slots[1:])
            parts.append(np.hstack([np.full((len(rest), 1), first, dtype=np.int64), rest]))
    return np.vstack(parts) if parts else np.zeros((0, len(slots)), dtype=np.int64)


def keep_choices(machine: Machine) -> list[tuple[str, ...]]:
    """Every allowed combination of held tensors over the levels (one half of a split memory each)."""
    per_level = []
    for level in machine.levels:
        free = level.bypass if not level.group else level.keep
        fixed = "".join(t for t in level.keep if t not in free)
        subsets = [
            "".join(t for t in TENSORS if t in fixed or t in extra)
            for r in range(len(free) + 1)
            for extra in itertools.combinations(free, r)
        ]
        per_level.append(subsets)
    return [kept for kept in itertools.product(*per_level) if _groups_fine(machine, kept)]


def _groups_fine(machine: Machine, kept: tuple[str, ...]) -> bool:
    for memory in {level.memory for level in machine.levels if level.group}:
        halves = [i for i, level in enumerate(machine.levels) if level.memory == memory]
        level = machine.levels[halves[0]]
        for t in level.keep:
            held = sum(t in kept[i] for i in halves)
            if held > 1 or (held == 0 and t not in level.bypass):
                return False
    return True


def nests(machine: Machine, gemm: Gemm, limit: int) -> Iterator[tuple[Nest, tuple[str, ...]]]:
    """All even nests in chunks. Raises InputError where there are more than `limit`."""
    levels = len(machine.levels)
    slots = [[math.inf] * levels + [_fan(machine, i, d) for i in range(levels - 1)] for d in range(3)]
    chains = [factor_chains(gemm.extents[d], slots[d]) for d in range(3)]  # type: ignore[arg-type]
    orders = list(itertools.product(range(3), repeat=levels - 1))
    keeps = keep_choices(machine)
    total = math.prod(len(c) for c in chains) * len(orders) * len(keeps)
    if total > limit:
        raise InputError(
            f"complete enumeration of {gemm.name} needs {total:.3g} mappings",
            seen=f"limit {limit:.3g}",
            fix="--mapper tiling",
        )
    n_mnk = tuple(len(c) for c in chains)
    for start in range(0, math.prod(n_mnk), CHUNK):
        index = np.unravel_index(np.arange(start, min(start + CHUNK, math.prod(n_mnk))), n_mnk)
        picked = np.stack([c[i] for c, i in zip(chains, index, strict=True)], axis=1)  # (n, 3, slots)
        temporal = np.moveaxis(picked[:, :, :levels], (2, 1), (0, 1))
        spatial = np.moveaxis(picked[:, :, levels:], (2, 1), (0, 1))
        for kept in keeps:
            keep = np.array([[t in k for t in TENSORS] for k in kept])[:, :, None]
            keep = np.broadcast_to(keep, (levels, 3, temporal.shape[2]))
            good = fits(machine, Nest(temporal, spatial, temporal, keep))
            for order in orders:
                inner = np.array([[0, 1, 2], *([d, *(o for o in range(3) if o != d)] for d in order)])
                some = np.broadcast_to(inner[:, :, None], (levels, 3, int(good.sum())))
                yield Nest(temporal[:, :, good], spatial[:, :, good], some, keep[:, :, good]), kept


def _fan(machine: Machine, level: int, d: int) -> float:
    item = machine.levels[level]
    return item.fanout if DIMS[d] in item.dims else 1


def enumerate_best(machine: Machine, gemm: Gemm, objective: str, limit: int = 50_000_000) -> tuple[Tiling, Counts, int]:
    """The best even tiling by trying all of them: (tiling, its counts, mappings tried). Batch members run in turn.

    Raises InputError where there are more than `limit`, InfeasibleError where none fits.
    """
    best: tuple[tuple[float, float], Tiling] | None = None
    tried = 0
    for nest, kept in nests(machine, gemm, limit):
        tried += nest.temporal.shape[2]
        if nest.temporal.shape[2] == 0:
            continue
        counts = count_nests(machine, gemm, nest)
        energy, cycles = np.asarray(counts.energy, dtype=float), np.asarray(counts.cycles, dtype=float)
        first = {"energy": energy, "latency": cycles, "edp": energy * cycles}[objective]
        at = int(np.lexsort((energy, first))[0])
        key = (float(first[at]), float(energy[at]))
        if best is None or key < best[0]:
            best = (key, _tiling(nest, at, kept))
    if best is None:
        raise InfeasibleError(f"no even tiling of {gemm.name} fits {machine.name}", where=machine.name)
    return best[1], count(machine, gemm, best[1]), tried


def _tiling(nest: Nest, at: int, kept: tuple[str, ...]) -> Tiling:
    def triples(array: Array) -> tuple[tuple[int, int, int], ...]:
        return tuple((int(row[0, at]), int(row[1, at]), int(row[2, at])) for row in array)

    order = tuple("".join(DIMS[int(d)] for d in reversed(level[:, at])) for level in nest.inner)
    return Tiling(triples(nest.temporal), triples(nest.spatial), order, kept)
