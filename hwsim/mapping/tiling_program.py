"""The integer program of one GEMM on one machine: three paths, tied by capacities, fan-outs and loop order."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.candidates import Options, admissible_extents
from hwsim.mapping.ilp import Program
from hwsim.mapping.machine import DIMS, IRRELEVANT, TENSOR_OF_DIM, TENSORS, Machine
from hwsim.mapping.paths import SOLO, STATIONARY, Arc, Mark, PathGraph, Space, path_graph
from hwsim.mapping.problem import Gemm, Tiling

Array = np.ndarray[Any, Any]
RELEVANT = ((0, 2), (2, 1), (0, 1))  # dimensions of A, B, Z


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


@dataclass(frozen=True)
class _Ports:
    """Finite ports: names, rate in words a cycle, and which port each level reads and writes through."""

    names: tuple[str, ...]
    rates: tuple[float, ...]
    levels: tuple[tuple[int | None, int | None], ...]
    owner: tuple[int, ...]


def ports_of(machine: Machine) -> _Ports:
    """The ports that can bind. Levels of one group share theirs."""
    names: dict[str, int] = {}
    rates: list[float] = []
    owner: list[int] = []
    levels = []

    def port(name: str, rate: float, level: int) -> int | None:
        if not math.isfinite(rate):
            return None
        if name not in names:
            names[name] = len(rates)
            rates.append(rate)
            owner.append(level)
        return names[name]

    for index, level in enumerate(machine.levels):
        if level.shared_port:
            both = port(level.memory, level.read_words_per_cycle, index)
            levels.append((both, both))
        else:
            read = port(f"{level.memory} read", level.read_words_per_cycle, index)
            levels.append((read, port(f"{level.memory} write", level.write_words_per_cycle, index)))
    return _Ports(tuple(names), tuple(rates), tuple(levels), tuple(owner))


def capacity(machine: Machine, level: int) -> float:
    """Words of one instance that tiles may fill: half where every tile is held twice."""
    item = machine.levels[level]
    return item.words / 2 if item.double_buffer else item.words


def make_graphs(machine: Machine, gemm: Gemm, options: Options) -> tuple[PathGraph, ...]:
    """The three path graphs. Raises InfeasibleError where even unit tiles do not fit."""
    ports = ports_of(machine)
    extents = tuple(admissible_extents(gemm.extents[d], options) for d in range(3))
    largest = tuple(largest_tiles(machine, gemm, level) for level in range(len(machine.levels)))
    space = Space(machine, gemm, extents, ports.levels, len(ports.names), largest)  # type: ignore[arg-type]
    return tuple(path_graph(space, d) for d in range(3))


def largest_tiles(machine: Machine, gemm: Gemm, level: int) -> tuple[int, int, int]:
    """Per dimension the largest extent that fits when the other two are 1 and only forced tensors are held."""
    item, room = machine.levels[level], capacity(machine, level)
    if math.isinf(room):
        return (2 * gemm.m + 64, 2 * gemm.n + 64, 2 * gemm.k + 64)
    forced = [v for v in range(3) if TENSORS[v] in item.keep and TENSORS[v] not in item.bypass and not item.group]
    if sum(machine.widths[v] for v in forced) > room:
        raise does_not_fit(machine, level, forced)
    out = []
    for d in range(3):
        slope = sum(machine.widths[v] for v in forced if IRRELEVANT[v] != d)
        rest = sum(machine.widths[v] for v in forced if IRRELEVANT[v] == d)
        out.append(int((room - rest) / slope) if slope else 2 * gemm.extents[d] + 64)
    return (out[0], out[1], out[2])


def does_not_fit(machine: Machine, level: int, forced: list[int]) -> InfeasibleError:
    item = machine.levels[level]
    need = sum(machine.widths[v] for v in forced) * (2 if item.double_buffer else 1)
    names = ", ".join(TENSORS[v] for v in forced)
    short = need - item.words
    return InfeasibleError(
        f"no tiling: level {item.name} cannot hold one element of each of {names}",
        where=f"{machine.name}.{item.name}",
        seen=f"{item.words:g} words, {need:g} needed: {short:g} words ({short * machine.word_bits / 8:g} B) short",
        fix=f"enlarge {item.name}, or let a tensor bypass it",
        budget={"words": item.words, "needed_words": need, "shortfall_words": short},
    )


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
    _add_capacities(out)
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


def marked(tp: TilingProgram, d: int, level: int) -> tuple[Array, list[Mark]]:
    """Columns of the arcs of dimension d that decide `level`, with their marks."""
    columns, marks = [], []
    for arc, column in zip(tp.graphs[d].arcs, tp.arcs[d], strict=True):
        for mark in arc.marks:
            if mark.level == level:
                columns.append(column)
                marks.append(mark)
    return np.array(columns, dtype=np.int64), marks


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
            continue  # between the halves of a split memory the filling decides (see `uneven`)
        decided = [marked(tp, d, level) for d in range(3)]
        loops = [[c for c, m in zip(*decided[d], strict=True) if m.loop > 1] for d in range(3)]
        claims = [[c for c, m in zip(*decided[d], strict=True) if m.claim] for d in range(3)]
        ways = [[c for other in range(3) if other != d for c in claims[other]] for d in range(3) if loops[d]]
        if any(loops):
            ways.append([c for columns in loops for c in columns])
        tp.program.disjunction(ways or [[]])
    for ways in tp.last_disjunctions:
        tp.program.disjunction(ways)


def _add_capacities(tp: TilingProgram) -> None:
    done = set()
    for level, item in enumerate(tp.machine.levels[:-1]):
        if item.memory in done or math.isinf(item.words):
            continue
        done.add(item.memory)
        halves = [i for i, other in enumerate(tp.machine.levels) if other.memory == item.memory]
        if len(halves) == 1:
            _add_capacity(tp, level)
        else:
            from hwsim.mapping.uneven import add_split_capacity

            add_split_capacity(tp, halves)


def masks_of(machine: Machine, level: int) -> list[tuple[bool, bool, bool]]:
    """The sets of tensors that a level may hold."""
    item = machine.levels[level]
    options = [(False,) if t not in item.keep else (True, False) if t in item.bypass else (True,) for t in TENSORS]
    return [(a, b, z) for a, b, z in itertools.product(*options)]


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


def maximal_tiles(
    values: list[Array], mask: tuple[bool, bool, bool], widths: tuple[float, float, float], room: float
) -> list[tuple[int, int, int]]:
    """Extents (M, N, K) that fit together and none of which can grow, from the given values.

    Size in words: sum over held tensors of the product of their two extents times the tensor's width.
    """
    m, n = (g.ravel() for g in np.meshgrid(values[0], values[1], indexing="ij"))
    a, b, z = (w if on else 0.0 for w, on in zip(widths, mask, strict=True))
    left = room - z * m * n
    per_k = a * m + b * n
    with np.errstate(divide="ignore"):
        bound = np.where(per_k > 0, left / np.maximum(per_k, 1e-300), math.inf)
    bound = np.where(left >= 0, bound * (1 + 1e-12), -1.0)
    at = np.searchsorted(values[2], bound, side="right") - 1
    fits = at >= 0
    triples = np.stack([m[fits], n[fits], values[2][at[fits]]], axis=1)
    return antichain(triples)


def antichain(points: Array) -> list[tuple[int, int, int]]:
    """Points that no other point reaches in every coordinate."""
    order = np.lexsort((-points[:, 2], -points[:, 1], -points[:, 0])) if len(points) else np.arange(0)
    kept: list[tuple[int, int, int]] = []
    front: Array = np.zeros((0, 2))
    for p in points[order]:
        if len(front) and np.any((front[:, 0] >= p[1]) & (front[:, 1] >= p[2])):
            continue
        kept.append((int(p[0]), int(p[1]), int(p[2])))
        front = np.vstack([front, p[1:]])
    return kept


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
