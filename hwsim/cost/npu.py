"""Phones: an int8 engine with static shapes beside a CPU and a GPU on one memory (llm.npu, arXiv 2407.05858).

Prompts run as chunks of a fixed length; each layer of a chunk pays its products in the engine and a constant for the
float parts and graph switches that stay exposed; decoding reads the weights on the CPU. Devices of this kind without a
`phone` section are priced by the generic model. Formulas: docs/formulas/npu.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed, plain
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost

BAND: Final = 1.25  # the prefill law is within 20 % over seven published runs, the shape law within 15 %


def takes(device: Device) -> tuple[str, ...]:
    """Tilings where the generic model prices the device; the laws of phones are of whole products."""
    return () if "phone" in device.extra else generic.takes(device)


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution."""
    phone = platform.device.extra.get("phone")
    if phone is None:
        return generic.task_cost(task, platform)
    parts = {name: plain(seconds) for name, seconds in _parts(task, phone).items()}
    value = sum(parts.values(), 0.0)
    energy = dynamic_energy_j(task, platform)
    return bracketed(value, parts, _floors(task, platform.device), BAND, energy_j=energy, model=phone["processor"])


def _parts(task: Task, phone: Mapping[str, Any]) -> dict[str, Num]:
    dims = task.operator.dims
    if task.kind == "gemm":
        rows = dims["m"] * dims.get("batch", 1)
        if phone["processor"] == "engine":
            return {"compute": _slower(task.operator.flop / phone["engine_rate"], _stream(task, phone))}
        if task.operator.segment == "op":
            return {"compute": _single(rows, dims["k"], dims["n"], phone)}
        chunked = np.where(
            np.asarray(rows) > 1, _chunks(rows, phone) * phone["chunk_weight"] * dims["k"] * dims["n"], 0
        )
        return {"npu": chunked, "memory": np.where(np.asarray(rows) > 1, 0.0, _stream(task, phone))}
    if task.kind == "attention_prefill" and phone["processor"] != "engine":
        return {"float": dims["batch"] * _chunks(dims["q_len"], phone) * phone["layer"]}
    if task.kind == "attention_decode":
        return {"memory": _stream(task, phone)}
    if task.kind == "embedding" and phone["processor"] != "engine":
        return {"prepare": np.where(np.asarray(dims["rows"]) > 1, phone["prepare"], 0.0)}
    return {"float": 0.0}


def _chunks(rows: Num, phone: Mapping[str, Any]) -> Num:
    return np.ceil(np.asarray(rows) / phone["chunk"])


def _single(rows: Num, depth: Num, width: Num, phone: Mapping[str, Any]) -> Num:
    """A product by itself: a start and a time a weight; more rows than `stream_rows` repeat the pass.

    Scales of groups of inputs cut it into depth / group products, each with a start, whose sums are added in float.
    """
    start, weight = {
        "npu-int8": (phone["npu_start"], phone["npu_weight"]),
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
