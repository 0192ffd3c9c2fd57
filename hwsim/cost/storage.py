"""Weights in flash (LLM in a flash, arXiv 2312.11514): time = read + manage + compute, one after another.

- naive: the whole model is read for each token; hybrid: what memory does not hold
- window: of the feed-forward layers only neurons that are active and not kept from the last tokens; column reads
- all: as window, with the up and down weights of a neuron stored side by side (one longer read)
- speculation: what is not reading gets `speculation` times faster, as with weights in memory; reads do not, because
  the window must hold the neurons of every accepted token anyway
- a random read of s bytes reaches s / (read_overhead + s / read_stream), at most the sequential rate
- several tokens together (a prompt, a batch) need the union of their neurons, taken as independent; where that is much,
  the whole layer is read in sequence
- attention passes over its cache in memory, and is dense in every mode

Formulas: docs/formulas/memory-beyond-hbm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost.bracketed import Floors, bracketed, held
from hwsim.cost.generic import MEMORY_EFFICIENCY
from hwsim.cost.roofline import dynamic_energy_j, floor_parts
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline
from hwsim.units import gib

BAND: Final = 1.3  # times and divided by (assumption: no residuals of other machines are published)
_FEED_FORWARD: Final = ("gate_up", "up", "down", "moe", "fc1", "fc2", "shared_gate_up", "shared_up", "shared_down")
_MATRICES: Final = ("gemm", "moe")
_SPARSE: Final = ("window", "all")  # modes that read and compute active neurons alone
_ACTIVE: Final = "only active neurons of a feed-forward layer are read and multiplied (flash.sparsity)"
_DRAFTED: Final = "a pass yields several tokens (flash.speculation): its time is that of one"


def read_rate(size_bytes: Num, flash: Mapping[str, Any]) -> Num:
    """Bytes a second of random reads of `size_bytes`, never above the sequential rate."""
    rate = size_bytes / (flash["read_overhead"] + size_bytes / flash["read_stream"])
    return plain(np.minimum(rate, flash["sequential"]))


def plan(graph: MappedGraph) -> MappedGraph:
    """Mark what each task reads from flash for a pass: bytes and rate. Raises InfeasibleError."""
    flash = graph.platform.device.extra.get("flash")
    if flash is None:
        raise InfeasibleError(f"{graph.platform.device.name} has no flash section", fix="add flash: to its file")
    _require_dense_part(graph, flash)
    faster = {"faster": flash["speculation"] if graph.phase == "decode" else 1.0}
    return replace(
        graph, tasks=tuple(replace(t, choice={**t.choice, **_reads(t, flash), **faster}) for t in graph.tasks)
    )


def _require_dense_part(graph: MappedGraph, flash: Mapping[str, Any]) -> None:
    """Memory holds what each token needs whole, and its active neurons. Raises InfeasibleError."""
    if flash["mode"] not in _SPARSE:
        return
    sizes = {w.name: (w.stored_bytes * t.count, _feeds_forward(t)) for t in graph.tasks for w in t.operator.weights}
    sizes.pop("embed.tokens.weight", None)  # a table of which a token reads one row
    device = graph.platform.device.name
    stored = float(np.max(sum((size for size, _ in sizes.values()), 0)))
    dense = float(np.max(sum((size for size, sparse in sizes.values() if not sparse), 0)))
    needed = dense + (1 - flash["sparsity"]) * (stored - dense)
    missing = needed - flash["resident"] * stored
    if missing > 0:
        raise InfeasibleError(
            f"each token needs {gib(missing)} more of {graph.workload} in memory than {device} keeps there",
            where="flash.resident",
            seen=f"attention, head, active neurons: {needed / stored:.2f} of all; resident {flash['resident']:g}",
            fix=f"flash.resident={np.ceil(100 * needed / stored) / 100:g} or more, or flash.mode=hybrid",
            budget={"needed_bytes": needed, "resident_bytes": needed - missing, "short_bytes": missing},
        )


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution in a planned graph."""
    flash = platform.device.extra["flash"]
    sparse, faster = flash["mode"] in _SPARSE, task.choice.get("faster", 1.0)
    read = task.choice.get("flash_bytes", 0.0) / task.choice.get("flash_rate", flash["sequential"])
    manage = read * flash["manage"] * task.choice.get("random", 0.0) if sparse else 0.0
    compute = _dense_s(task, platform, flash) * (_computed(task, flash) if sparse else 1.0)
    parts = {"flash": read, "manage": manage / faster, "compute": compute / faster}
    parts = {name: plain(seconds) for name, seconds in parts.items()}
    energy = dynamic_energy_j(task, platform)
    floors = _floors(task, platform, flash)
    return bracketed(sum(parts.values()), parts, floors, BAND, energy_j=energy, model=f"flash {flash['mode']}")


