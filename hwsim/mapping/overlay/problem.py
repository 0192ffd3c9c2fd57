"""The problem of an overlay mapper: chains, output tile and buffers of the cores of an FPGA, one phase at a time.

Candidates are arrays; seconds come from `hwsim.cost.fpga`, resources from the device file. The two modes of a core
share its slices, so prompts choose the matrix-matrix build and decode steps the matrix-vector build; the other mode
stays as the file has it. The cores (one a die region) stay too.

Resources of one core: slices = MACs a cycle / MACs a slice; bytes on the chip = two weight tiles and one activation
tile of the deepest product, and 4-byte sums; bytes a cycle = a weight for every MAC of the matrix-vector mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost import fpga
from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import MappedGraph, SolverReport

Array = np.ndarray[Any, Any]
ROWS: Final = (16, 32, 48, 64, 96, 128, 192, 256)  # of the output tile: matrix units side by side
COLS: Final = (8, 16, 24, 32, 40, 48, 64)
DEPTHS: Final = (1, 2, 3, 4, 5, 6, 8)  # slices of a chain that share one output
LANES: Final = (256, 512, 768, 1024, 1536, 2048, 3072, 4096)  # MACs a cycle of the matrix-vector mode
SUM_BYTES: Final = 4  # partial sums are 32 bits wide
OPERAND_BYTES: Final = 1  # int8 operands in the buffers: weights are expanded on the way in


@dataclass(frozen=True, slots=True)
class OverlayProblem:
    """Arrays over candidates (n): `fields` by name, seconds of the phase, and what each takes of `budget`.

    budget: {"dsp", "onchip_bytes", "onchip_bytes_per_s"} of the device; `needs` has the same keys. own: index of the
    build that the device file has.
    """

    fields: Mapping[str, Array]
    time_s: Array
    needs: Mapping[str, Array]
    budget: Mapping[str, float]
    own: int

    @property
    def legal(self) -> Array:
        return np.all([self.needs[key] <= self.budget[key] for key in self.budget], axis=0)


@dataclass(frozen=True, slots=True)
class OverlayDecision:
    """Index of the candidate."""

    chosen: int
    report: SolverReport


def problem_of(graph: MappedGraph) -> OverlayProblem:
    """The problem of a planned phase (scalars)."""
    device = graph.platform.device
    o = fpga.built(device, {})
    names: tuple[str, ...]
    if graph.phase == "decode":
        own: tuple[int, ...] = (o["mv_macs"], o["mv_cols"])
        # an instruction starts with half as many outputs as it has lanes, as on the published overlay
        lanes = [(v, max(v * o["mv_cols"] // o["mv_macs"], 1)) for v in LANES]
        names, rows = ("mv_macs", "mv_cols"), [own, *lanes]
    else:
        own = (o["mm_macs"], o["mm_rows"], o["mm_cols"])
        tiles = [(r * c * d, r, c) for r, c, d in itertools.product(ROWS, COLS, DEPTHS)]
        names, rows = ("mm_macs", "mm_rows", "mm_cols"), [own, *tiles]
    table = np.array(sorted(set(rows)))
    fields = {name: table[:, i] for i, name in enumerate(names)}
    whole = {**{k: np.full(len(table), o[k]) for k in ("mm_macs", "mv_macs", "mm_rows", "mm_cols")}, **fields}
    deepest = max((float(t.operator.dims["k"]) for t in graph.tasks if t.kind == "gemm"), default=0.0)
    tile = (2 * whole["mm_cols"] + whole["mm_rows"]) * deepest * OPERAND_BYTES
    near = device.memories[0]
    needs = {
        "dsp": o["engines"] * np.maximum(whole["mm_macs"], whole["mv_macs"]) / o["macs_per_dsp"],
        "onchip_bytes": o["engines"] * (tile + whole["mm_rows"] * whole["mm_cols"] * SUM_BYTES),
        "onchip_bytes_per_s": o["engines"] * whole["mv_macs"] * OPERAND_BYTES * o["clock"],
    }
    budget = {
        "dsp": np.inf if o["ternary"] else float(device.units),
        "onchip_bytes": float(near.size_bytes),
        "onchip_bytes_per_s": float(near.read_bytes_per_s),
    }
    times = np.broadcast_to(fpga.phase_s(graph.tasks, device, fields), (len(table),))
    return OverlayProblem(fields, np.asarray(times), needs, budget, rows_index(table, own))


def rows_index(table: Array, row: tuple[int, ...]) -> int:
    """Index of a row of the table."""
    return int(np.flatnonzero(np.all(table == np.array(row), axis=1))[0])


def best_overlay(problem: OverlayProblem) -> OverlayDecision:
    """The fastest candidate within the budget; of equals the one with the fewest slices. Raises InfeasibleError."""
    legal = problem.legal
    if not legal.any():
        raise out_of_budget(problem, int(np.argmin(problem.needs["dsp"])))
    order = np.lexsort((problem.needs["dsp"], np.where(legal, problem.time_s, np.inf)))
    chosen = int(order[0])
    value = float(problem.time_s[chosen])
    name = f"enumeration of {len(legal)} builds, {int(legal.sum())} within the budget"
    return OverlayDecision(chosen, SolverReport(name, "", "optimal", value, value, 0.0, 0.0))


def checked(problem: OverlayProblem, decision: OverlayDecision) -> dict[str, Any]:
    """The build as plain data. Raises InfeasibleError (over budget), CheckFailedError (another objective)."""
    k = decision.chosen
    if not problem.legal[k]:
        raise out_of_budget(problem, k)
    value, said = float(problem.time_s[k]), decision.report.objective
    if said == said and abs(said - value) > 1e-9 * value:
        raise CheckFailedError("the mapper's objective is not that of its build", seen=f"{said} and {value}")
    built = {name: int(column[k]) for name, column in problem.fields.items()}
    return {"built": built, "needs": {key: float(column[k]) for key, column in problem.needs.items()}}


def out_of_budget(problem: OverlayProblem, k: int) -> InfeasibleError:
    """The error that names the resource a build overdraws most, in relation."""
    over = {key: float(problem.needs[key][k]) / most for key, most in problem.budget.items()}
    worst = max(over, key=lambda key: over[key])
    need, have = float(problem.needs[worst][k]), problem.budget[worst]
    return InfeasibleError(
        f"the build needs {need - have:,.0f} more of {worst} than the device has",
        where=f"fpga overlay, {worst}",
        seen=f"{need:,.0f} of {have:,.0f}",
        fix="fewer matrix units, shorter chains or a smaller tile",
        budget={f"{worst}_needed": need, worst: have},
    )
