"""Operators on devices: candidates with their costs, tensors that flow, and the exact cost of a choice.

Operators run one after another (one stream, as the analytic engine lays them out). A tensor is sent once to each
other device that consumes it: bytes x seconds a byte + one latency a message. Equal layers are folded: an item has
`copies`, and a choice says for every copy which column it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.units import gib

Array = np.ndarray[Any, Any]
SLACK = 1e-8  # relative: a memory filled to within this is not overfull (tolerance of the solvers)


@dataclass(frozen=True, slots=True)
class Site:
    """A device: bytes that weights and caches may take, bytes that stay on chip between operators."""

    name: str
    memory_bytes: float
    onchip_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """An operator; `copies` equal layers hold it, all operators of one `block` repeat together."""

    name: str
    copies: int = 1
    block: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One way to run one copy of an item: on a site, in a variant (precision), keeping some flows on chip."""

    item: int
    site: int
    time_s: float
    energy_j: float = 0.0
    memory_bytes: float = 0.0
    label: str = ""
    keeps: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor of `source`, as items that consume it.

    Attributes
    ----------
    each: consumers in the same layer. wraps: in the next layer. exits: after the last layer (first copy of the item).
    everywhere: consumers after the last layer whose every copy reads it (cross attention).
    sent_bytes, messages: of one copy over the whole run. live_bytes: what it occupies while it is kept on chip.
    """

    name: str
    source: int
    each: tuple[int, ...] = ()
    wraps: tuple[int, ...] = ()
    exits: tuple[int, ...] = ()
    everywhere: tuple[int, ...] = ()
    sent_bytes: float = 0.0
    messages: float = 0.0
    live_bytes: float = 0.0

    @property
    def inner(self) -> bool:
        """Consumed within its layer only: such a tensor may be kept on chip."""
        return bool(self.each) and not (self.wraps or self.exits or self.everywhere)


@dataclass(frozen=True, slots=True)
class Shared:
    """A weight that several items read (a tied table): stored once on each site that holds one of them."""

    name: str
    stored_bytes: float
    items: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class GraphProblem:
    """What is to be placed. The matrices have shape (sites, sites); their diagonals are zero."""

    name: str
    sites: tuple[Site, ...]
    items: tuple[Item, ...]
    columns: tuple[Column, ...]
    flows: tuple[Flow, ...] = ()
    shared: tuple[Shared, ...] = ()
    seconds_per_byte: Array = field(default_factory=lambda: np.zeros((1, 1)))
    latency_s: Array = field(default_factory=lambda: np.zeros((1, 1)))
    joules_per_byte: Array = field(default_factory=lambda: np.zeros((1, 1)))

    @cached_property
    def copies(self) -> Array:
        return np.array([i.copies for i in self.items])

    @cached_property
    def column_item(self) -> Array:
        return np.array([c.item for c in self.columns], dtype=int)

    @cached_property
    def column_site(self) -> Array:
        return np.array([c.site for c in self.columns], dtype=int)

    def of(self, name: str) -> Array:
        """One field of all columns, shape (columns,)."""
        return np.array([getattr(c, name) for c in self.columns], dtype=float)

    def send_s(self, flow: Flow) -> Array:
        """Seconds to send one copy of a flow, shape (sites, sites)."""
        out: Array = flow.sent_bytes * self.seconds_per_byte + flow.messages * self.latency_s
        return out

    def send_j(self, flow: Flow) -> Array:
        out: Array = flow.sent_bytes * self.joules_per_byte
        return out


Choice = tuple[Array, ...]  # per item: the column of each copy, shape (copies,)


@dataclass(frozen=True, slots=True)
class PlacementCost:
    """Exact cost of a choice. `busy_s` includes what arrives at a site; `sends` lists (flow, from, to, copies)."""

    time_s: float
    compute_s: float
    transfer_s: float
    energy_j: float
    busy_s: Array
    memory_bytes: Array
    sends: tuple[tuple[int, int, int, int], ...]

    def value(self, objective: str) -> float:
        """The objective's value: ``latency`` and ``throughput`` in s, ``energy`` in J, ``edp`` in J s."""
        match objective:
            case "latency":
                return self.time_s
            case "throughput":
                return float(self.busy_s.max())
            case "energy":
                return self.energy_j
        return self.energy_j * self.time_s


