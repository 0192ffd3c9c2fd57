"""Random placement problems and their referees: complete enumeration, written apart from the programs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog

from hwsim.mapping.placement.chain import Chain, cost_of_stages, stage_violations
from hwsim.mapping.placement.problem import Column, Flow, GraphProblem, Item, Shared, Site, cost_of, violations
from hwsim.mapping.placement.tiers import Link, Phase, Tensor, Tier, TierProblem


def random_graph(
    rng: np.random.Generator,
    items: int,
    sites: int,
    candidates: int = 1,
    tight: float = 0.6,
    keep: bool = False,
    uniform: bool = False,
    copies: int = 1,
) -> GraphProblem:
    """A chain with skips; `tight`: memory of a site over the smallest total; `uniform`: all links alike."""
    names = tuple(Item(f"o{i}", copies, "block") for i in range(items))
    flows = []
    for i in range(items):
        sinks = {i + 1} if i + 1 < items else set()
        if i + 2 < items and rng.random() < 0.3:
            sinks.add(int(rng.integers(i + 2, items)))
        wraps = (0,) if i == items - 1 and copies > 1 else ()
        if sinks or wraps:
            sent = float(rng.uniform(0, 4))
            flows.append(Flow(f"t{i}", i, tuple(sorted(sinks)), wraps, (), (), sent, 1.0, sent))
    columns = []
    for i in range(items):
        memory = float(rng.integers(1, 20))
        for s in range(sites):
            for v in range(candidates):
                share = 1.0 if v == 0 else float(rng.uniform(0.5, 1))
                row = Column(i, s, float(rng.uniform(1, 10)), float(rng.uniform(1, 10)), memory * share, f"v{v}")
                columns.append(row)
                columns += _kept(row, i, flows) if keep else []
    rate = np.ones((sites, sites)) if uniform else rng.uniform(0.2, 1.0, (sites, sites))
    latency = np.full((sites, sites), 0.1)
    np.fill_diagonal(rate, 0)
    np.fill_diagonal(latency, 0)
    least = sum(min(c.memory_bytes for c in columns if c.item == i) for i in range(items)) * copies
    shared = (Shared("tied", least * 0.05, (0, items - 1)),) if rng.random() < 0.3 else ()
    rooms = tuple(Site(f"d{s}", least * tight * (1.4 if s == 0 else 1.0), 3.0 if keep else 0.0) for s in range(sites))
    return GraphProblem("random", rooms, names, tuple(columns), tuple(flows), shared, rate, latency, rate / 2)


def _kept(row: Column, item: int, flows: list[Flow]) -> list[Column]:
    """Variants that keep neighbouring flows on chip: a quarter less time and energy for each."""
    near = [k for k, f in enumerate(flows) if f.inner and item in (f.source, *f.each)]
    subsets = itertools.chain.from_iterable(itertools.combinations(near, n) for n in range(1, len(near) + 1))
    return [
        replace(row, keeps=frozenset(s), time_s=row.time_s * 0.75 ** len(s), energy_j=row.energy_j * 0.75 ** len(s))
        for s in subsets
    ]


def enumerate_graph(problem: GraphProblem, objective: str) -> float:
    """Least value over every choice of columns (items of one copy); inf where nothing is legal."""
    options = [np.flatnonzero(problem.column_item == i) for i in range(len(problem.items))]
    best = np.inf
    for picked in itertools.product(*options):
        choice = tuple(np.array([c]) for c in picked)
        if not violations(problem, choice):
            best = min(best, cost_of(problem, choice).value(objective))
    return float(best)


def enumerate_stages(chain: Chain, objective: str) -> float:
    """Least value over all cuts and all orders of the sites."""
    n, sites, best = len(chain.names), len(chain.sites), np.inf
    for order in itertools.permutations(range(sites)):
        for cuts in itertools.combinations_with_replacement(range(n + 1), sites - 1):
            stages = np.searchsorted(np.array(cuts), np.arange(n), side="right")
            if not stage_violations(chain, stages, order):
                best = min(best, cost_of_stages(chain, stages, order).value(objective))
    return float(best)


def random_chain(rng: np.random.Generator, n: int, sites: int, room: float, unequal: bool = True) -> Chain:
    """Operators of log-normal size on devices of different speed; `room`: all memories over what is needed."""
    size = rng.lognormal(0, 0.7, n)
    speed = rng.uniform(0.5, 2, sites) if unequal else np.ones(sites)
    time_s = size[:, None] / speed * (rng.uniform(0.8, 1.25, (n, sites)) if unequal else 1)
    memory = np.repeat((size * rng.uniform(0.5, 1.5, n))[:, None], sites, 1)
    rate, latency = np.full((sites, sites), 0.1), np.full((sites, sites), 0.01)
    np.fill_diagonal(rate, 0)
    np.fill_diagonal(latency, 0)
    rooms = tuple(Site(f"d{s}", memory[:, 0].sum() * room / sites) for s in range(sites))
    at = np.arange(n)
    return Chain(
        "chain", rooms, tuple(map(str, at)), time_s, time_s, memory, rng.uniform(0, 3, n - 1), np.ones(n - 1), (),
        rate, latency, rate, at, np.zeros(n, int), np.zeros((n, sites), int),
    )  # fmt: skip


def hard_chain(seed: int, n: int, sites: int, room: float, comm: float) -> Chain:
    """Unequal devices, memories and links; boundaries that cost; every second one has a weight read at both ends."""
    rng = np.random.default_rng(seed)
    base = random_chain(rng, n, sites, room)
    share = rng.uniform(0.5, 1.5, sites)
    rooms = tuple(
        replace(s, memory_bytes=s.memory_bytes * sites * share[k] / share.sum()) for k, s in enumerate(base.sites)
    )
    rate = rng.uniform(0.3, 1.7, (sites, sites)) * comm * (1 - np.eye(sites))
    tied = ((float(base.memory_bytes[:, 0].sum() * 0.02), (0, n - 1)),) if seed % 2 else ()
    energy = base.time_s * rng.uniform(0.5, 2, sites)
    return replace(base, sites=rooms, energy_j=energy, seconds_per_byte=rate, joules_per_byte=rate, shared=tied)


def random_tiers(rng: np.random.Generator, tensors: int, tiers: int, phases: int) -> TierProblem:
    sizes = rng.integers(1, 20, tensors).astype(float)
    kinds = tuple(
        Tier(f"t{t}", float(sizes.sum() * (rng.uniform(0.2, 0.6) if t < tiers - 1 else 2.0)), int(rng.integers(1, 3)))
        for t in range(tiers)
    )
    rates = np.sort(rng.uniform(0.5, 5, tiers))[::-1]
    rows = tuple(
        Phase(
            f"p{p}",
            sizes * rng.integers(0, 3, tensors),
            rates * rng.uniform(0.5, 1, tiers),
            float(rng.uniform(0, 5)),
            float(rng.integers(1, 5)),
            (Link("link", float(rng.uniform(1, 4)), tuple(range(1, tiers))),) if rng.random() < 0.5 else (),
            bool(rng.random() < 0.5),
        )
        for p in range(phases)
    )
    return TierProblem("random", kinds, tuple(Tensor(f"k{k}", float(s)) for k, s in enumerate(sizes)), rows)


def enumerate_tiers(problem: TierProblem) -> float:
    """Least time over every choice of two tiers a tensor, each a linear program of its own; inf where none fits."""
    tensors, tiers, phases = len(problem.tensors), len(problem.tiers), len(problem.phases)
    width = tensors * tiers + phases
    rows, limits = _tier_rows(problem, width)
    once = np.zeros((tensors, width))
    for k in range(tensors):
        once[k, k * tiers : (k + 1) * tiers] = 1
    cost = np.concatenate([np.zeros(tensors * tiers), [p.count for p in problem.phases]])
    best = np.inf
    for support in itertools.product(itertools.combinations(range(tiers), 2), repeat=tensors):
        bounds: list[Any] = [(0, 1 if t in support[k] else 0) for k in range(tensors) for t in range(tiers)]
        bounds += [(p.floor_s, None) for p in problem.phases]
        found = linprog(cost, A_ub=rows, b_ub=limits, A_eq=once, b_eq=np.ones(tensors), bounds=bounds)
        best = min(best, found.fun) if found.status == 0 else best
    return float(best)


def _tier_rows(problem: TierProblem, width: int) -> tuple[np.ndarray, np.ndarray]:
    tensors, tiers = len(problem.tensors), len(problem.tiers)
    at = np.arange(tensors * tiers).reshape(tensors, tiers)
    rows, limits = [], []
    for t, tier in enumerate(problem.tiers):
        row = np.zeros(width)
        row[at[:, t]] = problem.sizes
        rows.append(row)
        limits.append(tier.size_bytes)
    for j, phase in enumerate(problem.phases):
        groups = (
            [[(t, phase.rates[t]) for t in range(tiers)]]
            if phase.serial
            else [[(t, phase.rates[t])] for t in range(tiers)]
        )
        groups += [[(t, link.bytes_per_s) for t in link.behind] for link in phase.links]
        for group in groups:
            row = np.zeros(width)
            for t, rate in group:
                row[at[:, t]] += phase.traffic_bytes / rate
            row[tensors * tiers + j] = -1
            rows.append(row)
            limits.append(0.0)
    return np.array(rows), np.array(limits)
