"""Uneven tiling: tensors of one memory tiled at different depths of the loop nest.

A split memory is two levels of one group. In it, one loop (dimension d, factor c) runs between the halves: the
tensor held in the far half keeps the whole extent of d, another that depends on d streams through one slice at a
time, and the third does not depend on d and stays. More loops between the halves cannot help: a loop over a
dimension that the far tensor lacks belongs outside it, and of the two it has, the one that the streamed tensor
lacks would only make that one reload.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from hwsim.mapping.ilp import Program
from hwsim.mapping.integer.columns import TilingProgram, marked
from hwsim.mapping.integer.fillings import antichain, maximal_tiles
from hwsim.mapping.machine import DIMS, IRRELEVANT, RELEVANT, TENSOR_OF_DIM, TENSORS
from hwsim.mapping.tiling.limits import capacity, does_not_fit, masks_of

Array = np.ndarray[Any, Any]


class _Row:
    """One way to fill a split memory: held tensors, the far one (-1: none), the streaming dimension and extents."""

    __slots__ = ("mask", "far", "dim", "tile", "whole")

    def __init__(self, mask: tuple[bool, bool, bool], far: int, dim: int, tile: tuple[int, ...], whole: int) -> None:
        self.mask, self.far, self.dim, self.tile, self.whole = mask, far, dim, tile, whole


def add_split_capacity(tp: TilingProgram, halves: list[int]) -> None:
    """Tie the paths to one largest filling of the split memory (near half, far half). Raises InfeasibleError."""
    near, far = halves
    rows = _fillings(tp, near)
    if not rows:
        raise does_not_fit(tp.machine, near, [v for v in range(3) if masks_of(tp.machine, near)[0][v]])
    program = tp.program
    chosen = program.columns(len(rows))
    program.one_hot(chosen, f"tile {near}")
    kinds = sorted({(row.far, row.dim) for row in rows})
    closed = [[c for c, row in zip(chosen, rows, strict=True) if (row.far, row.dim) != kind] for kind in kinds]
    tp.last_disjunctions.append(closed)
    for d in range(3):
        columns, marks = marked(tp, d, near)
        sizes = np.array([row.tile[d] for row in rows])
        program.link_down((chosen, sizes), (columns, np.array([m.tile for m in marks])), f"{DIMS[d]} near {near}")
        _link_far(program, tp, chosen, rows, d, far)
        _link_held(program, tp, chosen, rows, TENSOR_OF_DIM[d], near, far)


def _link_far(program: Program, tp: TilingProgram, chosen: Array, rows: list[_Row], d: int, far: int) -> None:
    """Only the streaming dimension has a loop between the halves, up to the whole extent."""
    columns, marks = marked(tp, d, far)
    whole = np.array([row.whole if row.dim == d else row.tile[d] for row in rows])
    program.link_down((chosen, whole), (columns, np.array([m.tile for m in marks])), f"{DIMS[d]} far {far}")
    looping = [c for c, m in zip(columns, marks, strict=True) if m.loop > 1]
    allowed = [c for c, row in zip(chosen, rows, strict=True) if row.dim == d]
    if looping:
        program.row([*looping, *allowed], _signs(looping, allowed), high=0.0, name=f"{DIMS[d]} between {far}")


def _link_held(
    program: Program, tp: TilingProgram, chosen: Array, rows: list[_Row], v: int, near: int, far: int
) -> None:
    """Held at all needs room for it; held in the far half needs a filling that puts it there."""
    for level in (near, far):
        columns, marks = marked(tp, IRRELEVANT[v], level)
        held = [c for c, m in zip(columns, marks, strict=True) if m.keep]
        room = [c for c, row in zip(chosen, rows, strict=True) if row.mask[v] and (level == near or row.far == v)]
        if held:
            program.row([*held, *room], _signs(held, room), high=0.0, name=f"{TENSORS[v]} held in {level}")


def _signs(plus: list[Any], minus: list[Any]) -> Array:
    return np.concatenate([np.ones(len(plus)), -np.ones(len(minus))])


def _fillings(tp: TilingProgram, near: int) -> list[_Row]:
    """All fillings none of which can grow: even ones, and streaming ones for each far tensor and dimension."""
    values = [np.unique([m.tile for m in marked(tp, d, near)[1]]) for d in range(3)]
    whole = [np.unique([m.tile for m in marked(tp, d, near + 1)[1]]) for d in range(3)]
    room, widths = capacity(tp.machine, near), tp.machine.widths
    rows = []
    for mask in masks_of(tp.machine, near):
        rows += [_Row(mask, -1, -1, t, 0) for t in maximal_tiles(values, mask, widths, room)]
        for v, d in itertools.product(range(3), range(3)):
            streamed = next((u for u in range(3) if u not in (v, TENSOR_OF_DIM[d])), -1)
            if d in RELEVANT[v] and mask[v] and mask[streamed]:
                rows += _streaming(values, whole[d], mask, (v, d, streamed), widths, room)
    return rows


def _streaming(
    values: list[Array],
    whole: Array,
    mask: tuple[bool, bool, bool],
    roles: tuple[int, int, int],
    widths: tuple[float, float, float],
    room: float,
) -> list[_Row]:
    """Largest (slice, whole, extent of the far tensor's other dimension, extent of the third)."""
    v, d, u = roles
    third = TENSOR_OF_DIM[d]
    a = next(x for x in RELEVANT[v] if x != d)
    b = next(x for x in RELEVANT[u] if x != d)
    grids = np.meshgrid(values[d], whole, values[a], indexing="ij")
    s, f, ta = (g.ravel() for g in grids)
    good = (f > s) & (f % s == 0)
    s, f, ta = s[good], f[good], ta[good]
    left = room - widths[v] * f * ta
    per_b = widths[u] * s + (widths[third] if mask[third] else 0.0) * ta
    bound = np.where(left >= 0, left / per_b * (1 + 1e-12), -1.0)
    at = np.searchsorted(values[b], bound, side="right") - 1
    fits = at >= 0
    points = np.stack([s[fits], f[fits], ta[fits], values[b][at[fits]]], axis=1)
    rows = []
    for whole_extent in np.unique(points[:, 1]) if len(points) else ():
        for triple in antichain(points[points[:, 1] == whole_extent][:, [0, 2, 3]]):
            tile = [0, 0, 0]
            tile[d], tile[a], tile[b] = triple
            rows.append(_Row(mask, v, d, tuple(tile), int(whole_extent)))
    return rows
