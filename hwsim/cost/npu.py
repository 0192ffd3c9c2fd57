"""Phones: an int8 engine with static shapes beside a CPU and a GPU on one memory (llm.npu, arXiv 2407.05858).

Prompts run as chunks of prepared graphs, the last one padded to whole passes of the engine's rows; each layer of a
chunk pays its products in the engine and, for the float parts and graph switches that stay exposed, a constant or the
operations of its attention on the float processor, whichever is longer; weights are brought into the engine's window
once a prompt. Layers whose outliers are not pruned compute them in float on the CPU. Decoding runs on the CPU: a pass
over the weights, or the products of a batch. Devices of this kind without a `phone` section are priced by the generic
model. Formulas: docs/formulas/npu.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.25  # the prefill law is within 17 % over nine published runs, the shape law within 15 %
# Engine graphs of a layer: before attention, after it, and the feed-forward block; float parts lie between them.
# (llm.npu counts 144 graphs, float ones included, in 24 layers: six a layer.)
ENGINE_GRAPHS: Final = 3
ENGINE_BITS: Final = 8  # weights that the engine multiplies; other widths are refused


def takes(device: Device) -> tuple[str, ...]:
    """Tilings where the generic model prices the device; the laws of phones are of whole products."""
    return () if "phone" in device.extra else generic.takes(device)


def plan(graph: MappedGraph) -> MappedGraph:
    """Mark which phase runs where, if the int8 engine has a path for the weights. Raises InfeasibleError."""
    device = graph.platform.device
    phone = device.extra.get("phone")
    if phone is None:
        return graph
    for task in graph.tasks if phone["processor"] in ("npu-int8", "npu-products") else ():
        # biases are float, and the output head and routers run on the CPU
        if task.kind in ("gemm", "moe") and task.operator.weights and not _on_cpu(task):
            weight = max(task.operator.weights, key=lambda w: float(np.max(w.elements)))
            _require_path(device, task.name, weight.format.name, weight.format.element_bits)
    return replace(graph, tasks=tuple(_placed(task, graph.phase) for task in graph.tasks))


def _placed(task: Task, phase: str) -> Task:
    """Attention runs on the float processors in both phases, everything of a decode step on the CPU."""
    floats = task.kind.startswith("attention")
    operator = task.operator.with_(unit="vector") if floats else task.operator
    return replace(task, operator=operator, choice={**task.choice, "decoding": phase == "decode"})


def _on_cpu(task: Task) -> bool:
    return task.operator.segment == "head" or task.name.rpartition(".")[2] in ("router", "shared_expert_gate")


def _require_path(device: Device, where: str, name: str, bits: float) -> None:
    """The engine multiplies `ENGINE_BITS`-bit weights alone. Raises InfeasibleError."""
    if bits != ENGINE_BITS:
        raise InfeasibleError(
            f"{device.name} has no {bits:g}-bit path: its engine takes {ENGINE_BITS}-bit weights, "
            f"{abs(bits - ENGINE_BITS):g} bit {'missing' if bits < ENGINE_BITS else 'too many'}",
            where=where,
            seen=name,
            fix="--weights int8",
            budget={"bits": bits, "engine_bits": ENGINE_BITS},
        )


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution."""
    phone = platform.device.extra.get("phone")
    if phone is None:
        return generic.task_cost(task, platform)
    parts = {name: plain(seconds) for name, seconds in _parts(task, phone).items()}
    value = sum(parts.values(), 0.0)
    energy = dynamic_energy_j(task, platform)
    return bracketed(value, parts, _floors(task, platform.device), BAND, energy_j=energy, model=phone["processor"])


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Graph costs of the model, and what one chunk does without reordering: engine time and the engine's idle share.

    `graph_build_s` and `graph_optimize_s` are paid once, before the first prompt; `chunk_engine_s` adds up single
    products; `bubble` is float time over float and engine time, one after another.
    """
    graph = timelines[0].graph
    phone = graph.platform.device.extra.get("phone")
    if phone is None or graph.phase != "prefill" or phone["processor"] == "engine":
        return {}
    layers, weights = graph.layers, _linear_weights(graph.tasks)
    engine = layers * ENGINE_GRAPHS * phone["npu_start"] + _chunk_passes(phone) * weights * phone["npu_weight"]
    floats = layers * phone["layer"]
    return {
        "graph_build_s": Bracket(plain(layers * phone["build_layer"])),
        "graph_optimize_s": Bracket(plain(weights * phone["optimize_weight"])),
        "chunk_engine_s": Bracket(plain(engine)),
        "bubble": Bracket(plain(floats / (floats + engine))),
    }


def _linear_weights(tasks: Sequence[Task]) -> Num:
    """Weights that prompt tokens multiply with in the engine; the output head is not among them."""
    held = [t for t in tasks if t.kind in ("gemm", "moe") and not _on_cpu(t)]
    return sum((_weights(t) * t.count for t in held), 0)


def _weights(task: Task) -> Num:
    """Weights that one execution multiplies with; of experts, those of the active ones."""
    dims = task.operator.dims
    if task.kind == "moe":
        return dims["active_experts"] * dims["matrices"] * dims["hidden"] * dims["inter"]
    return dims["k"] * dims["n"]


def _chunk_passes(phone: Mapping[str, Any]) -> float:
    return float(np.ceil(phone["chunk"] / phone["stream_rows"]))


def _parts(task: Task, phone: Mapping[str, Any]) -> dict[str, Num]:
    dims, engine = task.operator.dims, phone["processor"] == "engine"
    if task.kind in ("gemm", "moe"):
        return _matrix(task, phone)
    if task.kind == "attention_prefill" and not engine:
        return {"float": dims["batch"] * _exposed_floats(dims, phone)}
    if task.kind == "attention_decode":
        return {"memory": _stream(task, phone)}
    return {"float": 0.0}


def _matrix(task: Task, phone: Mapping[str, Any]) -> dict[str, Num]:
    dims, processor = task.operator.dims, phone["processor"]
    moe = task.kind == "moe"
    rows = dims["tokens"] * dims["topk"] / dims["active_experts"] if moe else dims["m"] * dims.get("batch", 1)
    if processor == "engine":
        return {"compute": np.maximum(task.operator.flop / phone["engine_rate"], _stream(task, phone))}
    if task.operator.segment == "op":
        return {"compute": _single(rows, dims["k"], dims["n"], phone)}
    weights = _weights(task)
    if task.choice.get("decoding") or _on_cpu(task):
        products = rows / phone["stream_rows"] * weights * phone["cpu_weight"]
        return {"memory": np.maximum(_stream(task, phone), products)}
    if processor == "npu-int8":
        npu = _prepared(rows, weights, phone)
    elif processor == "npu-products":
        npu = _one_by_one(rows, weights, phone)
    else:
        depth, width = (weights / dims["inter"], dims["inter"]) if moe else (dims["k"], dims["n"])
        npu = _single(rows, depth, width, phone)
    return {"npu": npu, "float": rows * weights * (1 - phone["pruned"]) * phone["outlier_weight"]}


def _exposed_floats(dims: Mapping[str, Num], phone: Mapping[str, Any]) -> Num:
    """Float parts of a layer over all chunks of a prompt: a constant a chunk, or its attention where that is longer.

    Attention of chunk i sees i chunks of keys, so it grows by `more` from one chunk to the next. Assumption: it runs
    at the rate of the published float products of the GPU.
    """
    chunks, rate = _chunks(dims["q_len"], phone), 2 * phone["stream_rows"] / phone["gpu_weight"]
    more = 2 * phone["chunk"] ** 2 * dims["n_heads"] * (dims["head_dim"] + dims["v_head_dim"]) / rate
    even = np.minimum(chunks, phone["layer"] / more)  # up to so many chunks the constant is the longer one
    return even * phone["layer"] + more * (chunks**2 - even**2) / 2


def _prepared(rows: Num, weights: Num, phone: Mapping[str, Any]) -> Num:
    """Weights brought in once, then chunks of prepared graphs."""
    return weights * (phone["prepare_weight"] + _chunks(rows, phone) * phone["chunk_weight"])


def _one_by_one(rows: Num, weights: Num, phone: Mapping[str, Any]) -> Num:
    """Products as they come: a start each chunk, and a pass over the weights for every `stream_rows` rows."""
    start = np.ceil(np.asarray(rows) / phone["chunk"]) * phone["npu_start"]
    return start + np.ceil(np.asarray(rows) / phone["stream_rows"]) * weights * phone["npu_weight"]


def _chunks(rows: Num, phone: Mapping[str, Any]) -> Num:
    """Chunks of a prompt; the last one holds whole passes of `stream_rows` rows."""
    return np.ceil(np.asarray(rows) / phone["stream_rows"]) * phone["stream_rows"] / phone["chunk"]


def _single(rows: Num, depth: Num, width: Num, phone: Mapping[str, Any]) -> Num:
    """A product by itself: a start and a time a weight; more rows than `stream_rows` repeat the pass.

    Scales of groups of inputs cut it into depth / group products, each with a start, whose sums are added in float.
    """
    start, weight = {
        "npu-int8": (phone["npu_start"], phone["npu_weight"]),
        "npu-products": (phone["npu_start"], phone["npu_weight"]),
        "npu-fp16": (0.0, phone["npu_fp16_weight"]),
        "cpu-int8": (phone["cpu_start"], phone["cpu_weight"]),
        "gpu-fp16": (phone["gpu_start"], phone["gpu_weight"]),
    }[phone["processor"]]
    products = np.ceil(np.asarray(depth) / phone["group"]) if phone["group"] else 1
    return products * start + depth * width * weight * np.maximum(np.asarray(rows) / phone["stream_rows"], 1.0)


def _stream(task: Task, phone: Mapping[str, Any]) -> Num:
    """Weights and cache through the shared memory by one processor."""
    stored = sum((t.moved_bytes for t in task.operator.inputs if t.role in ("weight", "kv_cache")), 0)
    return stored / phone["single_bandwidth"]


def _floors(task: Task, device: Device) -> dict[str, Num]:
    """Seconds at the advertised peak and at the peak of the shared memory."""
    peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute)
    stored = sum(
        (t.moved_bytes for t in task.operator.inputs if t.role == "weight" and task.kind in ("gemm", "moe")), 0
    )
    return {"compute": task.operator.flop / peak, "memory": stored / device.main_memory.read_bytes_per_s}
