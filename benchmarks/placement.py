"""Times and proofs of placements: ``python benchmarks/placement.py [stages] [products] [candidates] [models] [tiers]``.

Wall and CPU seconds of one process; random instances are seeded.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from hwsim.api import vary
from hwsim.errors import InfeasibleError
from hwsim.explore.placement.decide import place_model
from hwsim.explore.placement.finetune import WALKS, finetune_case
from hwsim.explore.placement.phases import Request
from hwsim.frontends.catalog import load_model
from hwsim.mapping import Chain, GraphProblem, place_chain, place_graph, place_tiers
from hwsim.mapping.placement.problem import Column, Flow, Item, Site
from hwsim.mapping.placement.tiers import time_of
from hwsim.schema.loader import load_accelerator

BUDGET_S = 10.0
OBJECTIVES = ("latency", "throughput", "energy", "edp")
MODELS = (
    ("llama-2-7b", ("a40", "xeon-8380")),
    ("llama-2-70b", ("h100-pcie", "xeon-8480")),
    ("mixtral-8x7b", ("moe-lens-a40",)),
    ("mixtral-8x7b", ("rtx4090", "rtx4090", "core-i9-13900k")),
    ("deepseek-v2-lite", ("rtx4090", "core-i9-13900k")),
)


def timed(label: str, solve: Callable[[], Any]) -> None:
    """One line: wall, CPU, status, gap."""
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        report = solve().report
        words = f"{report.status:<9} gap {report.gap:.1e}  objective {report.objective:.6g}"
    except InfeasibleError as error:
        words = error.what
    print(f"{label:<62}{time.perf_counter() - wall:6.2f} s {time.process_time() - cpu:6.2f} s CPU  {words}")


def links(sites: int, seconds_per_byte: float, latency_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Equal links between all sites."""
    off = 1 - np.eye(sites)
    return off * seconds_per_byte, off * latency_s


def chain(seed: int, n: int, sites: int, room: float, unequal: bool) -> Chain:
    """Log-normal operators; `room`: all memories over what is needed."""
    rng = np.random.default_rng(seed)
    size, speed = rng.lognormal(0, 0.7, n), rng.uniform(0.5, 2, sites) if unequal else np.ones(sites)
    time_s = size[:, None] / speed * (rng.uniform(0.8, 1.25, (n, sites)) if unequal else 1)
    memory = np.repeat((size * rng.uniform(0.5, 1.5, n))[:, None], sites, 1)
    rate, latency = links(sites, 0.1, 0.01)
    rooms = tuple(Site(f"d{s}", memory[:, 0].sum() * room / sites) for s in range(sites))
    hops, at = rng.uniform(0, 3, n - 1), np.arange(n)
    none = np.zeros((n, sites), int)
    names = tuple(map(str, at))
    return Chain(
        "chain", rooms, names, time_s, time_s, memory, hops, np.ones(n - 1), (), rate, latency, rate, at, at * 0, none
    )


def graph(seed: int, n: int, sites: int, variants: int, rooms: tuple[float, ...]) -> GraphProblem:
    """A chain with skips; variants trade time for memory; `rooms`: memory of each site over the least total."""
    rng = np.random.default_rng(seed)
    size, speed = rng.lognormal(0, 1, n), np.array([8.0, 2.0, 1.0, 4.0])[:sites]
    columns = []
    for i in range(n):
        for s in range(sites):
            held, slow = np.sort(rng.uniform(0.25, 1, variants))[::-1], np.sort(rng.uniform(0.6, 1.6, variants))
            for v in range(variants):
                seconds = size[i] / speed[s] * slow[v] * rng.uniform(0.9, 1.1)
                memory = size[i] * held[v] * rng.uniform(0.9, 1.1)
                columns.append(Column(i, s, float(seconds), float(size[i] * slow[v]), float(memory), f"v{v}"))
    flows = []
    for i in range(n - 1):
        sinks = {i + 1} | ({min(n - 1, i + 2 + int(rng.integers(0, 6)))} if rng.random() < 0.25 else set())
        flows.append(Flow(f"t{i}", i, tuple(sorted(sinks)), sent_bytes=float(rng.uniform(0.5, 1.5)), messages=1.0))
    least = sum(min(c.memory_bytes for c in columns if c.item == i) for i in range(n))
    rate, latency = links(sites, 0.05, 0.005)
    room = tuple(Site(f"d{s}", least * r) for s, r in enumerate(rooms[:sites]))
    items = tuple(Item(f"o{i}") for i in range(n))
    return GraphProblem("random", room, items, tuple(columns), tuple(flows), (), rate, latency, rate)


