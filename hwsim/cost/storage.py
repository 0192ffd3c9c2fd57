"""Weights in flash (LLM in a flash, arXiv 2312.11514): time = read + manage + compute, one after another.

- naive: the whole model is read for each token; hybrid: what memory does not hold
- window: of the feed-forward layers only neurons that are active and not kept from the last tokens; column reads
- all: as window, with the up and down weights of a neuron stored side by side (one longer read)
- speculation: what is not reading gets `speculation` times faster, as with weights in memory; reads do not, because
  the window must hold the neurons of every accepted token anyway
- a random read of s bytes reaches s / (read_overhead + s / read_stream), at most the sequential rate

Formulas: docs/formulas/memory-beyond-hbm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost.bracketed import bracketed, plain
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.3
_FEED_FORWARD: Final = ("gate_up", "up", "down", "moe", "fc1", "fc2")


def read_rate(size_bytes: Num, flash: Mapping[str, Any]) -> Num:
    """Bytes a second of random reads of `size_bytes`, never above the sequential rate."""
    rate = size_bytes / (flash["read_overhead"] + size_bytes / flash["read_stream"])
    return plain(np.minimum(rate, flash["sequential"]))


def plan(graph: MappedGraph) -> MappedGraph:
    """Mark what each task reads from flash for a pass: bytes and read size. Raises InfeasibleError."""
    flash = graph.platform.device.extra.get("flash")
    if flash is None:
        raise InfeasibleError(f"{graph.platform.device.name} has no flash section", fix="add flash: to its file")
    faster = {"faster": flash["speculation"] if graph.phase == "decode" else 1.0}
    return replace(
        graph, tasks=tuple(replace(t, choice={**t.choice, **_reads(t, flash), **faster}) for t in graph.tasks)
    )


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution in a planned graph."""
    flash = platform.device.extra["flash"]
    read = task.choice.get("flash_bytes", 0.0) / task.choice.get("flash_rate", flash["sequential"])
    random = flash["mode"] in ("window", "all")
    weights = sum((t.elements * t.touched for t in task.operator.weights), 0)
    peak = max(float(np.max(c.peak_flop_per_s)) for c in platform.device.compute)
    # one pass over the weights, or the operations of a long prompt
    dense = np.maximum(weights * flash["compute_bytes"] / flash["compute_bandwidth"], task.operator.flop / peak)
    share = flash["sparse_compute"] if random else 1.0
    manage = read * flash["manage"] if random else 0.0
    faster = task.choice.get("faster", 1.0)
    parts = {"flash": read, "manage": manage / faster, "compute": dense * share / faster}
    parts = {name: plain(seconds) for name, seconds in parts.items()}
    energy = dynamic_energy_j(task, platform)
    floors = _floors(task, platform.device, flash)
    return bracketed(sum(parts.values()), parts, floors, BAND, energy_j=energy, model=f"flash {flash['mode']}")


def weights_held(device: Device) -> float:
    """Share of the weights in memory: none where each token reads all of them."""
    flash = device.extra.get("flash", {})
    return 0.0 if flash.get("mode") == "naive" else float(flash.get("resident", 1.0))


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Bytes read from flash for one pass of the last phase, and the time of it."""
    last = timelines[-1]
    read = sum((t.choice.get("flash_bytes", 0.0) * t.count for t in last.graph.tasks), 0.0)
    return {"flash_bytes": Bracket(read), "flash_time_s": Bracket(last.busy_s.get("flash", 0.0))}


def _reads(task: Task, flash: Mapping[str, Any]) -> dict[str, Any]:
    stored = sum((t.stored_bytes for t in task.operator.weights), 0)
    mode = flash["mode"]
    if mode in ("naive", "hybrid"):
        table = task.kind == "embedding"  # its rows are a part of the model that is loaded whole
        tied = table and task.name.startswith("embed.tokens")
        share = 1.0 if mode == "naive" else 1 - flash["resident"]
        return {"flash_bytes": 0.0 if tied and _tied(task) else stored * share, "flash_rate": flash["sequential"]}
    if task.kind != "gemm" or not task.name.rpartition(".")[2].startswith(_FEED_FORWARD):
        return {"flash_bytes": 0.0, "flash_rate": flash["sequential"]}
    dims, bits = task.operator.dims, task.operator.weights[0].format.bits
    column = np.minimum(dims["k"], dims["n"]) * bits / 8
    matrices = 3 if task.name.endswith("gate_up") or task.choice.get("gated") else 2
    size = column * (matrices if mode == "all" else 1)
    return {
        "flash_bytes": stored * (1 - flash["sparsity"]) * flash["fresh"],
        "flash_rate": read_rate(size, flash),
    }


def _tied(task: Task) -> bool:
    """A table that the output head shares is counted there."""
    return any(w.touched != 1.0 and w.name == "embed.tokens.weight" for w in task.operator.weights)


def _floors(task: Task, device: Device, flash: Mapping[str, Any]) -> dict[str, Num]:
    peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute)
    idle = flash["sparsity"] if flash["mode"] in ("window", "all") else 0.0
    return {
        "flash": task.choice.get("flash_bytes", 0.0) / flash["sequential"],
        "compute": task.operator.flop * (1 - idle) / peak,
    }
