"""Tiles fit their memories: one column for each largest filling, to which the three paths are tied."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.mapping.integer.columns import TilingProgram, marked
from hwsim.mapping.integer.fillings import maximal_tiles
from hwsim.mapping.integer.split import add_split_capacity
from hwsim.mapping.machine import DIMS, TENSOR_OF_DIM, TENSORS
from hwsim.mapping.tiling.limits import capacity, does_not_fit, masks_of


def add_capacities(tp: TilingProgram) -> None:
    """Tie the paths to the room of every finite memory. Raises InfeasibleError where nothing fits."""
    done = set()
    for level, item in enumerate(tp.machine.levels[:-1]):
        if item.memory in done or math.isinf(item.words):
            continue
        done.add(item.memory)
        halves = [i for i, other in enumerate(tp.machine.levels) if other.memory == item.memory]
        if len(halves) == 1:
            _add_capacity(tp, level)
        else:
            add_split_capacity(tp, halves)


def _add_capacity(tp: TilingProgram, level: int) -> None:
    """One column per largest tile that fits, for each set of held tensors; paths stay within the chosen one."""
    decided = [marked(tp, d, level) for d in range(3)]
    values = [np.unique([m.tile for m in marks]) for _, marks in decided]
    rows: list[tuple[Any, ...]] = []
    masks = masks_of(tp.machine, level)
    for mask in masks:
        triples = maximal_tiles(values, mask, tp.machine.widths, capacity(tp.machine, level))
        rows.extend((mask, *t) for t in triples)
    if not rows:
        raise does_not_fit(tp.machine, level, [v for v in range(3) if masks[0][v]])
    chosen = tp.program.columns(len(rows))
    tp.program.one_hot(chosen, f"tile {level}")
    for d in range(3):
        columns, marks = decided[d]
        sizes = np.array([r[1 + d] for r in rows])
        tp.program.link_down((chosen, sizes), (columns, np.array([m.tile for m in marks])), f"{DIMS[d]} in {level}")
        v = TENSOR_OF_DIM[d]
        if len({mask[v] for mask in masks}) > 1:
            held = [c for c, m in zip(columns, marks, strict=True) if m.keep]
            room = [c for c, r in zip(chosen, rows, strict=True) if r[0][v]]
            values_ = np.concatenate([np.ones(len(held)), -np.ones(len(room))])
            tp.program.row([*held, *room], values_, high=0.0, name=f"{TENSORS[v]} held in {level}")
