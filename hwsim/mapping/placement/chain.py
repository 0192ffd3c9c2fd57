"""Operators in the order of execution, for contiguous stages: the unrolled graph, and the exact cost of stages.

After operator i every tensor that is produced up to i and consumed later crosses the cut; it is handed from stage to
stage. Sending is charged to the receiving stage. A device between two others that gets no operator still forwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.mapping.blocks.fold import runs, unrolled
from hwsim.mapping.placement.problem import SLACK, GraphProblem, PlacementCost, Site
from hwsim.units import gib

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Chain:
    """n operators in order. `time_s`, `energy_j`, `memory_bytes`: (n, sites), inf where a site cannot run one.

    `hop_bytes`, `hop_messages`: (n - 1,), what crosses the cut after each operator. `shared`: (bytes, positions) of
    weights that several operators read. The matrices have shape (sites, sites). `item`, `copy`, `column`: where an
    operator of the chain comes from, `column` of shape (n, sites), -1 where there is none.
    """

    name: str
    sites: tuple[Site, ...]
    names: tuple[str, ...]
    time_s: Array
    energy_j: Array
    memory_bytes: Array
    hop_bytes: Array
    hop_messages: Array
    shared: tuple[tuple[float, tuple[int, ...]], ...]
    seconds_per_byte: Array
    latency_s: Array
    joules_per_byte: Array
    item: Array
    copy: Array
    column: Array

    def hop_s(self, source: int, target: int) -> Array:
        """Seconds that each cut costs between two sites, shape (n - 1,)."""
        out: Array = (
            self.hop_bytes * self.seconds_per_byte[source, target] + self.hop_messages * self.latency_s[source, target]
        )
        return out

    def hop_j(self, source: int, target: int) -> Array:
        out: Array = self.hop_bytes * self.joules_per_byte[source, target]
        return out


def chain_of(problem: GraphProblem, objective: str = "latency", columns: Array | None = None) -> Chain:
    """The unrolled graph with the best candidate of each operator on each site (nothing kept on chip).

    ``latency`` and ``throughput`` take the fastest candidate, ``energy`` the thriftiest, ``edp`` the least product;
    `columns`, shape (items, sites), says which ones instead.
    """
    order = unrolled(runs([i.block for i in problem.items], [i.copies for i in problem.items]))
    item, copy = (np.array(part) for part in zip(*order, strict=True))
    best = (best_columns(problem, objective) if columns is None else columns)[item]
    position = {key: at for at, key in enumerate(order)}
    hop_bytes, hop_messages = _crossings(problem, position)
    table = {name: np.append(problem.of(name), np.inf)[best] for name in ("time_s", "energy_j", "memory_bytes")}
    return Chain(
        problem.name,
        problem.sites,
        tuple(problem.items[i].name for i in item),
        table["time_s"],
        table["energy_j"],
        table["memory_bytes"],
        hop_bytes,
        hop_messages,
        tuple((t.stored_bytes, tuple(np.flatnonzero(np.isin(item, t.items)).tolist())) for t in problem.shared),
        problem.seconds_per_byte,
        problem.latency_s,
        problem.joules_per_byte,
        item,
        copy,
        best,
    )


def best_columns(problem: GraphProblem, objective: str = "latency") -> Array:
    """Column of each (item, site), -1 where there is none."""
    time, energy = problem.of("time_s"), problem.of("energy_j")
    key = {"energy": energy, "edp": energy * time}.get(objective, time)
    best = np.full((len(problem.items), len(problem.sites)), -1)
    for at, c in enumerate(problem.columns):
        old = best[c.item, c.site]
        if not c.keeps and (old < 0 or key[at] < key[old]):
            best[c.item, c.site] = at
    return best


def _crossings(problem: GraphProblem, position: dict[tuple[int, int], int]) -> tuple[Array, Array]:
    """Bytes and messages alive across the cut after each position."""
    steps = np.zeros((2, len(position) + 1))
    for flow in problem.flows:
        copies = problem.items[flow.source].copies
        for copy in range(copies):
            start = position[flow.source, copy]
            end = max(_readers(problem, flow, copy, position), default=start)
            steps[:, start] += (flow.sent_bytes, flow.messages)
            steps[:, end] -= (flow.sent_bytes, flow.messages)
    alive = np.cumsum(steps, axis=1)[:, : len(position) - 1]
    alive[np.abs(alive) < 1e-9 * np.abs(steps).max(initial=1.0)] = 0.0
    return alive[0], alive[1]


def _readers(problem: GraphProblem, flow: Any, copy: int, position: dict[tuple[int, int], int]) -> list[int]:
    last = copy == problem.items[flow.source].copies - 1
    found = [position[j, copy] for j in flow.each]
    found += [] if last else [position[j, copy + 1] for j in flow.wraps]
    if last:
        found += [position[j, 0] for j in flow.exits]
        found += [position[j, problem.items[j].copies - 1] for j in flow.everywhere]
    return found


def cost_of_stages(chain: Chain, stages: Array, order: tuple[int, ...]) -> PlacementCost:
    """Exact cost of contiguous stages; arrays are by stage. `sends` lists (cut position, from stage, to stage, 1)."""
    n, rows = len(order), np.arange(len(stages))
    site = np.asarray(order)[stages]
    busy = np.bincount(stages, chain.time_s[rows, site], n)
    memory = np.bincount(stages, chain.memory_bytes[rows, site], n)
    for size, positions in chain.shared:
        memory[np.unique(stages[list(positions)])] += size
    energy, compute, sends = float(chain.energy_j[rows, site].sum()), float(busy.sum()), []
    for at in np.flatnonzero(np.diff(stages)):
        for d in range(stages[at], stages[at + 1]):
            busy[d + 1] += chain.hop_s(order[d], order[d + 1])[at]
            energy += float(chain.hop_j(order[d], order[d + 1])[at])
            sends.append((int(at), d, d + 1, 1))
    time = float(busy.sum())
    return PlacementCost(time, compute, time - compute, energy, busy, memory, tuple(sends))


def stage_violations(chain: Chain, stages: Array, order: tuple[int, ...]) -> list[str]:
    """What is wrong with stages: not contiguous, or a memory too small."""
    if stages.shape != (len(chain.names),) or np.any(np.diff(stages) < 0) or not set(stages) <= set(range(len(order))):
        return ["stages are not contiguous"]
    wrong = []
    used = cost_of_stages(chain, stages, order).memory_bytes
    for stage, site in enumerate(order):
        room = chain.sites[site].memory_bytes
        if not used[stage] <= room * (1 + SLACK):
            wrong.append(f"{chain.sites[site].name}: {gib(used[stage])} in {gib(room)}")
    return wrong


def kinds(chain: Chain) -> list[int]:
    """Equal numbers for sites that no cost tells apart (links to all others included)."""
    out: list[int] = []
    n = len(chain.sites)
    for s in range(n):
        same = (r for r in range(s) if _alike(chain, r, s))
        twin = next(same, None)
        out.append(out[twin] if twin is not None else s)
    return out


def _alike(chain: Chain, a: int, b: int) -> bool:
    swap = np.arange(len(chain.sites))
    swap[[a, b]] = b, a
    links = (chain.seconds_per_byte, chain.latency_s, chain.joules_per_byte)
    return (
        chain.sites[a].memory_bytes == chain.sites[b].memory_bytes
        and all(np.array_equal(t[:, a], t[:, b]) for t in (chain.time_s, chain.energy_j, chain.memory_bytes))
        and all(np.array_equal(m, m[np.ix_(swap, swap)]) for m in links)
    )
