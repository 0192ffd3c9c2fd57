"""Building blocks of integer programs: columns and rows as arrays, and the shapes that mapping problems are made of.

A `Program` is solver-neutral; `hwsim.mapping.solve.solve` hands it to CBC (through PuLP), HiGHS or scipy's milp.
The blocks: `one_hot`, `path` (flow conservation), `link_down` (a choice allows everything up to it), `at_most`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Program:
    """A minimisation over columns with bounds 0..upper, rows low <= row <= high."""

    def __init__(self, name: str = "program") -> None:
        self.name = name
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self._columns: list[Array] = []
        self._values: list[Array] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.row_names: list[str] = []
        self.disjunctions: list[list[Array]] = []

    @property
    def n_columns(self) -> int:
        return len(self.cost)

    @property
    def n_rows(self) -> int:
        return len(self.low)

    def copy(self) -> Program:
        """An independent program with the same rows, to add to."""
        other = Program(self.name)
        other.cost, other.upper, other.integer = list(self.cost), list(self.upper), list(self.integer)
        other._columns, other._values = list(self._columns), list(self._values)
        other.low, other.high, other.row_names = list(self.low), list(self.high), list(self.row_names)
        other.disjunctions = [list(d) for d in self.disjunctions]
        return other

    def close(self, columns: Any) -> None:
        """Fix columns to 0."""
        for column in np.asarray(columns, dtype=np.int64):
            self.upper[column] = 0.0

    def columns(
        self, count: int, cost: Sequence[float] | float = 0.0, upper: float = 1.0, integer: bool = True
    ) -> Array:
        """Add `count` columns; returns their indices."""
        start = len(self.cost)
        self.cost.extend(float(c) for c in np.broadcast_to(np.asarray(cost, dtype=float), (count,)))
        self.upper.extend([upper] * count)
        self.integer.extend([integer] * count)
        return np.arange(start, start + count)

    def row(self, columns: Any, values: Any, low: float = -math.inf, high: float = math.inf, name: str = "") -> int:
        """Add one row; returns its index. Equal columns may repeat (their values add up)."""
        columns = np.asarray(columns, dtype=np.int64)
        self._columns.append(columns)
        self._values.append(np.broadcast_to(np.asarray(values, dtype=float), columns.shape))
        self.low.append(low)
        self.high.append(high)
        self.row_names.append(name)
        return len(self.low) - 1

    def one_hot(self, columns: Any, name: str = "") -> int:
        """Exactly one of the columns."""
        return self.row(columns, 1.0, 1.0, 1.0, name)

    def disjunction(self, alternatives: Sequence[Any]) -> None:
        """One alternative holds; each is given by the columns that are 0 in it. Together they must cover all solutions.

        The program is correct without; the search branches here first because the bounds get tight.
        """
        self.disjunctions.append([np.asarray(a, dtype=np.int64) for a in alternatives])

    def at_most(self, columns: Any, bound: float = 1.0, name: str = "") -> int:
        return self.row(columns, 1.0, -math.inf, bound, name)

    def path(self, sources: Array, targets: Array, start: int, sink: int, name: str = "") -> Array:
        """Columns that are arcs of a graph: unit flow from `start` to `sink`. Returns the columns."""
        arcs = self.columns(len(sources))
        for node in np.union1d(sources, targets):
            out, into = arcs[sources == node], arcs[targets == node]
            balance = 1.0 if node == start else -1.0 if node == sink else 0.0
            values = np.concatenate([np.ones(len(out)), -np.ones(len(into))])
            self.row(np.concatenate([out, into]), values, balance, balance, f"{name} node {node}")
        return arcs

    def link_down(self, chosen: tuple[Array, Array], used: tuple[Array, Array], name: str = "") -> None:
        """One-hot `chosen` (columns, sizes) admits one-hot `used` (columns, sizes) of at most the chosen size.

        Written with one carry per distinct size, so that rows stay sparse: what is chosen at a size and not used
        there goes on to the next smaller one.
        """
        sizes = np.union1d(chosen[1], used[1])[::-1]
        carry = self.columns(max(len(sizes) - 1, 0), integer=False)
        for at, size in enumerate(sizes):
            here, there = chosen[0][chosen[1] == size], used[0][used[1] == size]
            columns, values = [here, there], [np.ones(len(here)), -np.ones(len(there))]
            if at > 0:
                columns.append(carry[at - 1 : at])
                values.append(np.ones(1))
            if at < len(sizes) - 1:
                columns.append(carry[at : at + 1])
                values.append(-np.ones(1))
            self.row(
                np.concatenate(columns), np.concatenate(values), 0.0, math.inf if at == len(sizes) - 1 else 0.0, name
            )

    def link_equal(self, chosen: tuple[Array, Array], used: tuple[Array, Array], name: str = "") -> None:
        """One-hot `chosen` and one-hot `used` agree on their size."""
        for size in np.union1d(chosen[1], used[1]):
            here, there = chosen[0][chosen[1] == size], used[0][used[1] == size]
            values = np.concatenate([np.ones(len(here)), -np.ones(len(there))])
            self.row(np.concatenate([here, there]), values, 0.0, 0.0, name)

    def matrix(self) -> Any:
        """The rows as a scipy CSC matrix of shape (rows, columns)."""
        from scipy.sparse import csc_matrix

        if not self._columns:
            return csc_matrix((0, self.n_columns))
        lengths = [len(c) for c in self._columns]
        rows = np.repeat(np.arange(self.n_rows), lengths)
        data = (np.concatenate(self._values), (rows, np.concatenate(self._columns)))
        return csc_matrix(data, shape=(self.n_rows, self.n_columns))
