"""Inference with weights and caches in the device's memory and in tiers beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hwsim import content
from hwsim.cost.peaks import native_16bit
from hwsim.engine import analytic
from hwsim.engine.estimate import Model
from hwsim.errors import InfeasibleError, InputError, unknown_name
from hwsim.explore.placement.phases import PhaseGraph, Request, activation_reserve, cache_bytes, phase_graphs
from hwsim.explore.placement.price import Options
from hwsim.explore.placement.tensors import Case, limited
from hwsim.frontends.formats import Formats
from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Device
from hwsim.mapping.lower import lower
from hwsim.mapping.placement.tier_baselines import interleave, nearest_first
from hwsim.mapping.placement.tiers import Link, Phase, Tensor, Tier, TierProblem
from hwsim.schema.base import validate
from hwsim.schema.loader import single
from hwsim.schema.reader import read
from hwsim.schema.systems import MemoryFile

Array = np.ndarray[Any, Any]
HOST_LINKS: Final = ("c2c", "pcie", "cpu_fabric")  # towards the host's memories, whichever is there
STAGED: Final = 2  # a double buffer of the largest streamed tensor of one layer


def offload_case(model: Model, device: Device, tiers: Sequence[str], request: Request, options: Options) -> Case:
    """Weights and caches over main memory and `tiers` (memory names; ``NAME:2`` for two equal modules).

    Raises InputError for unknown names or a device with no link to a host; InfeasibleError where nothing is left.
    """
    formats = _formats(device, options)
    phases = phase_graphs(model, request, formats)
    table = _tensors(phases, cache_bytes(model, request, formats))
    files = [_memory(text) for text in tiers]
    _known_rooms(device, files, options)
    usable = _main_room(device, phases, table, options)
    kinds = [Tier(device.main_memory.name, usable)]
    kinds += [Tier(f.name, limited(f.name, f.size * n, options.rooms), n) for f, n in files]
    rates = np.array([float(device.main_memory.read_bytes_per_s), *(float(f.read) * n for f, n in files)])
    links = _links(device, len(files), options)
    tensors = tuple(Tensor(name, size) for name, size in table.items())
    problem = TierProblem(
        model.name,
        tuple(kinds),
        tensors,
        tuple(Phase(p.name, _traffic(p, table), rates, _resident(p, device), p.count, links) for p in phases),
    )
    rules = {
        "naive interleave": lambda: interleave(problem),
        "nearest first, in model order": lambda: nearest_first(problem),
        "nearest first, busiest first": lambda: nearest_first(problem, _busiest(problem)),
    }
    named = {"prefill": "ttft_s", "decode": "tpot_s", "forward": "forward_s"}
    return Case(problem, named, rules, _scenario(request, options))


def _scenario(request: Request, options: Options) -> dict[str, Any]:
    return {
        "batch": request.batch,
        "prompt": request.prompt,
        "output": request.output,
        "phase": request.phase,
        "weights": list(options.weights),
        "rooms": dict(options.rooms),
    }


def _formats(device: Device, options: Options) -> Formats:
    if len(options.weights) > 1:
        raise InputError("tensors are placed in one format", where="--weights", seen=", ".join(options.weights))
    native = device.extra.get("native", {})
    weights = options.weights[0] if options.weights else str(native.get("weights") or native_16bit(device))
    return Formats.of(weights, options.activations, options.kv_cache)


def _memory(text: str) -> tuple[MemoryFile, int]:
    name, _, count = text.partition(":")
    if count and not (count.isdigit() and 1 <= int(count) <= 64):
        raise InputError("modules of a tier are a whole number from 1 to 64", where="--tier", seen=text, fix="NAME:2")
    entry = content.resolve(name, "memory")
    return validate(MemoryFile, read(entry.path)), int(count or 1)


def _known_rooms(device: Device, files: Sequence[tuple[MemoryFile, int]], options: Options) -> None:
    known = [device.main_memory.name, *(f.name for f, _ in files)]
    for name, _ in options.rooms:
        if name not in known:
            raise unknown_name("tier", name, known, where="--room")
    if len(set(known)) < len(known):
        raise InputError("a tier is named twice", where="--tier", seen=", ".join(known), fix="NAME:2 for two modules")


def _links(device: Device, outside: int, options: Options) -> tuple[Link, ...]:
    """The host link that all tiers outside share; a CPU reaches its cards directly."""
    behind = tuple(range(1, outside + 1))
    if options.link_bytes_per_s is not None:
        return (Link("--link", options.link_bytes_per_s, behind),)
    if device.kind == "cpu":
        return ()
    ports = {k.name: float(k.bandwidth_bytes_per_s) for k in device.links if k.name in HOST_LINKS}
    if not ports:
        raise InputError(
            f"{device.name} has no link to a host",
            where="--hw",
            seen=", ".join(k.name for k in device.links) or "no links",
            fix='give its rate: --link "64 GB/s"',
        )
    name = max(ports, key=lambda key: ports[key])
    return (Link(f"{name} link", ports[name], behind),)


def _tensors(phases: Sequence[PhaseGraph], caches: dict[str, float]) -> dict[str, float]:
    """Stored bytes of weights (all layers, a tied one once) and of caches, in the order of first use."""
    out: dict[str, float] = {}
    for phase in phases:
        for operator in phase.graph.operators:
            for weight in operator.weights:
                out.setdefault(weight.name, float(weight.stored_bytes) * operator.repeat)
            if caches.get(operator.name):
                out.setdefault(f"{operator.name} cache", caches[operator.name] * operator.repeat)
    return out


def _traffic(phase: PhaseGraph, table: dict[str, float]) -> Array:
    """Bytes that one pass moves of each tensor."""
    moved = dict.fromkeys(table, 0.0)
    for operator in phase.graph.operators:
        for tensor in (*operator.inputs, *operator.outputs):
            key = tensor.name if tensor.role == "weight" else f"{operator.name} cache"
            if tensor.role != "activation" and key in moved:
                moved[key] += float(tensor.moved_bytes) * operator.repeat
    return np.array(list(moved.values()))


def _resident(phase: PhaseGraph, device: Device) -> float:
    """Seconds of a pass with everything in main memory."""
    return float(analytic.run(lower(phase.graph, single(device), Mapping())).time_s)


def _main_room(device: Device, phases: list[PhaseGraph], table: dict[str, float], options: Options) -> float:
    """Bytes of main memory for weights and caches; with a double buffer where not all fit."""
    size = limited(device.main_memory.name, float(device.main_memory.size_bytes), options.rooms)
    usable = size * options.memory_fraction - activation_reserve(phases)
    if sum(table.values()) > usable:
        layer = max(float(w.moved_bytes) for p in phases for o in p.graph.operators for w in o.weights)
        usable -= STAGED * layer
    if usable <= 0:
        raise InfeasibleError(
            f"{device.main_memory.name} has no room beside activations and a double buffer",
            where=device.name,
            seen=f"{-usable:.4g} B short",
            fix="a smaller --batch or --prompt",
            budget={"shortfall_bytes": -usable},
        )
    return usable


def _busiest(problem: TierProblem) -> list[int]:
    """Tensors by traffic a byte over the whole run, busiest first."""
    moved = sum(p.traffic_bytes * p.count for p in problem.phases)
    density = moved / np.maximum(problem.sizes, 1e-300)
    return [int(k) for k in np.argsort(-density, kind="stable")]
