"""The program of general placements: one-hot columns, tight edge variables, memories, tensors kept on chip.

Equal layers are folded: a column's variable counts the copies that take it. Of a tensor that goes from layer to
layer, all copies but the last reach all copies but the first of their consumers, and the last copy leaves the block;
which layer is first and last is decided by one-hot variables, and a site with layers but not the first one is entered
at least once. Every placement of the unrolled graph satisfies these rows at its own cost, so the bound holds for it;
`arrange` then says which layer takes what, at exact cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.mapping.blocks.flows import Places, edge
from hwsim.mapping.blocks.linear import Sum, least_of, total
from hwsim.mapping.ilp import Program
from hwsim.mapping.placement.problem import Flow, GraphProblem

Array = np.ndarray[Any, Any]
UNITS = 1e3  # objectives are scaled so that a cheap placement costs about this


@dataclass(slots=True)
class GraphProgram:
    """A program over counts of columns, and the sums that objectives and caps are made of (scaled)."""

    problem: GraphProblem
    program: Program
    x: Array
    time_unit: float
    energy_unit: float
    arrives: list[list[Sum]] = field(default_factory=list)  # [site] = [seconds, joules] of what arrives there
    memory: list[Sum] = field(default_factory=list)
    entered: dict[str, list[Sum]] = field(default_factory=dict)  # [block][site]: how often tensors arrive

    def busy(self, site: int) -> Sum:
        """Seconds of a site: its operators and what arrives (scaled)."""
        at = np.flatnonzero(self.problem.column_site == site)
        seconds = self.problem.of("time_s")[at] / self.time_unit
        return Sum(self.x[at], seconds).plus(self.arrives[site][0], 1 / self.time_unit)

    def time(self) -> Sum:
        return total(self.busy(s) for s in range(len(self.problem.sites)))

    def energy(self) -> Sum:
        own = Sum(self.x, self.problem.of("energy_j") / self.energy_unit)
        return own.plus(total(a[1] for a in self.arrives), 1 / self.energy_unit)

    def aim(self, objective: str) -> float:
        """Set the objective; returns the unit of its value."""
        if objective == "energy":
            self.energy().minimise(self.program)
            return self.energy_unit
        if objective == "throughput":
            parts = [self.busy(s) for s in range(len(self.problem.sites))]
            self.program.cost[least_of(self.program, parts, "busy")] = 1.0
        else:
            self.time().minimise(self.program)
        return self.time_unit

    def counts(self, values: Array) -> Array:
        """Copies that take each column, shape (columns,)."""
        return np.round(values[self.x]).astype(int)


def build(problem: GraphProblem, *, overflow: bool = False) -> GraphProgram:
    """The program without an objective. `overflow` lets memories overflow at a price (to explain what is short)."""
    program = Program(f"placement of {problem.name}")
    x = program.columns(len(problem.columns))
    copies = problem.copies[problem.column_item]
    for column, count in zip(x, copies, strict=True):
        program.upper[column] = float(count)
    units = (_unit(problem, "time_s"), _unit(problem, "energy_j"))
    out = GraphProgram(problem, program, x, *units)
    out.arrives = [[Sum(), Sum()] for _ in problem.sites]
    for i, item in enumerate(problem.items):
        own = x[problem.column_item == i]
        program.row(own, 1.0, item.copies, item.copies, item.name)
    ends = _Ends(out)
    for flow in problem.flows:
        _flow(out, ends, flow)
    _rings(out, ends)
    _memories(out, ends, overflow)
    for k in sorted({k for c in problem.columns for k in c.keeps}):
        if problem.flows[k].inner:
            _keep(out, k, problem.flows[k])
    _onchip(out)
    return out


def _unit(problem: GraphProblem, name: str) -> float:
    """Cheapest candidates of all items together, over `UNITS`; 1 where everything is free."""
    least = np.full(len(problem.items), math.inf)
    np.minimum.at(least, problem.column_item, problem.of(name))
    lowest = float((least * problem.copies).sum()) or float(problem.of(name).max(initial=0.0))
    return lowest / UNITS or 1.0


class _Ends:
    """How many copies of an item lie on each site: all, the first and the last layer (made when asked for)."""

    def __init__(self, target: GraphProgram) -> None:
        self.target = target
        self._all: dict[int, Places] = {}
        self._one: dict[tuple[int, str], Places] = {}
        self._used: dict[int, Places] = {}

    def all(self, item: int) -> Places:
        if item not in self._all:
            problem, x = self.target.problem, self.target.x
            own = problem.column_item == item
            sites = range(len(problem.sites))
            self._all[item] = [Sum(x[own & (problem.column_site == s)]) for s in sites]
        return self._all[item]

    def one(self, item: int, which: str) -> Places:
        """Site of the ``first`` or ``last`` layer's copy."""
        if self.target.problem.items[item].copies == 1:
            return self.all(item)
        key = (item, which)
        if key not in self._one:
            program, everything = self.target.program, self.all(item)
            columns = program.columns(len(everything))
            program.one_hot(columns, which)
            for column, place in zip(columns, everything, strict=True):
                Sum([column]).plus(place, -1.0).row(program, high=0.0)
            self._one[key] = [Sum([c]) for c in columns]
        return self._one[key]

    def used(self, item: int) -> Places:
        """Whether a site holds any copy of an item (1 where it does, at least)."""
        if item not in self._used:
            program, shares = self.target.program, self.share(item)
            columns = program.columns(len(shares))
            for column, share in zip(columns, shares, strict=True):
                Sum([column]).plus(share, -1.0).row(program, low=0.0)
            self._used[item] = [Sum([c]) for c in columns]
        return self._used[item]

    def without(self, item: int, which: str) -> Places:
        """All copies but the first or the last."""
        return [Sum().plus(a).plus(o, -1.0) for a, o in zip(self.all(item), self.one(item, which), strict=True)]

    def share(self, item: int) -> Places:
        """Share of the copies on each site."""
        return [Sum().plus(p, 1 / self.target.problem.items[item].copies) for p in self.all(item)]


