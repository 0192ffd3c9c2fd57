"""Exact access counts, energy and cycles of tilings: one mapping, or an array of them, by the same code.

Assumptions (those of Timeloop's legacy counting, which this reproduces exactly): a level refetches a tile only when
a loop outside it that the tensor depends on advances, so the run of innermost loops over the tensor's missing
dimension is free reuse; multicast and spatial reduction are free and full; latency overlaps perfectly. Sizes that
do not divide are counted with their partial last tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.mapping.machine import DIMS, IRRELEVANT, TENSORS, Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Nest:
    """Tilings as arrays, near to far.

    `temporal` has shape (levels, 3, ...), `spatial` (levels - 1, 3, ...), `inner` (levels, 3, ...) holding
    dimension indices from the INNERMOST loop outward, `keep` (levels, 3, ...) booleans.
    """

    temporal: Array
    spatial: Array
    inner: Array
    keep: Array
    batch_spatial: Any = 1


def nest_of(tiling: Tiling) -> Nest:
    """One tiling as arrays without trailing axes."""
    inner = [[DIMS.index(d) for d in reversed(order)] for order in tiling.order]
    keep = [[t in kept for t in TENSORS] for kept in tiling.keep]
    spatial = np.array(tiling.spatial, dtype=np.int64).reshape(-1, 3)
    return Nest(np.array(tiling.temporal, dtype=np.int64), spatial, np.array(inner), np.array(keep))


def count(machine: Machine, gemm: Gemm, tiling: Tiling) -> Counts:
    """Counts of one tiling of one GEMM (batch included). Raises InputError where the levels do not match."""
    if len(tiling.temporal) != len(machine.levels):
        raise InputError(
            "the tiling and the machine differ in levels",
            where=machine.name,
            seen=f"{len(tiling.temporal)} and {len(machine.levels)}",
        )
    nest = nest_of(tiling)
    return count_nests(machine, gemm, Nest(nest.temporal, nest.spatial, nest.inner, nest.keep, tiling.batch_spatial))


def count_nests(machine: Machine, gemm: Gemm, nest: Nest) -> Counts:
    """Counts of an array of nests: every result has the trailing shape of the nests."""
    shape = np.broadcast_shapes(nest.temporal.shape[2:], nest.keep.shape[2:], nest.inner.shape[2:])
    levels = len(machine.levels)
    reads, fills, updates = (np.zeros((levels, 3, *shape), dtype=np.int64) for _ in range(3))
    for v in range(3):
        _count_tensor(gemm, nest, v, machine.drain_reads, (reads, fills, updates))
    for words in (reads, fills, updates):
        words *= gemm.batch
    cycles_by, utilization = _cycles(machine, gemm, nest, reads, fills, updates)
    return Counts(reads, fills, updates, cycles_by, _energy(machine, gemm, reads, fills, updates), utilization)


def tiles(nest: Nest) -> Array:
    """Tile extents of one instance of every level, shape (levels, 3, ...)."""
    steps = nest.temporal.copy()
    steps[1:] = steps[1:] * nest.spatial
    return np.cumprod(steps, axis=0)


def passes(extent: int, temporal: Array, spatial: Array, time: Array, space: Array) -> Array:
    """How many different values the counted loops of one dimension take together over 0 .. extent - 1.

    `temporal` and `time` have shape (levels, ...), `spatial` and `space` (levels - 1, ...); `time` and `space` say
    which loops are counted. What an uncounted loop reaches later it also reaches in its first pass, so that pass
    alone is followed; a counted loop repeats whole passes and then the partial last one. Exact for every size; the
    product of the counted factors where they divide.
    """
    counted = np.prod(np.where(time, temporal, 1), axis=0) * np.prod(np.where(space, spatial, 1), axis=0)
    size = np.prod(temporal, axis=0) * np.prod(spatial, axis=0)
    if np.all(size == extent):
        return np.asarray(counted)
    rest, total = np.full(np.shape(counted), extent, dtype=np.int64), np.zeros(np.shape(counted), dtype=np.int64)
    for level in range(len(temporal) - 1, -1, -1):
        loops = [(temporal[level], time[level])]
        if level > 0:
            loops.append((spatial[level - 1], space[level - 1]))
        for factor, mine in loops:
            size = size // factor
            counted = counted // np.where(mine, factor, 1)
            whole = rest // size
            total = total + np.where(mine, whole * counted, 0)
            rest = np.where(mine, rest - whole * size, np.minimum(rest, size))
    return total + rest


def _count_tensor(gemm: Gemm, nest: Nest, v: int, drains: bool, out: tuple[Array, Array, Array]) -> None:
    """Add the words of tensor `v` on every parent-child boundary of its chain of keeping levels."""
    for child in range(-1, len(nest.temporal) - 1):
        for parent in range(max(child + 1, 0), len(nest.temporal)):
            active = nest.keep[parent, v] & ~np.any(nest.keep[child + 1 : parent, v], axis=0)
            if child >= 0:
                active = active & nest.keep[child, v]
            if np.any(active):
                _boundary(gemm, nest, (child, parent, v), active, drains, out)


def _boundary(
    gemm: Gemm,
    nest: Nest,
    where: tuple[int, int, int],
    active: Array,
    drains: bool,
    out: tuple[Array, Array, Array],
) -> None:
    """Words between `child` (-1: the multipliers) and `parent` of tensor v, where `active`."""
    reads, fills, updates = out
    child, parent, v = where
    size = gemm.sizes[v]
    time = _changes(nest, child, v)
    moved = np.where(active, size * _passes(gemm, nest, v, time, parent), 0)
    fed = np.where(active, size * _passes(gemm, nest, v, time, child), 0)
    first = np.where(active, size * _first_touches(gemm, nest, parent), 0) if v == 2 else 0
    if v == 2:
        updates[parent, v] += moved
        reads[parent, v] += moved - first
    else:
        reads[parent, v] += moved
    if child >= 0:
        begun = np.where(active, size * _first_touches(gemm, nest, child), 0) if v == 2 else 0
        fills[child, v] += fed - begun
        if v == 2 and drains:
            reads[child, v] += fed


def _passes(gemm: Gemm, nest: Nest, v: int, time: Array, level: int) -> Array:
    """Passes along the missing dimension of tensor v by the loops `time`, at every instance of `level` on its own."""
    d = IRRELEVANT[v]
    spatial = nest.spatial[:, d]
    space = np.zeros_like(spatial, dtype=bool)
    space[max(level, 0) :] = True
    return passes(gemm.extents[d], nest.temporal[:, d], spatial, time, space)


def _first_touches(gemm: Gemm, nest: Nest, level: int) -> Array:
    """Instances of `level` that start a partial sum of each output word: those spread over K."""
    return _passes(gemm, nest, 2, np.zeros_like(nest.temporal[:, 2], dtype=bool), level)


def _changes(nest: Nest, child: int, v: int) -> Array:
    """Which loops over the missing dimension change the tile of tensor v at `child`; shape (levels, ...).

    Those outside the child but for the innermost run of loops that advance nothing the tensor depends on.
    """
    d = IRRELEVANT[v]
    shape = np.broadcast_shapes(nest.temporal[:, d].shape, nest.inner[:, 0].shape)
    found, running = np.zeros(shape, dtype=bool), np.ones(shape[1:], dtype=bool)
    for level in range(child + 1, len(nest.temporal)):
        for place in range(3):
            dim = np.broadcast_to(nest.inner[level, place], running.shape)
            factor = np.take_along_axis(np.broadcast_to(nest.temporal[level], (3, *running.shape)), dim[None], axis=0)
            running = running & ((dim == d) | (factor[0] == 1)) if child >= 0 else np.zeros_like(running)
            found[level] |= (dim == d) & ~running
    return found


def steps(extent: int, temporal: Array, spatial: Array) -> Array:
    """Clock steps along one dimension: `temporal` (levels, ...) and `spatial` (levels - 1, ...) of that dimension.

    Whole tiles take the product of the temporal factors; the partial last one is followed inward. Equal to
    extent / spatial product where everything divides.
    """
    return passes(extent, temporal, spatial, np.ones_like(temporal, bool), np.zeros_like(spatial, bool))


def _cycles(
    machine: Machine, gemm: Gemm, nest: Nest, reads: Array, fills: Array, updates: Array
) -> tuple[dict[str, Any], Any]:
    """Cycles by part: compute, and each memory with a finite port (words of its levels over its used instances)."""
    rounds = -(-gemm.batch // np.asarray(nest.batch_spatial))
    compute: Any = rounds
    for d in range(3):
        compute = compute * steps(gemm.extents[d], nest.temporal[:, d], nest.spatial[:, d])
    parts: dict[str, Any] = {"compute": compute.astype(np.float64)}
    widths = np.array(machine.widths).reshape(3, *([1] * (reads.ndim - 2)))
    spread = np.prod(nest.spatial, axis=1, dtype=np.float64)
    batch_level = machine.batch_level
    for index, level in enumerate(machine.levels):
        used = np.prod(spread[index:], axis=0) * (nest.batch_spatial if index <= batch_level else 1)
        out_words = (reads[index] * widths).sum(axis=0) / used
        in_words = ((fills[index] + updates[index]) * widths).sum(axis=0) / used
        for key, words, rate in _ports(level, out_words, in_words):
            if np.isfinite(rate):
                parts[key] = parts.get(key, 0.0) + words / rate
    return parts, gemm.macs / (compute * machine.multipliers)


def _ports(level: Any, out_words: Any, in_words: Any) -> tuple[tuple[str, Any, float], ...]:
    if level.shared_port:
        return ((level.memory, out_words + in_words, level.read_words_per_cycle),)
    return (
        (f"{level.memory} read", out_words, level.read_words_per_cycle),
        (f"{level.memory} write", in_words, level.write_words_per_cycle),
    )


def _energy(machine: Machine, gemm: Gemm, reads: Array, fills: Array, updates: Array) -> dict[str, Any]:
    """pJ by part: each level's words times its energy a word, and the multiply-accumulates."""
    parts: dict[str, Any] = {}
    widths = np.array(machine.widths).reshape(3, *([1] * (reads.ndim - 2)))
    for index, level in enumerate(machine.levels):
        out = (reads[index] * widths).sum(axis=0) * level.read_energy
        into = ((fills[index] + updates[index]) * widths).sum(axis=0) * level.write_energy
        parts[level.name] = parts.get(level.name, 0.0) + out + into
    parts["MAC"] = gemm.macs * machine.mac_energy
    return parts
