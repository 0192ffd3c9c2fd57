"""The integer program of one GEMM on one machine: three paths, tied by capacities, fan-outs and loop order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.candidates import Options, admissible_extents
from hwsim.mapping.ilp import Program
from hwsim.mapping.integer.capacities import add_capacities
from hwsim.mapping.integer.columns import TilingProgram, marked
from hwsim.mapping.integer.paths import SOLO, STATIONARY, Arc, Mark, PathGraph, Space, path_graph
from hwsim.mapping.machine import DIMS, IRRELEVANT, TENSORS, Machine
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.tiling.limits import largest_tiles, ports_of

Array = np.ndarray[Any, Any]


def make_graphs(machine: Machine, gemm: Gemm, options: Options) -> tuple[PathGraph, ...]:
    """The three path graphs. Raises InfeasibleError where even unit tiles do not fit."""
    ports = ports_of(machine)
    extents = tuple(admissible_extents(gemm.extents[d], options) for d in range(3))
    largest = tuple(largest_tiles(machine, gemm, level) for level in range(len(machine.levels)))
    space = Space(machine, gemm, extents, ports.levels, len(ports.names), largest)  # type: ignore[arg-type]
    return tuple(path_graph(space, d) for d in range(3))


def build(machine: Machine, gemm: Gemm, graphs: tuple[PathGraph, ...]) -> TilingProgram:
    """The program without any cap on cycles; its cost is energy, scaled to about 1000."""
    program = Program(gemm.name)
    arcs = []
    for graph in graphs:
        sources = np.array([a.source for a in graph.arcs])
        targets = np.array([a.target for a in graph.arcs])
        arcs.append(program.path(sources, targets, 0, graph.sink, DIMS[graph.dim]))
    constant = gemm.macs * machine.mac_energy
    # a shortest path ignoring all limits gives the scale: the optimum lies within a small factor of it
    low = sum(_cheapest(graph) for graph in graphs)
    scale = 1000.0 / max(low, 1e-300)
    for graph, columns in zip(graphs, arcs, strict=True):
        for arc, column in zip(graph.arcs, columns, strict=True):
            program.cost[column] = arc.energy * scale
    out = TilingProgram(machine, gemm, graphs, program, tuple(arcs), ports_of(machine).names, scale, constant)
    _add_orders(out)
    add_capacities(out)
    _add_spreads(out)
    _add_disjunctions(out)
    return out


def _cheapest(graph: PathGraph) -> float:
    best = {0: 0.0}
    for arc in sorted(graph.arcs, key=lambda a: a.source):
        if arc.source in best:
            best[arc.target] = min(best.get(arc.target, math.inf), best[arc.source] + arc.energy)
    if graph.sink not in best:
        raise InfeasibleError(f"no tiling of dimension {DIMS[graph.dim]} exists", seen=f"dimension {DIMS[graph.dim]}")
    return best[graph.sink]


def _add_orders(tp: TilingProgram) -> None:
    """One stationary dimension a level; reuse through a level needs the other two to have no loop there."""
    for level in range(1, len(tp.machine.levels)):
        decided = [marked(tp, d, level) for d in range(3)]
        still = [c for columns, marks in decided for c, m in zip(columns, marks, strict=True) if m.claim == STATIONARY]
        if still:
            tp.program.at_most(still, 1.0, f"stationary {level}")
        for d in range(3):
            solo = [c for c, m in zip(*decided[d], strict=True) if m.claim == SOLO]
            for other in range(3):
                busy = [c for c, m in zip(*decided[other], strict=True) if m.loop > 1]
                if other != d and solo and busy:
                    tp.program.at_most([*solo, *busy], 1.0, f"solo {DIMS[d]} {level}")


def _add_disjunctions(tp: TilingProgram) -> None:
    """Per level, far to near: which dimension is innermost, or no loop at all. Bounds are tight once this is known."""
    for level in range(len(tp.machine.levels) - 1, 0, -1):
        if tp.machine.levels[level].memory == tp.machine.levels[level - 1].memory:
            continue  # between the halves of a split memory the filling decides (see `split`)
        decided = [marked(tp, d, level) for d in range(3)]
        loops = [[c for c, m in zip(*decided[d], strict=True) if m.loop > 1] for d in range(3)]
        claims = [[c for c, m in zip(*decided[d], strict=True) if m.claim] for d in range(3)]
        ways = [[c for other in range(3) if other != d for c in claims[other]] for d in range(3) if loops[d]]
        if any(loops):
            ways.append([c for columns in loops for c in columns])
        tp.program.disjunction(ways or [[]])
    for ways in tp.last_disjunctions:
        tp.program.disjunction(ways)


def _add_spreads(tp: TilingProgram) -> None:
    """One column per triple of spreads that fits a fan-out; paths agree with the chosen one."""
    for level, item in enumerate(tp.machine.levels[:-1]):
        if item.fanout == 1:
            continue
        decided = [marked(tp, d, level + 1) for d in range(3)]
        values = [np.unique([m.spread for m in marks]) for _, marks in decided]
        grid = np.stack([g.ravel() for g in np.meshgrid(*values, indexing="ij")], axis=1)
        triples = grid[np.prod(grid, axis=1) <= item.fanout]
        chosen = tp.program.columns(len(triples))
        tp.program.one_hot(chosen, f"spread {level}")
        for d in range(3):
            used = (decided[d][0], np.array([m.spread for m in decided[d][1]]))
            tp.program.link_equal((chosen, triples[:, d]), used, f"{DIMS[d]} over {level}")
        tp.spread[level] = (chosen, triples)


def with_cap(tp: TilingProgram, cycles: float, rounds: int) -> Program:
    """The epsilon constraint: a copy of the program where no part takes more than `cycles`.

    `rounds`: members of a batch that run one after another.
    """
    program = tp.program.copy()
    columns = np.concatenate(tp.arcs)
    logs = np.concatenate([[arc.log_steps for arc in graph.arcs] for graph in tp.graphs])
    need = math.log(tp.gemm.m) + math.log(tp.gemm.n) + math.log(tp.gemm.k) + math.log(rounds)
    program.row(columns, logs, high=math.log(cycles) - need + 1e-10, name="compute cycles")
    _close_slow_spreads(tp, program, cycles, rounds)
    ports = ports_of(tp.machine)
    for port, rate in enumerate(ports.rates):
        words = np.concatenate([[arc.words[port] for arc in graph.arcs] for graph in tp.graphs])
        used_columns, used = _instances(tp, program, ports.owner[port])
        values = np.concatenate([words / (rate * cycles), -used])
        high = 1.0 + 1e-10 if len(used) == 0 else 1e-10
        program.row(np.concatenate([columns, used_columns]), values, high=high, name=f"{ports.names[port]} cycles")
    return program


def _close_slow_spreads(tp: TilingProgram, program: Program, cycles: float, rounds: int) -> None:
    """With one fan-out a spread must reach MACs / cycles multipliers: drop the triples that do not."""
    if len(tp.spread) != 1:
        return
    ((chosen, triples),) = tp.spread.values()
    work = tp.gemm.m * tp.gemm.n * tp.gemm.k * rounds
    program.close(chosen[work > np.prod(triples, axis=1) * cycles * (1 + 1e-12)])


def _instances(tp: TilingProgram, program: Program, level: int) -> tuple[Array, Array]:
    """Columns and values whose sum is how many instances of `level` are used; empty where there is only one."""
    above = [tp.spread[at] for at in sorted(tp.spread) if at >= level]
    if not above:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    columns, used = above[0][0], np.prod(above[0][1], axis=1).astype(float)
    for chosen, triples in above[1:]:
        columns, used = _products(program, (columns, used), (chosen, np.prod(triples, axis=1).astype(float)))
    return columns, used


def _products(program: Program, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """One-hot columns of the product of two one-hot sizes."""
    a, b = np.unique(first[1]), np.unique(second[1])
    left, right = (g.ravel() for g in np.meshgrid(a, b, indexing="ij"))
    both = program.columns(len(left), integer=False)
    program.link_equal((both, left), first, "product")
    program.link_equal((both, right), second, "product")
    return both, left * right


def read_tiling(tp: TilingProgram, solution: Array) -> Tiling:
    """The chosen paths as a tiling, each level's loops ordered so that every claimed reuse happens."""
    levels = len(tp.machine.levels)
    marks: list[list[Mark]] = [[] for _ in range(3)]
    for d in range(3):
        chosen = {a.source: a for a, c in zip(tp.graphs[d].arcs, tp.arcs[d], strict=True) if solution[c] > 0.5}
        marks[d] = _walk(chosen, tp.graphs[d].sink)
    temporal = tuple((marks[0][i].loop, marks[1][i].loop, marks[2][i].loop) for i in range(levels))
    spatial = tuple((marks[0][i].spread, marks[1][i].spread, marks[2][i].spread) for i in range(1, levels))
    order = tuple(_order([marks[d][i] for d in range(3)]) for i in range(levels))
    keep = tuple(_held(tp.machine, [marks[IRRELEVANT[v]] for v in range(3)], i) for i in range(levels))
    return Tiling(temporal, spatial, order, keep)


def _held(machine: Machine, marks: list[list[Mark]], level: int) -> str:
    """Tensors held at a level; in a split memory the far half's mark takes a tensor out of the near half."""
    last = len(machine.levels) - 1
    next_is_far = level < last and machine.levels[level + 1].memory == machine.levels[level].memory
    return "".join(
        TENSORS[v] for v in range(3) if marks[v][level].keep and not (next_is_far and marks[v][level + 1].keep)
    )


def _walk(by_source: dict[int, Arc], sink: int) -> list[Mark]:
    marks: list[Mark] = []
    node = 0
    while node != sink:
        arc = by_source[node]
        marks.extend(arc.marks)
        node = arc.target
    return marks


def _order(marks: list[Mark]) -> str:
    """Outermost first: the stationary dimension innermost, then dimensions without a loop (their place is free)."""
    place = sorted(range(3), key=lambda d: (marks[d].claim in (STATIONARY, SOLO) and marks[d].loop > 1, -d))
    return "".join(DIMS[d] for d in place)
