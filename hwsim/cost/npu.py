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
from hwsim.cost.bracketed import Floors, bracketed, held
from hwsim.cost.peaks import compute_path
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
_FLOATS: Final = "runs on the CPU or the GPU of the phone, at the rate of their published products, not on the engine"
_WINDOW: Final = "the window is the engine's own memory"
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
    tasks = tuple(_placed(task, graph.phase) for task in graph.tasks)
    return replace(graph, tasks=_shared_floats(tasks, device))


def _shared_floats(tasks: tuple[Task, ...], device: Device) -> tuple[Task, ...]:
    """The float constant of a layer contains its elementwise operators: attention pays what those leave of it."""
    layers = sum((t.count for t in tasks if t.kind == "attention_prefill"), 0)
    inside = [t for t in tasks if t.kind == "vector" and t.operator.segment not in ("embed", "head")]
    each = sum((_float_s(t, device) * t.count for t in inside), 0.0) / layers if layers else 0.0
    return tuple(
        replace(t, choice={**t.choice, "elsewhere_s": each}) if t.kind == "attention_prefill" else t for t in tasks
    )


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
    parts = {name: plain(seconds) for name, seconds in _parts(task, platform.device).items()}
    value = sum(parts.values(), 0.0)
    energy = dynamic_energy_j(task, platform)
    return bracketed(value, parts, _floors(task, platform), BAND, energy_j=energy, model=phone["processor"])


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


def _parts(task: Task, device: Device) -> dict[str, Num]:
    phone: Mapping[str, Any] = device.extra["phone"]
    dims, engine = task.operator.dims, phone["processor"] == "engine"
    if task.kind in ("gemm", "moe"):
        return _matrix(task, phone)
    if task.kind == "attention_prefill" and not engine:
        left = dims["batch"] * _exposed_floats(dims, phone) - task.choice.get("elsewhere_s", 0.0)
        return {"float": np.maximum(left, _float_s(task, device))}
    if task.kind == "attention_decode":
        return {"memory": _stream(task, phone)}
    return {"float": _float_s(task, device)}


def _float_s(task: Task, device: Device) -> Num:
    """Operators between the products: their operations, or what the window does not hold through the memory."""
    moved = task.traffic_bytes.get(device.main_memory.name, 0.0) / device.extra["phone"]["single_bandwidth"]
    return np.maximum(moved, task.operator.flop / _peak(task, device))


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


def _own_rate(task: Task, phone: Mapping[str, Any]) -> float:
    """Operations a second of the CPU or GPU where a task runs, by their published products; 0: in the engine."""
    cpu, gpu = (2 * phone["stream_rows"] / phone[f"{name}_weight"] for name in ("cpu", "gpu"))
    processor, products = phone["processor"], task.kind in ("gemm", "moe")
    if processor == "engine" or (products and processor == "npu-fp16"):
        return 0.0
    if task.operator.segment != "op" and (task.choice.get("decoding") or (products and _on_cpu(task))):
        return float(cpu)
    if products:
        return float({"cpu-int8": cpu, "gpu-fp16": gpu}.get(processor, 0.0))
    return float(gpu)


def _peak(task: Task, device: Device) -> Num:
    own = _own_rate(task, device.extra["phone"])
    return own or compute_path(device, task.operator.dtype, task.operator.unit).peak_flop_per_s


def _floors(task: Task, platform: Platform) -> Floors:
    """The datasheet of engine and memory; other processors of the phone by their published products."""
    device = platform.device
    own = _own_rate(task, device.extra["phone"])
    if not own:
        return held(task, platform)
    near = {m.name: _WINDOW for m in device.memories if m is not device.main_memory}
    instead = {"compute": _FLOATS, "vector": _FLOATS, **near}
    return held(task, platform, {"compute": task.operator.flop / own}, instead=instead)
