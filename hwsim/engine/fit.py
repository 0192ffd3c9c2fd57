"""Does it fit: what one device of the group must hold, and the refusal that shows the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hwsim.cost.memory import MemoryBudget, PerSequence, budget
from hwsim.cost.registry import cache_room, weights_held
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.ir.workload import Tensor, WorkloadGraph
from hwsim.units import gib


class Caches(Protocol):
    """The part of a model that knows its caches."""

    def kv_cache_bytes(self, batch: Num, context: Num, fmt: Any = ..., source_tokens: Num | None = None) -> Num: ...


def device_budget(
    model: Caches, whole: Sequence[WorkloadGraph], graphs: Sequence[MappedGraph], platform: Platform, scenario: Scenario
) -> MemoryBudget:
    """Budget of the fullest device. `whole` are the graphs before sharding, in the order of `graphs`."""
    first, last = graphs[0], graphs[-1]
    cache_format = next((t.format for t in _cached(last)), None)
    kv: Num = 0
    if cache_format is not None:
        context, source = scenario.prompt_tokens + scenario.output_tokens, None
        if getattr(model, "prompt_is_source", False):
            context, source = scenario.output_tokens, scenario.prompt_tokens
        kv = model.kv_cache_bytes(1, context, cache_format, source) * _cache_share(whole[-1], last) / scenario.pp
    weights: Num = 0
    for graph in graphs:  # encoders have weights that decode does not touch
        weights = np.maximum(weights, device_weight_bytes(graph))
    weights = weights * weights_held(platform.device)
    return budget(
        platform.device.main_memory.size_bytes,
        weights.item() if isinstance(weights, np.generic) else weights,
        PerSequence(kv, _activations(first) / first.batch, scenario.prompt_tokens),
        scenario.batch_of_replica,
        fraction=scenario.memory_fraction,
        cache_room=cache_room(platform.device, scenario.tp),
    )


def device_weight_bytes(graph: MappedGraph) -> Num:
    """Stored weights of the fullest device: its shard of ceil(layers/stages) layers and the larger of both ends."""
    stages = graph.mapping.pipeline_parallel
    segments: dict[str, dict[str, Num]] = {}
    for task in graph.tasks:
        for tensor in task.operator.weights:
            segments.setdefault(task.operator.segment, {})[tensor.name] = tensor.stored_bytes * task.count
    # on one stage a tied table, which has one name in both segments, is stored once
    merged = {name: size for segment in segments.values() for name, size in segment.items()}
    whole = sum(merged.values(), 0)
    if np.ndim(stages) == 0 and stages == 1:
        return whole
    layers = max(graph.layers, 1)
    ends = [sum(sizes.values(), 0) for name, sizes in segments.items() if name in ("embed", "head")]
    blocks = sum((sum(sizes.values(), 0) for name, sizes in segments.items() if name not in ("embed", "head")), 0)
    staged = blocks * (-(-layers // stages) / layers) + max(ends, default=0)
    return np.where(np.asarray(stages) == 1, whole, staged) if np.ndim(stages) else staged


def _cached(graph: MappedGraph) -> list[Tensor]:
    return [t for task in graph.tasks for t in task.operator.inputs if t.role in ("kv_cache", "state")]


def _cache_share(whole: WorkloadGraph, graph: MappedGraph) -> float:
    """Share of the cache on one rank; KV heads fewer than ranks are replicated, a latent cache is not split at all."""
    parts = sum((_first(t.stored_bytes) for t in _cached(graph)), 0.0)
    total = sum(
        (_first(t.stored_bytes) for o in whole.operators for t in o.inputs if t.role in ("kv_cache", "state")), 0.0
    )
    return parts / total if total else 1.0


def _first(value: Num) -> float:
    return float(np.ravel(value)[0])


def _activations(graph: MappedGraph) -> Num:
    """Largest inputs + outputs of one operator, weights and caches excluded: what must be alive at once."""
    peak: Num = 0
    for task in graph.tasks:
        alive = task.operator.moved_bytes("activation")
        peak = np.maximum(peak, alive) if np.ndim(peak) or np.ndim(alive) else max(peak, alive)
    return peak


def require_fit(workload: str, platform: Platform, scenario: Scenario, memory: MemoryBudget) -> None:
    """Raise InfeasibleError with the whole budget if any point does not fit in memory."""
    if np.all(memory.fits):
        return
    _require_cache_room(workload, platform, memory)
    worst = {
        "capacity_bytes": float(np.max(memory.capacity_bytes)),
        "usable_bytes": float(np.max(memory.usable_bytes)),
        "weights_bytes": float(np.max(memory.weights_bytes)),
        "kv_cache_bytes": float(np.max(memory.kv_cache_bytes)),
        "activations_bytes": float(np.max(memory.activations_bytes)),
    }
    short = worst["weights_bytes"] + worst["kv_cache_bytes"] + worst["activations_bytes"] - worst["usable_bytes"]
    devices = scenario.devices
    if np.ndim(memory.max_batch) == 0 and memory.max_batch >= 1:
        fix = f"use --batch {int(memory.max_batch)} or less, a shorter context, a smaller --kv-cache or more devices"
    elif worst["weights_bytes"] < worst["usable_bytes"]:
        fix = "the KV cache of one sequence is too large: a shorter --prompt, --kv-cache fp8, or more devices (--tp)"
    else:
        fix = (
            f"use more than {devices} device(s) (--tp, --pp), a smaller --weights format, or a device with more memory"
        )
    seen = " + ".join(f"{name.removesuffix('_bytes')} {gib(worst[name])}" for name in list(worst)[2:])
    raise InfeasibleError(
        f"{workload} does not fit on {platform.name}: {gib(short)} too much on each device",
        where=f"memory of one device with {_degrees(scenario)}, batch={_show(scenario.batch)}",
        seen=f"{seen} > usable {gib(worst['usable_bytes'])} of {gib(worst['capacity_bytes'])}",
        fix=fix,
        budget={**worst, "short_bytes": short},
    )


def _require_cache_room(workload: str, platform: Platform, memory: MemoryBudget) -> None:
    """Caches on other devices: raise InfeasibleError where they are what does not fit."""
    if memory.cache_room_bytes is None or np.all(memory.kv_cache_bytes <= memory.cache_room_bytes):
        return
    cache, room = float(np.max(memory.kv_cache_bytes)), float(np.max(memory.cache_room_bytes))
    raise InfeasibleError(
        f"the caches of {workload} need {gib(cache - room)} more than the memory devices of {platform.name} hold",
        where="memory devices, for each device of the model",
        seen=f"{gib(cache)} of {gib(room)}",
        fix=f"use --batch {int(np.min(memory.max_batch))} or less, a shorter context, or more split.devices",
        budget={"kv_cache_bytes": cache, "cache_room_bytes": room, "short_bytes": cache - room},
    )


def _degrees(scenario: Scenario) -> str:
    replicas = f", dp={scenario.dp}" if np.max(scenario.dp) > 1 else ""
    return f"tp={scenario.tp}, pp={scenario.pp}{replicas}"


def _show(value: Num) -> str:
    return str(value) if np.ndim(value) == 0 else "a grid"
