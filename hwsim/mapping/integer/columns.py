"""The state of the program of one GEMM: which columns are which arcs, by dimension and level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.mapping.ilp import Program
from hwsim.mapping.integer.paths import Mark, PathGraph
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Gemm

Array = np.ndarray[Any, Any]


@dataclass
class TilingProgram:
    """Everything needed to solve, cap and read back: columns of the arcs by dimension, and port rows."""

    machine: Machine
    gemm: Gemm
    graphs: tuple[PathGraph, ...]
    program: Program
    arcs: tuple[Array, ...]
    port_names: tuple[str, ...]
    energy_scale: float
    constant_energy: float
    spread: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    last_disjunctions: list[list[Any]] = field(default_factory=list)


def marked(tp: TilingProgram, d: int, level: int) -> tuple[Array, list[Mark]]:
    """Columns of the arcs of dimension d that decide `level`, with their marks."""
    columns, marks = [], []
    for arc, column in zip(tp.graphs[d].arcs, tp.arcs[d], strict=True):
        for mark in arc.marks:
            if mark.level == level:
                columns.append(column)
                marks.append(mark)
    return np.array(columns, dtype=np.int64), marks
