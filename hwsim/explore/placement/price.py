"""Prices of every operator on every device: the candidates of a placement, by phase and for a whole request.

The time of a candidate is that of the device's own cost model (the one `evaluate` uses), so a model placed on one
device alone takes exactly what `evaluate` says of it. A tensor kept on chip is priced as not moved at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.cost.peaks import native_16bit
from hwsim.cost.registry import cost_function
from hwsim.engine.estimate import Model
from hwsim.errors import InfeasibleError
from hwsim.explore.placement.devices import Member, network_of, platform_of
from hwsim.explore.placement.flows import Union, flows_of, union_of
from hwsim.explore.placement.phases import (
    PhaseGraph,
    Request,
    activation_reserve,
    cache_bytes,
    formats_of,
    phase_graphs,
    stored_weights,
)
from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Device
from hwsim.ir.result import TaskCost
from hwsim.ir.workload import Operator, WorkloadGraph
from hwsim.mapping.lower import lower
from hwsim.mapping.placement.problem import Column, Flow, GraphProblem, Item, Shared, Site

Array = np.ndarray[Any, Any]
_ENDS = ("embed", "head")


@dataclass(frozen=True, slots=True)
class Options:
    """How operators are priced: formats allowed (empty: each device's own), on-chip candidates, shares of memory.

    `rooms` limits the memory of sites by name (bytes); `link_bytes_per_s` replaces all links.
    """

    weights: tuple[str, ...] = ()
    activations: str | None = None
    kv_cache: str | None = None
    efficiency: str = "calibrated"
    keep: bool = False
    memory_fraction: float = 0.9
    rooms: tuple[tuple[str, float], ...] = ()
    link_bytes_per_s: float | None = None


@dataclass(frozen=True, eq=False)
class Priced:
    """The problem of the whole request, the same problem by phase (equal columns), and bands of the columns.

    `low_s`, `high_s`, `floor_s`: of the whole request, shape (columns,). `counts`: executions of each phase.
    """

    whole: GraphProblem
    phases: dict[str, GraphProblem]
    counts: dict[str, float]
    low_s: Array
    high_s: Array
    floor_s: Array
    members: tuple[Member, ...]
    links: dict[tuple[int, int], str]


def price(model: Model, members: Sequence[Member], request: Request, options: Options) -> Priced:
    """Candidates, flows, memories and links of a model on devices.

    Raises InfeasibleError where a device has no compute path for any format, or no memory is left.
    """
    labels = [_labels(m.device, options) for m in members]
    graphs = {key: phase_graphs(model, request, formats_of(dict(key))) for own in labels for key in own}
    caches = {key: cache_bytes(model, request, formats_of(dict(key))) for key in graphs}
    first = next(iter(graphs.values()))
    union = union_of(first)
    flows = _widest([flows_of(union, phases) for phases in graphs.values()])
    table = _Table(union, flows, options)
    known: dict[tuple[str, Any], list[_Row]] = {}
    for site, (member, own) in enumerate(zip(members, labels, strict=True)):
        for key in own:
            at = (member.device.name, key)
            if at not in known:
                known[at] = table.rows(member.device, graphs[key], caches[key], dict(key)["weights"])
            table.add(site, known[at])
    return table.priced(model.name, members, first, _sites(members, graphs, labels, options))


def _labels(device: Device, options: Options) -> list[tuple[tuple[str, str], ...]]:
    """Format names by role that a device may use, each as a hashable table."""
    native = {k: str(v) for k, v in device.extra.get("native", {}).items()}
    given = {"activations": options.activations, "kv_cache": options.kv_cache}
    chosen = {k: v for k, v in given.items() if v is not None}
    out = []
    for weights in options.weights or ("",):
        own = {} if weights else native
        table = {"weights": weights or native.get("weights") or native_16bit(device), **own, **chosen}
        out.append(tuple(sorted(table.items())))
    return list(dict.fromkeys(out))


def _widest(lists: list[list[list[Flow]]]) -> list[list[Flow]]:
    """Flows by phase with the most bytes over formats (a tensor is sent as wide as any device wants it)."""
    out = lists[0]
    for other in lists[1:]:
        out = [
            [replace(a, sent_bytes=max(a.sent_bytes, b.sent_bytes), live_bytes=max(a.live_bytes, b.live_bytes))
             for a, b in zip(mine, theirs, strict=True)]
            for mine, theirs in zip(out, other, strict=True)
        ]  # fmt: skip
    return out


def _sites(
    members: Sequence[Member],
    graphs: dict[Any, list[PhaseGraph]],
    labels: list[list[Any]],
    options: Options,
) -> tuple[Site, ...]:
    rooms = dict(options.rooms)
    out = []
    for member, own in zip(members, labels, strict=True):
        size = float(member.device.main_memory.size_bytes)
        size = min(size, rooms.get(member.name, rooms.get(member.device.name, size)))
        reserve = max(activation_reserve(graphs[key]) for key in own)
        usable = size * options.memory_fraction - reserve
        if usable <= 0:
            raise InfeasibleError(f"{member.name} has no room beside activations", where=member.name, seen=f"{size} B")
        cache = member.device.last_level_cache
        out.append(Site(member.name, usable, 0.0 if cache is None else float(cache.size_bytes)))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Row:
    """A candidate on a device: seconds and joules of one execution by phase, and its band over the request."""

    item: int
    label: str
    keeps: frozenset[int]
    times_s: tuple[float, ...]
    energies_j: tuple[float, ...]
    band_s: tuple[float, float, float]
    memory_bytes: float


class _Table:
    """Collects candidates."""

    def __init__(self, union: Union, flows: list[list[Flow]], options: Options) -> None:
        self.union, self.flows, self.options = union, flows, options
        self.rows_by_site: list[tuple[int, _Row]] = []
        names: dict[str, list[int]] = {}
        for i, operator in enumerate(union.operators):
            for name in stored_weights(operator):
                names.setdefault(name, []).append(i)
        self.tied = {name: tuple(items) for name, items in names.items() if len(items) > 1}

    def add(self, site: int, rows: list[_Row]) -> None:
        self.rows_by_site += [(site, row) for row in rows]

    def rows(self, device: Device, phases: list[PhaseGraph], caches: dict[str, float], label: str) -> list[_Row]:
        """Candidates of all operators on a device in one format."""
        room = device.last_level_cache
        onchip = float(room.size_bytes) if room is not None and self.options.keep else 0.0
        extra = [_overheads(device, p.graph, self.options.efficiency) for p in phases]
        out: list[_Row] = []
        for i, operator in enumerate(self.union.operators):
            held = {n: b for n, b in stored_weights(_wide(operator, phases)).items() if n not in self.tied}
            memory = sum(held.values()) + caches.get(operator.name, 0.0)
            kept: list[_Row] = []
            for keeps in self._keepable(i, onchip):
                costs = [self._cost(device, p.graph, operator.name, keeps) for p in phases]
                row = _row(i, label, keeps, (costs, phases, [e.get(operator.name, 0.0) for e in extra]), memory)
                if not any(k.keeps <= row.keeps and _no_better(row, k) for k in kept):
                    kept.append(row)
            out += kept
        return out

    def _keepable(self, item: int, onchip: float) -> list[frozenset[int]]:
        """Sets of neighbouring flows that could stay on chip together, the empty one first."""
        live = [max(f[k].live_bytes for f in self.flows) for k in range(len(self.flows[0]))]
        near = [
            k
            for k, flow in enumerate(self.flows[0])
            if flow.inner and item in (flow.source, *flow.each) and 0 < live[k] <= onchip
        ]
        subsets = itertools.chain.from_iterable(itertools.combinations(near, n) for n in range(len(near) + 1))
        return [frozenset(s) for s in subsets]

    def _cost(self, device: Device, graph: WorkloadGraph, name: str, keeps: frozenset[int]) -> TaskCost | None:
        operator = next((o for o in graph.operators if o.name == name), None)
        if operator is None:
            return None
        kept = {self.flows[0][k].name for k in keeps}
        lowered = lower(replace(graph, operators=(_unmoved(operator, kept),), edges=()), platform_of(device), Mapping())
        (task,) = lowered.tasks
        return cost_function(device.kind, self.options.efficiency)(task, lowered.platform)

    def priced(self, name: str, members: Sequence[Member], phases: list[PhaseGraph], sites: tuple[Site, ...]) -> Priced:
        net = network_of(members, self.options.link_bytes_per_s)
        counts = [p.count for p in phases]
        items = tuple(Item(o.name, o.repeat, o.segment) for o in self.union.operators)
        sizes = {n: b for o in self.union.operators for n, b in stored_weights(o).items()}
        shared = tuple(Shared(n, sizes[n], held) for n, held in self.tied.items())

        def problem(weights: Sequence[float]) -> GraphProblem:
            columns = tuple(
                Column(
                    r.item, s, _dot(weights, r.times_s), _dot(weights, r.energies_j), r.memory_bytes, r.label, r.keeps
                )
                for s, r in self.rows_by_site
            )
            links = (net.seconds_per_byte, net.latency_s, net.joules_per_byte)
            return GraphProblem(name, sites, items, columns, self._flows(weights), shared, *links)

        one = np.eye(len(phases))
        band = np.array([r.band_s for _, r in self.rows_by_site]).T
        by_phase = {p.name: problem(one[i].tolist()) for i, p in enumerate(phases)}
        by_count = {p.name: p.count for p in phases}
        return Priced(problem(counts), by_phase, by_count, band[0], band[1], band[2], tuple(members), net.names)

    def _flows(self, weights: Sequence[float]) -> tuple[Flow, ...]:
        out = []
        for own in zip(*self.flows, strict=True):
            sent, messages = _dot(weights, [f.sent_bytes for f in own]), _dot(weights, [f.messages for f in own])
            out.append(replace(own[0], sent_bytes=sent, messages=messages, live_bytes=max(f.live_bytes for f in own)))
        return tuple(out)


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return float(np.dot(weights, values))


def _wide(operator: Operator, phases: list[PhaseGraph]) -> Operator:
    """The operator of that name in this format's graphs."""
    found = (o for p in phases for o in p.graph.operators if o.name == operator.name)
    return next(found, operator)


def _unmoved(operator: Operator, kept: set[str]) -> Operator:
    """The operator with the kept tensors' traffic left out."""
    if not kept:
        return operator
    inputs = tuple(replace(t, touched=0.0) if t.name in kept else t for t in operator.inputs)
    outputs = tuple(replace(t, touched=0.0) if t.name in kept else t for t in operator.outputs)
    return replace(operator, inputs=inputs, outputs=outputs)


def _overheads(device: Device, graph: WorkloadGraph, efficiency: str) -> dict[str, float]:
    """Host work by operator: a constant a step on the first one, a constant a layer on the first of each block."""
    if efficiency == "datasheet":
        return {}
    out = {graph.operators[0].name: float(device.overheads.step_s)}
    for segment in dict.fromkeys(o.segment for o in graph.operators if o.segment not in _ENDS):
        first = next(o.name for o in graph.operators if o.segment == segment)
        out[first] = out.get(first, 0.0) + float(device.overheads.layer_s)
    return out


def _row(item: int, label: str, keeps: frozenset[int], parts: Any, memory: float) -> _Row:
    costs, phases, extra = parts
    times = tuple(0.0 if c is None else float(c.time_s) + e for c, e in zip(costs, extra, strict=True))
    joules = tuple(0.0 if c is None else float(c.energy_j) for c in costs)
    band = [0.0, 0.0, 0.0]
    for cost, phase, host in zip(costs, phases, extra, strict=True):
        if cost is not None:
            for at, value in enumerate((cost.low_s + host, cost.high_s + host, cost.floor_s)):
                band[at] += phase.count * float(value)
    return _Row(item, label, keeps, times, joules, (band[0], band[1], band[2]), memory)


def _no_better(row: _Row, other: _Row) -> bool:
    """Whether `row` (that keeps more) is nowhere better than `other`."""
    pairs = (*zip(row.times_s, other.times_s, strict=True), *zip(row.energies_j, other.energies_j, strict=True))
    return all(a >= b * (1 - 1e-12) for a, b in pairs) and row.memory_bytes >= other.memory_bytes