def hard(seed: int, n: int, sites: int, room: float) -> Chain:
    """Unequal devices, memories and links; boundaries that cost; every second one has a weight read at both ends."""
    rng = np.random.default_rng(seed)
    base = chain(seed, n, sites, room, unequal=True)
    share = rng.uniform(0.5, 1.5, sites)
    rooms = tuple(
        replace(s, memory_bytes=s.memory_bytes * sites * share[k] / share.sum()) for k, s in enumerate(base.sites)
    )
    rate = rng.uniform(0.3, 1.7, (sites, sites)) * (1 - np.eye(sites))
    tied = ((float(base.memory_bytes[:, 0].sum() * 0.02), (0, n - 1)),) if seed % 2 else ()
    energy = base.time_s * rng.uniform(0.5, 2, sites)
    return replace(base, sites=rooms, energy_j=energy, seconds_per_byte=rate, joules_per_byte=rate, shared=tied)


def stages() -> None:
    """200 operators on 8 devices, contiguous: in the given order, then (different devices) in the best of all."""
    for unequal in (False, True):
        for room in (1.15, 1.5, 4.0):
            for objective in OBJECTIVES:
                problem = chain(1, 200, 8, room, unequal)
                kind = "unequal" if unequal else "equal"
                label = f"200 operators, 8 {kind} devices, memory x{room:g}, {objective}"
                timed(label, partial(place_chain, problem, objective, any_order=False))
    for seed, room, free in itertools.product(range(4), (1.1, 1.3, 2.0), (False, True)):
        for objective in OBJECTIVES:
            problem = hard(seed, 200, 8, room)
            label = f"hard {seed}, memory x{room:g}, {'all orders' if free else 'given order'}, {objective}"
            timed(label, partial(place_chain, problem, objective, any_order=free))


def products() -> None:
    """Energy x time of any cut: chains with skips, three memories."""
    for words, rooms in list(ROOMS.items())[:3]:
        for n, variants, seed in itertools.product((60, 256), (5,), range(2)):
            problem = graph(seed, n, 4, variants, rooms)
            timed(
                f"{n} operators x 20, {words}, edp, seed {seed}",
                partial(place_graph, problem, "edp", budget_s=BUDGET_S),
            )


ROOMS = {
    "ample memory": (5.0,) * 4,
    "one full memory": (0.4, 0.6, 5.0, 5.0),
    "two full memories": (0.4, 5.0, 5.0, 0.3),
    "three full memories": (0.4, 0.6, 2.0, 0.5),
}


def candidates() -> None:
    """256 operators with 20 candidates each, any cut; ample memory, then one to three memories that bind."""
    for words, rooms in ROOMS.items():
        for seed in range(3):
            problem = graph(seed, 256, 4, 5, rooms)
            timed(
                f"256 operators x 20 candidates, {words}, seed {seed}",
                partial(place_graph, problem, budget_s=BUDGET_S),
            )


def models() -> None:
    """Whole requests of real models on real devices, layers folded; pricing included in the times."""
    for name, hardware in MODELS:
        for objective in ("latency", "throughput", "energy"):
            wall, cpu = time.perf_counter(), time.process_time()
            found = place_model(name, hardware, objective=objective, budget_s=20.0)
            r = found["report"]
            beside = ", ".join(f"{b['name']} {b['ratio']:.3f}" for b in found["baselines"] if b["ratio"] is not None)
            spent = f"all {time.perf_counter() - wall:.2f} s ({time.process_time() - cpu:.2f} s CPU)"
            proof = f"{r['status']} gap {r['gap']:.1e}, solver {r['seconds']:.2f} s, {spent}"
            print(f"{name} on {'+'.join(hardware)}, {objective}: {proof}; x best: {beside}")


def tiers() -> None:
    """Fine-tuning state over DRAM and one CXL card, 30,000 tokens: seconds a step and hand-made rules over it."""
    for model in ("llama-2-7b", "llama-2-13b"):
        for card in ("22 GB/s", "29 GB/s", "36 GB/s"):
            for walk in WALKS:
                device = vary(load_accelerator("cxl-finetune-host")[0], {"cxl.card": card})
                case = finetune_case(load_model(model), device, Request(1, 30000), walk)
                best = place_tiers(case.problem).report.objective
                ratios = {name: time_of(case.problem, rule()) / best for name, rule in case.rules.items()}
                beside = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
                print(f"{model}, card {card}, {walk}: {best:.2f} s a step; x best: {beside}")


PARTS = {"stages": stages, "products": products, "candidates": candidates, "models": models, "tiers": tiers}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
