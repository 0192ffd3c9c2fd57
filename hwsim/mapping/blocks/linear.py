"""Linear sums over columns of a program, with a constant part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from hwsim.mapping.ilp import Program

Array = np.ndarray[Any, Any]


class Sum:
    """sum(values x columns) + constant; built up in place."""

    def __init__(self, columns: Any = (), values: Any = 1.0, constant: float = 0.0) -> None:
        self._columns: list[Array] = []
        self._values: list[Array] = []
        self.constant = constant
        if len(columns):
            self.add(columns, values)

    def add(self, columns: Any, values: Any = 1.0) -> Sum:
        """Add columns with their factors (a scalar serves all)."""
        at = np.asarray(columns, dtype=np.int64).ravel()
        self._columns.append(at)
        self._values.append(np.broadcast_to(np.asarray(values, dtype=float), at.shape))
        return self

    def plus(self, other: Sum, factor: float = 1.0) -> Sum:
        """Add another sum times a factor."""
        for columns, values in zip(other._columns, other._values, strict=True):
            self.add(columns, values * factor)
        self.constant += other.constant * factor
        return self

    def scaled(self, factor: float) -> Sum:
        """A new sum, every part times a factor."""
        return Sum().plus(self, factor)

    @property
    def columns(self) -> Array:
        return np.concatenate(self._columns) if self._columns else np.zeros(0, dtype=np.int64)

    @property
    def values(self) -> Array:
        return np.concatenate(self._values) if self._values else np.zeros(0)

    @property
    def empty(self) -> bool:
        return not any(len(c) for c in self._columns)

    def row(self, program: Program, low: float = -math.inf, high: float = math.inf, name: str = "") -> None:
        """low <= sum <= high. A sum without columns that breaks its bounds makes the program infeasible."""
        program.row(self.columns, self.values, low - self.constant, high - self.constant, name)

    def minimise(self, program: Program, factor: float = 1.0) -> None:
        """Add the sum to the objective (its constant part is the caller's to remember)."""
        for column, value in zip(self.columns, self.values, strict=True):
            program.cost[column] += value * factor

    def at(self, solution: Array) -> float:
        """Value in a solution."""
        return float(np.dot(solution[self.columns], self.values)) + self.constant


def total(sums: Iterable[Sum]) -> Sum:
    """The sum of sums."""
    out = Sum()
    for item in sums:
        out.plus(item)
    return out


def least_of(program: Program, parts: Iterable[Sum], name: str = "", floor: float = 0.0) -> int:
    """A column that is at least every part and the floor: its minimum is their maximum. Returns the column."""
    column = int(program.columns(1, upper=math.inf, integer=False)[0])
    if floor > 0:
        program.row([column], 1.0, floor, math.inf, f"{name} floor")
    for at, part in enumerate(parts):
        Sum([column], -1.0).plus(part).row(program, high=0.0, name=f"{name} {at}")
    return column