def _dense_s(task: Task, platform: Platform, flash: Mapping[str, Any]) -> Num:
    """One pass over weights, cache and what the near cache does not hold; that cache; or the operations of a prompt."""
    weights = sum((t.elements * t.touched for t in task.operator.weights), 0)
    cached = sum((t.moved_bytes for t in task.operator.inputs if t.role in ("kv_cache", "state")), 0)
    memory = platform.device.main_memory.read_bytes_per_s * MEMORY_EFFICIENCY
    passes = weights * flash["compute_bytes"] / flash["compute_bandwidth"] + cached / memory
    stored = sum((t.moved_bytes for t in task.operator.weights), 0)
    main = platform.device.main_memory.name
    spilled = np.maximum(task.traffic_bytes.get(main, 0.0) - stored - cached, 0.0) / memory
    parts = floor_parts(task, platform)
    near = max((parts[name] for name in task.traffic_bytes if name != main), key=np.max, default=0.0)
    return np.maximum(np.maximum(passes + spilled, near / MEMORY_EFFICIENCY), parts.get("compute", 0.0))


def _computed(task: Task, flash: Mapping[str, Any]) -> Num:
    """Share of the dense pass that is computed: `sparse_compute` for one token, all of it for the union of many."""
    if task.kind not in _MATRICES:
        return 1.0
    idle = flash["sparsity"] ** (np.maximum(np.asarray(_rows(task), float), 1.0) - 1)
    return flash["sparse_compute"] + (1 - flash["sparse_compute"]) * (1 - idle)


def _rows(task: Task) -> Num:
    """Tokens that use a matrix; of experts, those that share one."""
    dims = task.operator.dims
    if task.kind == "moe":
        return dims["tokens"] * dims["topk"] / dims["active_experts"]
    return dims["m"] * dims.get("batch", 1) if task.kind == "gemm" else 1


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
    if not _feeds_forward(task):
        return {"flash_bytes": 0.0, "flash_rate": flash["sequential"]}
    touched = sum((t.stored_bytes * t.touched for t in task.operator.weights), 0)
    rate = read_rate(_read_size(task, mode), flash)
    new = 1 - (1 - (1 - flash["sparsity"]) * flash["fresh"]) ** np.maximum(np.asarray(_rows(task), float), 1.0)
    # where that takes longer, the whole layer is read in sequence, and no neuron is inserted
    random = np.asarray(new * (1 + flash["manage"]) / rate < 1 / flash["sequential"])
    return {
        "flash_bytes": plain(touched * np.where(random, new, 1.0)),
        "flash_rate": plain(np.where(random, rate, flash["sequential"])),
        "random": plain(np.where(random, 1.0, 0.0)),
    }


def _feeds_forward(task: Task) -> bool:
    return task.kind in _MATRICES and task.name.rpartition(".")[2].startswith(_FEED_FORWARD)


def _read_size(task: Task, mode: str) -> Num:
    """Bytes of one read: a column of a matrix, or the rows and columns of a neuron side by side."""
    dims, bits = task.operator.dims, task.operator.weights[0].format.bits
    if task.kind == "moe":
        column, gated = dims["hidden"] * bits / 8, dims["matrices"] == 3
    else:
        column, gated = np.minimum(dims["k"], dims["n"]) * bits / 8, task.name.endswith("gate_up")
    return column * ((3 if gated or task.choice.get("gated") else 2) if mode == "all" else 1)


def _tied(task: Task) -> bool:
    """A table that the output head shares is counted there."""
    return any(w.touched != 1.0 and w.name == "embed.tokens.weight" for w in task.operator.weights)


def _floors(task: Task, platform: Platform, flash: Mapping[str, Any]) -> Floors:
    """The datasheet, of sparse layers for the union of the active neurons, of drafts for one token of a pass."""
    sparse, faster = flash["mode"] in _SPARSE and _feeds_forward(task), task.choice.get("faster", 1.0)
    read = {"flash": task.choice.get("flash_bytes", 0.0) / flash["sequential"]}
    if not sparse and faster == 1.0:
        return held(task, platform, read)
    idle = flash["sparsity"] if sparse else 0.0
    active = (1 - idle ** np.maximum(np.asarray(_rows(task), float), 1.0)) / faster
    own = {name: plain(seconds * active) for name, seconds in floor_parts(task, platform).items()}
    return held(task, platform, {**own, **read}, instead=dict.fromkeys(own, _ACTIVE if sparse else _DRAFTED))
