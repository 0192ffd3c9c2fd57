"""Symmetry folding: runs of equal layers are one item with a count, so that no solver tells equal layers apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Items `first` .. `last` (inclusive) repeat `copies` times as a whole."""

    first: int
    last: int
    copies: int


def runs(blocks: Sequence[str], copies: Sequence[int]) -> list[Run]:
    """Neighbours of one block with one count form a run; items that do not repeat form runs of one copy."""
    out: list[Run] = []
    for at, (block, count) in enumerate(zip(blocks, copies, strict=True)):
        joins = out and blocks[out[-1].first] == block and out[-1].copies == count
        if joins:
            out[-1] = Run(out[-1].first, at, count)
        else:
            out.append(Run(at, at, count))
    return out


def unrolled(parts: Sequence[Run]) -> list[tuple[int, int]]:
    """(item, copy) in the order of execution."""
    return [(i, c) for run in parts for c in range(run.copies) for i in range(run.first, run.last + 1)]
