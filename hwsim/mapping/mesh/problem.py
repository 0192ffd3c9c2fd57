"""The problem of a mesh mapper: for every operator of a phase the side of its square of cores.

All squares of a phase share one corner of a region; regions hold the layers of the model one after another. An
operator on fewer cores waits less for reductions but holds more of its weights in each; going from one square to
another moves the activations between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cost import wafer
from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import MappedGraph, SolverReport

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class MeshProblem:
    """Arrays over operators (n) and candidate sides (s).

    Attributes
    ----------
    names: operators in the order they run; `sides`: candidates, ascending.
    cycles: (n, s) clock cycles of all executions. held: (n, s) bytes a core needs for one layer of the operator.
    previous: (n,) the operator that ran before: in a repeated block the last one comes before the first.
    move: (n, s, s) cycles of all moves from that operator, which ran on the first side, to the second.
    counts: (n,) executions.
    layers: (s,) layers of one region whose side is that of the largest square.
    room: bytes of a core that are free for weights and cache. routes, free_routes: a tree needs and a core has.
    """

    names: tuple[str, ...]
    sides: Array
    cycles: Array
    held: Array
    previous: Array
    move: Array
    counts: Array
    layers: Array
    room: float
    routes: int
    free_routes: int

    def value(self, chosen: Array) -> float:
        """Cycles of a choice (indices of sides, one an operator), moves included."""
        n = np.arange(len(chosen))
        own = self.cycles[n, chosen].sum()
        return float(own + self.move[n, chosen[self.previous], chosen].sum())

    def core_bytes(self, chosen: Array) -> float:
        """Bytes of a core in weights and cache."""
        return float(self.held[np.arange(len(chosen)), chosen].sum() * self.layers[chosen.max()])


@dataclass(frozen=True, slots=True)
class MeshDecision:
    """Indices into `MeshProblem.sides`, one an operator."""

    chosen: tuple[int, ...]
    report: SolverReport


def problem_of(graph: MappedGraph, step: int = wafer.SIDE_STEP) -> MeshProblem:
    """The problem of a phase that `hwsim.cost.wafer.plan` made ready. Scalars only.

    step: candidate sides are its multiples (the family's own choice is among them).
    """
    o = wafer.section(graph.platform.device)
    asked = wafer.asked_side(graph.phase, o)
    sides = np.array([asked]) if asked else np.arange(step, wafer.largest_side(o) + 1, step)
    tasks = graph.tasks
    previous = _previous(graph)
    cycles = np.empty((len(tasks), len(sides)))
    held = np.zeros_like(cycles)
    move = np.zeros((len(tasks), len(sides), len(sides)))
    for i, task in enumerate(tasks):
        spent = wafer.cycles(task, sides, o)
        cycles[i] = np.broadcast_to(spent.compute + spent.mesh, sides.shape) * task.count
        held[i] = wafer.task_bytes(task, graph, sides, o)
        before = tasks[previous[i]]
        move[i] = wafer.move_cycles(before, sides[:, None], sides[None, :], o) * min(before.count, task.count)
    layers = np.ceil(graph.layers / wafer.regions(sides, o))
    room = np.inf if o["layer_scaled"] else float(o["sram_per_core"] - o["reserved_per_core"])
    names, counts = tuple(task.name for task in tasks), np.array([task.count for task in tasks])
    return MeshProblem(names, sides, cycles, held, previous, move, counts, layers, room, o["tree"] + 1, o["routes"])


def _previous(graph: MappedGraph) -> Array:
    """Index of the operator before each; before the first of a repeated segment runs the segment's last."""
    segments = [task.operator.segment for task in graph.tasks]
    last = {segment: i for i, segment in enumerate(segments)}
    out = []
    for i, task in enumerate(graph.tasks):
        begins = i == 0 or segments[i - 1] != segments[i]
        out.append(last[segments[i]] if begins and task.count > 1 else max(i - 1, 0))
    return np.array(out)


def checked(problem: MeshProblem, decision: MeshDecision) -> dict[str, Mapping[str, Any]]:
    """The choice as plain data by operator. Raises InfeasibleError (core memory), CheckFailedError (its objective)."""
    chosen = np.asarray(decision.chosen)
    need = problem.core_bytes(chosen)
    if need > problem.room * (1 + 1e-12):
        raise does_not_fit(problem, need)
    value, said = problem.value(chosen), decision.report.objective
    if said == said and abs(said - value) > 1e-9 * value:
        raise CheckFailedError("the mapper's objective is not that of its squares", seen=f"{said} and {value}")
    out: dict[str, Mapping[str, Any]] = {}
    for i, name in enumerate(problem.names):
        moved = float(problem.move[i, chosen[problem.previous[i]], chosen[i]] / problem.counts[i])
        out[name] = {"grid": int(problem.sides[chosen[i]]), "move_cycles": moved, "bytes": float(need)}
    return out


def does_not_fit(problem: MeshProblem, need: float) -> InfeasibleError:
    """The error that names the shortfall of a core."""
    return InfeasibleError(
        f"no squares of cores hold the model: {need - problem.room:,.0f} B more than a core has",
        where="memory of one core",
        seen=f"{need:,.0f} B of weights and cache, {problem.room:,.0f} B free",
        fix="a shorter context, a smaller --weights format, or mesh.layer_scaled=true",
        budget={"core_bytes": need, "free_bytes": problem.room, "missing": need - problem.room},
    )
