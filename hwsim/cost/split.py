"""Attention on memory-rich devices beside the devices that hold the weights (Lamina, arXiv 2405.01814).

Queries, keys and values go out and attention comes back once a layer: (2 + 2/G) e d B bytes, G query heads a KV head.
- model part: generic roofline of the weights' devices; attention: cache bytes / (b x memory rate x share)
- each layer adds two half round trips of the network and the transfer
- overlap: attention over earlier tokens runs while the new key and value are computed and sent
- network rate needed: bytes of a token / (slack x (model + attention time))

Formulas: docs/formulas/hybrid.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost import generic, roofline
from hwsim.cost.bracketed import Floors, bracketed
from hwsim.cost.energy import j_per_byte
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.45  # as the generic model
_REMOTE: Final = "decode attention runs on the memory devices behind the network"
_HOURS: Final = 3600.0


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution; decode attention runs on the memory devices behind the network."""
    o = platform.device.extra["split"]
    if task.kind != "attention_decode":
        return generic.task_cost(task, platform)
    ranks = task.choice.get("ranks", 1)  # the memory devices serve all ranks; a task holds the share of one
    attention = ranks * _cache(task) / (o["devices"] * o["memory_rate"] * o["memory_efficiency"])
    attention = np.maximum(attention, ranks * task.operator.flop / _peak(o) / generic.COMPUTE_EFFICIENCY)
    hidden = np.minimum(attention, _key_value_s(task, platform, o)) if o["overlap"] else 0.0
    parts = {
        "attention": plain(attention - hidden),
        "network": plain(ranks * transfer_bytes(task) / o["network"] + o["round_trip"]),
    }
    # reading a byte there costs what it costs here; idle power of the memory devices is not counted
    remote = task.choice.get("remote", {}).get("bytes", 0.0) * j_per_byte(
        platform.device, platform.device.main_memory.name
    )
    energy = dynamic_energy_j(task, platform) + remote
    return bracketed(sum(parts.values()), parts, _floors(task, o), BAND, energy_j=energy, model="split")


def datasheet_cost(task: Task, platform: Platform) -> TaskCost:
    """The bare roofline; decode attention has that of the memory devices, the network left out."""
    if task.kind != "attention_decode":
        return roofline.task_cost(task, platform)
    floors, energy = _floors(task, platform.device.extra["split"]), dynamic_energy_j(task, platform)
    return bracketed(floors.floor_s, floors.parts_s, floors, 1.0, energy_j=energy, model="roofline")


def _floors(task: Task, o: Mapping[str, Any]) -> Floors:
    """The caches and the operations of all ranks at the datasheet rates of the memory devices."""
    ranks = task.choice.get("ranks", 1)
    parts = {
        "attention": ranks * _cache(task) / (o["devices"] * o["memory_rate"]),
        "attention compute": ranks * task.operator.flop / _peak(o),
    }
    local = ("compute", "vector", *task.traffic_bytes)
    return Floors(parts, dict.fromkeys(local, _REMOTE))


def _peak(o: Mapping[str, Any]) -> float:
    """Operations a second of all memory devices; unbounded where the file gives no rate (memory binds attention)."""
    return float(o["devices"] * o["memory_peak"]) if o["memory_peak"] else float("inf")


def plan(graph: MappedGraph) -> MappedGraph:
    """Note the number of ranks, all served by the memory devices, and take caches out of the model's own memory."""
    main = graph.platform.device.main_memory.name
    ranks = {"ranks": graph.mapping.tensor_parallel}
    return replace(graph, tasks=tuple(_remote(replace(t, choice={**t.choice, **ranks}), main) for t in graph.tasks))


def _remote(task: Task, main: str) -> Task:
    if task.kind != "attention_decode":
        return task
    remote = {"bytes": task.traffic_bytes.get(main, 0.0), "memory": "attention", "compute": "attention compute"}
    return replace(task, traffic_bytes={}, choice={**task.choice, "remote": remote})


def cache_room(device: Device, ranks: int) -> Num:
    """Bytes on the memory devices for the caches of one of `ranks` devices of the model."""
    return plain(_capacity(device.extra["split"]) / ranks)


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Batch that the memory devices hold, the network rate that a step needs, the price of the set."""
    last = timelines[-1]
    graph, o = last.graph, last.graph.platform.device.extra["split"]
    attention = [t for t in graph.tasks if t.kind == "attention_decode"]
    ranks = graph.mapping.tensor_parallel
    cache = ranks * sum((_cache(t) * t.count for t in attention), 0.0)
    sent = ranks * sum((transfer_bytes(t) * t.count for t in attention), 0.0)
    busy = last.time_s - last.busy_s.get("network", 0.0)
    held = {"split_max_batch": Bracket(plain(_capacity(o) / (cache / graph.batch)))} if attention else {}
    price = graph.platform.price
    own = price.rate_usd_per_s * graph.mapping.tensor_parallel if price is not None else 0.0
    return {
        **held,
        "network_needed_bytes_per_s": Bracket(plain(sent / (o["slack"] * busy))),
        "network_bytes_per_s": Bracket(o["network"]),
        "round_trip_s": Bracket(o["round_trip"]),
        "set_usd_per_hour": Bracket((own + o["devices"] * o["price"]) * _HOURS),
    }


def transfer_bytes(task: Task) -> Num:
    """Query, key, value out and attention back for one layer."""
    dims = task.operator.dims
    width = dims["n_heads"] * (dims["head_dim"] + dims["v_head_dim"])
    added = dims["n_kv_heads"] * (dims["head_dim"] + dims["v_head_dim"])
    return dims["batch"] * (width + added) * 2


def _key_value_s(task: Task, platform: Platform, o: Mapping[str, Any]) -> Num:
    """Projecting the new keys and values of a layer (two of its matrices, by their weights) and sending them.

    This is what attention over earlier tokens can run beside: the query is computed and sent first.
    """
    dims, ranks = task.operator.dims, task.choice.get("ranks", 1)
    width = dims["n_kv_heads"] * (dims["head_dim"] + dims["v_head_dim"])
    weights = width * ranks * dims["n_heads"] * dims["head_dim"] * 2  # hidden x width, 16-bit, of one rank
    rate = platform.device.main_memory.read_bytes_per_s * generic.MEMORY_EFFICIENCY
    return weights / rate + ranks * dims["batch"] * width * 2 / o["network"]


def _cache(task: Task) -> Num:
    return sum((t.moved_bytes for t in task.operator.inputs if t.role == "kv_cache"), 0)


def _capacity(o: Mapping[str, Any]) -> Num:
    return o["devices"] * o["memory_size"] * o["memory_fraction"]
