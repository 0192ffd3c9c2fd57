"""Phones: an int8 engine with static shapes beside a CPU and a GPU on one memory (llm.npu, arXiv 2407.05858).

Prompts run as chunks of prepared graphs, the last one padded to whole passes of the engine's rows; each layer of a
chunk pays its products in the engine and a constant for the float parts and graph switches that stay exposed; weights
are brought into the engine's window once a prompt. Layers whose outliers are not pruned compute them in float on the
CPU. Decoding reads the weights on the CPU. Devices of this kind without a `phone` section are priced by the generic
model. Formulas: docs/formulas/npu.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed, plain
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.25  # the prefill law is within 17 % over nine published runs, the shape law within 15 %
# Engine graphs of a layer: before attention, after it, and the feed-forward block; float parts lie between them.
# (llm.npu counts 144 graphs, float ones included, in 24 layers: six a layer.)
ENGINE_GRAPHS: Final = 3
ENGINE_BITS: Final = 8


def takes(device: Device) -> tuple[str, ...]:
    """Tilings where the generic model prices the device; the laws of phones are of whole products."""
    return () if "phone" in device.extra else generic.takes(device)


def plan(graph: MappedGraph) -> MappedGraph:
    """The graph as it is, if the int8 engine has a path for its weights. Raises InfeasibleError."""
    device = graph.platform.device
    phone = device.extra.get("phone")
    for task in graph.tasks if phone and phone["processor"] in ("npu-int8", "npu-products") else ():
        # biases are float, and the output head runs on the CPU
        if task.kind in ("gemm", "moe") and task.operator.weights and task.operator.segment != "head":
            weight = max(task.operator.weights, key=lambda w: float(np.max(w.elements)))
            _require_path(device, task.name, weight.format.name, weight.format.element_bits)
    return graph


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
    """Weights that prompt tokens multiply with; the output head sees one row."""
    dims = [(t.operator.dims, t.count) for t in tasks if t.kind == "gemm"]
    return sum((np.where(np.asarray(d["m"]) > 1, d["k"] * d["n"], 0) * count for d, count in dims), 0)


def _chunk_passes(phone: Mapping[str, Any]) -> float:
    return float(np.ceil(phone["chunk"] / phone["stream_rows"]))


def _parts(task: Task, phone: Mapping[str, Any]) -> dict[str, Num]:
    dims, processor = task.operator.dims, phone["processor"]
    if task.kind == "gemm":
        rows = dims["m"] * dims.get("batch", 1)
        if processor == "engine":
            return {"compute": _slower(task.operator.flop / phone["engine_rate"], _stream(task, phone))}
        if task.operator.segment == "op":
            return {"compute": _single(rows, dims["k"], dims["n"], phone)}
        prompt, weights = np.asarray(rows) > 1, dims["k"] * dims["n"]
        if processor == "npu-int8":
            npu = _prepared(rows, weights, phone)
        elif processor == "npu-products":
            npu = _one_by_one(rows, weights, phone)
        else:
            npu = _single(rows, dims["k"], dims["n"], phone)
        floats = rows * weights * (1 - phone["pruned"]) * phone["outlier_weight"]
        return {
            "npu": np.where(prompt, npu, 0),
            "float": np.where(prompt, floats, 0),
            "memory": np.where(prompt, 0.0, _stream(task, phone)),
        }
    if task.kind == "attention_prefill" and processor != "engine":
        return {"float": dims["batch"] * _chunks(dims["q_len"], phone) * phone["layer"]}
    if task.kind == "attention_decode":
        return {"memory": _stream(task, phone)}
    return {"float": 0.0}


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


def _slower(a: Num, b: Num) -> Num:
    return np.maximum(np.asarray(a), np.asarray(b))


def _floors(task: Task, device: Device) -> dict[str, Num]:
    """Seconds at the advertised peak and at the peak of the shared memory."""
    peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute)
    stored = sum((t.moved_bytes for t in task.operator.inputs if t.role == "weight" and task.kind == "gemm"), 0)
    return {"compute": task.operator.flop / peak, "memory": stored / device.main_memory.read_bytes_per_s}