def _flow(target: GraphProgram, ends: _Ends, flow: Flow) -> None:
    problem = target.problem
    costs = np.stack([problem.send_s(flow), problem.send_j(flow)])
    copies = problem.items[flow.source].copies
    leaving = [ends.one(i, "first") for i in flow.exits] + [ends.share(i) for i in flow.everywhere]
    if copies == 1:
        _edge(target, ends.all(flow.source), [*(ends.all(i) for i in flow.each), *leaving], costs, copies)
        return
    counted = np.concatenate([costs, 1 - np.eye(len(problem.sites))[None]])
    entered = target.entered.setdefault(problem.items[flow.source].block, [Sum() for _ in problem.sites])
    if not (flow.wraps or leaving):
        _edge(target, ends.all(flow.source), [ends.all(i) for i in flow.each], counted, copies, entered)
        return
    body = [ends.without(i, "last") for i in flow.each] + [ends.without(i, "first") for i in flow.wraps]
    _edge(target, ends.without(flow.source, "last"), body, counted, copies - 1, entered)
    last = [ends.one(i, "last") for i in flow.each]
    _edge(target, ends.one(flow.source, "last"), [*last, *leaving], counted, 1, entered)


def _edge(
    target: GraphProgram, source: Places, sinks: list[Places], costs: Array, copies: int, entered: Places = ()
) -> None:
    """Edge variables of a flow: what arrives, and how often, at each site."""
    for site, (seconds, joules, *count) in edge(target.program, source, sinks, costs, copies):
        target.arrives[site][0].plus(seconds)
        target.arrives[site][1].plus(joules)
        if count:
            entered[site].plus(count[0])


def _rings(target: GraphProgram, ends: _Ends) -> None:
    """A site that holds a layer's entry, but not the first layer's, is entered from another at least once.

    Without this, layers of two sites could each feed themselves in a ring.
    """
    problem = target.problem
    for item in sorted({i for flow in problem.flows for i in flow.wraps}):
        if not _returns(problem, item):
            continue
        for site, entered in enumerate(target.entered[problem.items[item].block]):
            row = Sum().plus(entered).plus(ends.used(item)[site], -1.0).plus(ends.one(item, "first")[site])
            row.row(target.program, low=0.0, name="entered")


def _returns(problem: GraphProblem, item: int) -> bool:
    """Whether an item reaches, through its own layer, a tensor that comes back to it in the next."""
    reached, queue = {item}, [item]
    while queue:
        at = queue.pop()
        for flow in (f for f in problem.flows if f.source == at):
            if item in flow.wraps:
                return True
            new = set(flow.each) - reached
            reached |= new
            queue += new
    return False


def _memories(target: GraphProgram, ends: _Ends, overflow: bool) -> None:
    problem, program = target.problem, target.program
    stored = problem.of("memory_bytes")
    tables = [program.columns(len(problem.sites), integer=False) for _ in problem.shared]
    for held, tensor in zip(tables, problem.shared, strict=True):
        for item in tensor.items:
            for column, share in zip(held, ends.share(item), strict=True):
                Sum([column]).plus(share, -1.0).row(program, low=0.0)
    for s, site in enumerate(problem.sites):
        unit = max(site.memory_bytes, 1.0)
        at = np.flatnonzero((problem.column_site == s) & (stored > 0))
        used = Sum(target.x[at], stored[at] / unit)
        for held, tensor in zip(tables, problem.shared, strict=True):
            used.add([held[s]], tensor.stored_bytes / unit)
        if overflow:
            over = program.columns(1, unit / sum(t.memory_bytes for t in problem.sites), math.inf, integer=False)
            used.add(over, -1.0)
        target.memory.append(used)
        if not used.empty and math.isfinite(site.memory_bytes):
            used.row(program, high=site.memory_bytes / unit, name=f"memory of {site.name}")


def _keepers(target: GraphProgram, item: int, site: int, k: int) -> Sum:
    at = [
        c
        for c in np.flatnonzero((target.problem.column_item == item) & (target.problem.column_site == site))
        if k in target.problem.columns[c].keeps
    ]
    return Sum(target.x[at])


def _keep(target: GraphProgram, k: int, flow: Flow) -> None:
    """Producer and every consumer keep a tensor on chip together, or none does."""
    for site in range(len(target.problem.sites)):
        kept = _keepers(target, flow.source, site, k)
        for sink in flow.each:
            Sum().plus(kept).plus(_keepers(target, sink, site, k), -1.0).row(target.program, 0.0, 0.0, flow.name)


def _onchip(target: GraphProgram) -> None:
    """While an operator runs, the kept tensors that are alive fit on chip."""
    problem = target.problem
    kept = {k for c in problem.columns for k in c.keeps}
    for i, item in enumerate(problem.items):
        alive = [k for k in kept if problem.flows[k].source <= i <= max(problem.flows[k].each)]
        for s, site in enumerate(problem.sites):
            unit = max(site.onchip_bytes, 1.0)
            used = Sum()
            for k in alive:
                used.plus(_keepers(target, problem.flows[k].source, s, k), problem.flows[k].live_bytes / unit)
            if not used.empty:
                used.row(target.program, high=item.copies * site.onchip_bytes / unit, name=f"{site.name} on chip")
