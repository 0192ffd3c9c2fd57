"""Contiguous stages in prefix form: z[i, d] = 1 where item i lies in one of the stages 0..d.

z[i, d] <= z[i-1, d] (an item cannot lie earlier than the one before it) and z[i, d-1] <= z[i, d]. Item i is in stage
d where z[i, d] - z[i, d-1] = 1; the cut after stage d follows item i where z[i, d] - z[i+1, d] = 1. What is known of
an item beforehand is a constant, so a good incumbent leaves few columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.mapping.blocks.linear import Sum
from hwsim.mapping.ilp import Program

Array = np.ndarray[Any, Any]


class Prefix:
    """Columns z of `items` x (`stages` - 1).

    Parameters
    ----------
    earliest, latest: per item the first and last stage that it may lie in (both must not decrease; default: any).
    """

    def __init__(
        self, program: Program, items: int, stages: int, earliest: Array | None = None, latest: Array | None = None
    ) -> None:
        self.program, self.items, self.stages = program, items, stages
        first = np.zeros(items, dtype=int) if earliest is None else earliest
        last = np.full(items, stages - 1) if latest is None else latest
        stage = np.arange(stages - 1)
        self.one = last[:, None] <= stage
        free = ~self.one & (first[:, None] <= stage)
        self.index = np.full((items, max(stages - 1, 0)), -1)
        self.index[free] = program.columns(int(free.sum()))
        self._order()

    def _order(self) -> None:
        for d in range(self.stages - 1):
            for i in range(1, self.items):
                self._at_most((i, d), (i - 1, d))
        for d in range(1, self.stages - 1):
            for i in range(self.items):
                self._at_most((i, d - 1), (i, d))

    def _at_most(self, small: tuple[int, int], large: tuple[int, int]) -> None:
        if self.index[small] >= 0 and self.index[large] >= 0:
            self.program.row([self.index[small], self.index[large]], [1.0, -1.0], high=0.0)

    def weigh(self, into: Sum, stage: int, weights: Array) -> None:
        """Add sum_i weights[i] z[i, stage]; stage -1 is empty, the last stage holds everything."""
        if stage < 0:
            return
        if stage >= self.stages - 1:
            into.constant += float(weights.sum())
            return
        into.constant += float(weights[self.one[:, stage]].sum())
        free = (self.index[:, stage] >= 0) & (weights != 0)
        into.add(self.index[free, stage], weights[free])

    def inside(self, stage: int, weights: Array) -> Sum:
        """Sum of the weights of the items of a stage; `weights` has shape (items,)."""
        out = Sum()
        self.weigh(out, stage, weights)
        self.weigh(out, stage - 1, -weights)
        return out

    def cut(self, stage: int, weights: Array) -> Sum:
        """Weight of the cut between `stage` and the next; `weights` has shape (items - 1,): the cut after each item."""
        out = Sum()
        self.weigh(out, stage, np.append(weights, 0.0) - np.insert(weights, 0, 0.0))
        return out

    def read(self, solution: Array) -> Array:
        """Stage of each item, shape (items,)."""
        z = self.one.astype(float)
        free = self.index >= 0
        z[free] = solution[self.index[free]]
        return self.stages - 1 - np.round(z).astype(int).sum(axis=1)