def cost_of(problem: GraphProblem, choice: Choice) -> PlacementCost:
    """Cost of a choice, copy by copy (no folding)."""
    picked = np.concatenate(choice)
    n = len(problem.sites)
    site = problem.column_site[picked]
    busy = np.bincount(site, problem.of("time_s")[picked], n)
    memory = np.bincount(site, problem.of("memory_bytes")[picked], n)
    places = [problem.column_site[c] for c in choice]
    for tensor in problem.shared:
        held = sorted({int(s) for i in tensor.items for s in places[i]})
        memory[np.array(held)] += tensor.stored_bytes
    compute = float(busy.sum())
    energy = float(problem.of("energy_j")[picked].sum())
    sends: list[tuple[int, int, int, int]] = []
    for at, flow in enumerate(problem.flows):
        moved = _moves(flow, places, n)
        busy = busy + (moved * problem.send_s(flow)).sum(axis=0)
        energy += float((moved * problem.send_j(flow)).sum())
        sends += [(at, int(d), int(e), int(moved[d, e])) for d, e in np.argwhere(moved)]
    time = float(busy.sum())
    return PlacementCost(time, compute, time - compute, energy, busy, memory, tuple(sends))


def _moves(flow: Flow, places: Sequence[Array], sites: int) -> Array:
    """How often a flow goes from site to site, shape (sites, sites); once to each consuming site."""
    source = places[flow.source]
    arrives = np.zeros((len(source), sites), dtype=bool)
    for sink in flow.each:
        arrives[np.arange(len(source)), places[sink]] = True
    for sink in flow.wraps:
        arrives[np.arange(len(source) - 1), places[sink][1:]] = True
    for sink in flow.exits:
        arrives[-1, places[sink][0]] = True
    for sink in flow.everywhere:
        arrives[-1, places[sink]] = True
    arrives[np.arange(len(source)), source] = False
    out = np.zeros((sites, sites))
    np.add.at(out, source, arrives)
    return out


def violations(problem: GraphProblem, choice: Choice) -> list[str]:
    """What is wrong with a choice: wrong columns, full memories, tensors kept on chip by one side only."""
    wrong: list[str] = []
    for at, (item, picked) in enumerate(zip(problem.items, choice, strict=True)):
        if picked.shape != (item.copies,) or not np.all(problem.column_item[picked] == at):
            wrong.append(f"{item.name}: not one of its candidates for each of {item.copies} copies")
    if wrong:
        return wrong
    cost = cost_of(problem, choice)
    for site, used in zip(problem.sites, cost.memory_bytes, strict=True):
        if used > site.memory_bytes * (1 + SLACK):
            wrong.append(f"{site.name}: {gib(used)} in {gib(site.memory_bytes)}, {gib(used - site.memory_bytes)} short")
    return wrong + _kept_wrongly(problem, choice)


def _kept_wrongly(problem: GraphProblem, choice: Choice) -> list[str]:
    wrong = []
    for k, copy, columns in kept_flows(problem, choice):
        if not agree(k, columns):
            wrong.append(f"{problem.flows[k].name}: kept on chip by one side only in layer {copy}")
    for i, copy, s in overfull(problem, choice):
        site = problem.sites[s]
        wrong.append(
            f"{site.name}: more kept at {problem.items[i].name} in layer {copy} than {site.onchip_bytes:g} B on chip"
        )
    return wrong


def kept_flows(problem: GraphProblem, choice: Choice) -> list[tuple[int, int, list[Column]]]:
    """(flow, copy, columns of producer and consumers) of what any side keeps on chip."""
    columns = problem.columns
    if not any(columns[c].keeps for own in choice for c in own):
        return []
    found = []
    for k, flow in enumerate(problem.flows):
        for copy in range(problem.items[flow.source].copies if flow.inner else 0):
            ends = [columns[choice[i][copy]] for i in (flow.source, *flow.each)]
            if any(k in c.keeps for c in ends):
                found.append((k, copy, ends))
    return found


def agree(k: int, ends: Sequence[Column]) -> bool:
    """Whether producer and consumers of flow k keep it on one site's chip."""
    return all(k in c.keeps for c in ends) and len({c.site for c in ends}) == 1


def overfull(problem: GraphProblem, choice: Choice) -> list[tuple[int, int, int]]:
    """(item, copy, site) where the kept tensors alive while the item runs exceed the chip."""
    live = np.zeros((len(problem.items), int(problem.copies.max()), len(problem.sites)))
    for k, copy, ends in kept_flows(problem, choice):
        flow = problem.flows[k]
        live[flow.source : max(flow.each) + 1, copy, ends[0].site] += flow.live_bytes
    room = np.array([s.onchip_bytes for s in problem.sites])
    return [(int(i), int(c), int(s)) for i, c, s in np.argwhere(live > room * (1 + SLACK))]


def check(problem: GraphProblem, choice: Choice) -> None:
    """Raise InfeasibleError where a choice breaks a constraint."""
    wrong = violations(problem, choice)
    if wrong:
        raise InfeasibleError(f"the placement of {problem.name} is not legal", seen="; ".join(wrong[:3]))
