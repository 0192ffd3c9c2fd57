"""Which layers on which pipeline stage: the partition whose slowest stage is quickest.

Stages take consecutive layers. A column is (stage, first layer, last layer) with its load and bytes; a partition is
a path through them, one column a stage (one-hot). Under a cap on the load of a stage, columns above the cap (or
above the memory of the stage's device) do not exist, and what is left is a network flow, whose linear relaxation is
integral. The smallest cap that admits a path is found by bisection over the loads that occur; every step is a
`solve`. Stages may have different devices: load and bytes are given for each stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.ilp import Program
from hwsim.mapping.solve import Solution, solve
from hwsim.units import gib

Array = NDArray[np.float64]
SLACK = 1e-12  # relative: loads closer than this are equal


@dataclass(frozen=True, slots=True)
class Loads:
    """What every layer costs on every stage.

    Attributes
    ----------
    load, held_bytes: shape (stages, layers): seconds of a layer, bytes that it keeps on a device of the stage.
    capacity_bytes: (stages,), what a device of the stage may hold.
    first, last: (seconds, bytes) of the embedding on the first stage and of the head on the last.
    handover: seconds that each stage but the last spends on sending.
    """

    load: Array
    held_bytes: Array
    capacity_bytes: Array
    first: tuple[float, float] = (0.0, 0.0)
    last: tuple[float, float] = (0.0, 0.0)
    handover: float = 0.0


@dataclass(frozen=True, slots=True)
class Partition:
    """Layers of each stage as `cuts` (stage s takes layers cuts[s] .. cuts[s+1] - 1), and the slowest stage."""

    cuts: tuple[int, ...]
    bottleneck: float
    report: SolverReport

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.cuts, self.cuts[1:], strict=False))


@dataclass(frozen=True, slots=True)
class _Columns:
    stage: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    load: Array
    fits: NDArray[np.bool_]


def balance(loads: Loads) -> Partition:
    """The partition with the smallest largest stage.

    Raises
    ------
    InfeasibleError: fewer layers than stages, or no partition fits in the memory of the devices; `budget` has the
    shortfall of the fullest stage of the most even partition.
    """
    stages, layers = loads.load.shape
    if layers < stages:
        raise InfeasibleError(f"{stages} stages for {layers} layers leave some without any", fix="fewer stages")
    columns = _columns(loads)
    caps = _caps(columns, loads)
    if not len(caps):
        raise _too_full(loads)
    low, high, best = 0, len(caps) - 1, None
    while low < high:
        middle = (low + high) // 2
        found = _try(columns, loads, float(caps[middle]))
        if found is None:
            low = middle + 1
        else:
            best, high = found, int(np.searchsorted(caps, found[1] * (1 - SLACK)))
    if best is None or abs(best[1] - caps[low]) > SLACK * best[1]:
        best = _try(columns, loads, float(caps[low]))
    if best is None:
        raise _too_full(loads)
    cuts, value, solution = best
    report = solution.report
    return Partition(cuts, value, SolverReport(report.solver, report.version, "optimal", value, value, 0.0, 0.0))


def stage_sums(values: Array, cuts: tuple[int, ...]) -> Array:
    """Sum of each stage: `values` (stages, layers) over the layers that `cuts` gives it."""
    return np.array([values[s, a:b].sum() for s, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False))])


def stage_loads(loads: Loads, cuts: tuple[int, ...]) -> Array:
    """Seconds of each stage, ends and hand-over included."""
    total = stage_sums(loads.load, cuts)
    total[:-1] += loads.handover
    total[0] += loads.first[0]
    total[-1] += loads.last[0]
    return total


def stage_bytes(loads: Loads, cuts: tuple[int, ...]) -> Array:
    """Bytes of each stage, ends included."""
    total = stage_sums(loads.held_bytes, cuts)
    total[0] += loads.first[1]
    total[-1] += loads.last[1]
    return total


def _columns(loads: Loads) -> _Columns:
    """Every (stage, start, end) that leaves a layer for each other stage."""
    stages, layers = loads.load.shape
    s, a, b = (x.ravel() for x in np.meshgrid(range(stages), range(layers), range(1, layers + 1), indexing="ij"))
    keep = (a >= s) & (b > a) & (b <= layers - (stages - 1 - s)) & ((s > 0) | (a == 0))
    keep &= (s < stages - 1) | (b == layers)
    s, a, b = s[keep], a[keep], b[keep]
    load = _ranges(loads.load, s, a, b) + loads.handover * (s < stages - 1)
    held = _ranges(loads.held_bytes, s, a, b)
    for at, (seconds, size) in ((0, loads.first), (stages - 1, loads.last)):
        load, held = load + seconds * (s == at), held + size * (s == at)
    return _Columns(s, a, b, load, held <= loads.capacity_bytes[s] * (1 + SLACK))


def _ranges(values: Array, stage: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> Array:
    prefix = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    return np.asarray(prefix[stage, end] - prefix[stage, start])


def _caps(columns: _Columns, loads: Loads) -> Array:
    """Loads that a slowest stage can have: from the even share of the work up, equal ones once."""
    stages = len(loads.load)
    ends = loads.first[0] + loads.last[0] + loads.handover * (stages - 1)
    even = (loads.load.min(axis=0).sum() + ends) / stages
    values = np.unique(columns.load[columns.fits & (columns.load >= even * (1 - SLACK))])
    distinct = np.ones(len(values), dtype=bool)
    distinct[1:] = np.diff(values) > SLACK * values[1:]
    return np.asarray(values[distinct])


def _try(columns: _Columns, loads: Loads, cap: float) -> tuple[tuple[int, ...], float, Solution] | None:
    """A partition under the cap with the least sum of squared loads, or None where there is none."""
    stages, layers = loads.load.shape
    width = layers + 1
    use = _on_a_path(columns, columns.fits & (columns.load <= cap * (1 + 2 * SLACK)), stages, layers)
    if not len(use):
        return None
    sources = columns.stage[use] * width + columns.start[use]
    targets = (columns.stage[use] + 1) * width + columns.end[use]
    start, sink = 0, stages * width + layers
    program = Program(f"partition into {stages} stages")
    arcs = program.path(sources, targets, start, sink, "stage")
    for arc, load in zip(arcs.tolist(), columns.load[use].tolist(), strict=True):
        program.cost[arc] = (load / cap) ** 2
    try:
        solution = solve(program)
    except InfeasibleError:
        return None
    chosen = use[solution.values[arcs] > 0.5]
    order = chosen[np.argsort(columns.stage[chosen])]
    return (0, *columns.end[order].tolist()), float(columns.load[order].max()), solution


def _on_a_path(columns: _Columns, open_: NDArray[np.bool_], stages: int, layers: int) -> NDArray[np.int64]:
    """The open columns that lie on some path: reached from the start, and the end reached from them."""
    before, after = np.zeros((2, stages + 1, layers + 1), dtype=bool)
    before[0, 0] = after[stages, layers] = True
    by_stage = [np.flatnonzero(open_ & (columns.stage == s)) for s in range(stages)]
    for s, here in enumerate(by_stage):
        before[s + 1, columns.end[here[before[s, columns.start[here]]]]] = True
    for s, here in reversed(list(enumerate(by_stage))):
        after[s, columns.start[here[after[s + 1, columns.end[here]]]]] = True
    on = open_ & before[columns.stage, columns.start] & after[columns.stage + 1, columns.end]
    return np.flatnonzero(on)


def _too_full(loads: Loads) -> InfeasibleError:
    stages, layers = loads.load.shape
    even = tuple(int(round(i * layers / stages)) for i in range(stages + 1))
    held = stage_bytes(loads, even)
    worst = int(np.argmax(held - loads.capacity_bytes))
    short = float(held[worst] - loads.capacity_bytes[worst])
    return InfeasibleError(
        f"no partition of {layers} layers into {stages} stages fits in memory",
        where=f"stage {worst + 1} of the most even partition",
        seen=f"{gib(held[worst])} of {gib(float(loads.capacity_bytes[worst]))}: {gib(max(short, 0.0))} missing",
        fix="more stages, a wider tensor group, a smaller batch or narrower formats",
        budget={"short_bytes": max(short, 0.0)},
    )
