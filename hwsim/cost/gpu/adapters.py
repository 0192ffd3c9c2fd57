"""From an operator of the workload graph to the columns of its kernel family, as a serving engine runs it.

Weights and KV cache come from DRAM, kernels launch from a CUDA graph (backend ``engine``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu import attention_decode, attention_prefill, moe
from hwsim.cost.gpu.gemm import ACTIVATIONS
from hwsim.cost.gpu.vector import OPS
from hwsim.cost.peaks import compute_path
from hwsim.ir.platform import Device, Platform
from hwsim.ir.workload import NumberFormat, Operator

Row = Mapping[str, Any]
_VECTOR_NAMES: Final = {"rms_norm": "rmsnorm", "layer_norm": "layernorm", "gated": "silu_mul", "swiglu": "silu_mul",
                        "geglu": "gelu_mul", "silu": "gelu", "sigmoid": "tanh", "residual": "add"}  # fmt: skip
FOUR_BITS: Final = 6.0  # formats up to this width run on the 4-bit dequantizing kernels


def gemm_columns(operator: Operator, platform: Platform) -> Row | None:
    """batch, m, n, k and the formats that really multiply; None for arithmetic that no GEMM family covers."""
    dims = operator.dims
    act, weight = gemm_formats(operator, platform)
    if act not in ACTIVATIONS:
        return None
    sizes = {name: dims.get(name, 1) for name in ("batch", "m", "n", "k")}
    return {**sizes, "dtype_act": act, "dtype_weight": weight, "backend": "engine"}


def gemm_formats(operator: Operator, platform: Platform) -> tuple[str, str]:
    """(activation, weight) formats of the kernel: native pair, block-scaled fp8, or weight-only."""
    path = compute_path(platform.device, operator.dtype, operator.unit)
    stored = operator.weight_format
    if stored is None:
        return path.dtype, path.dtype
    if path.dtype == "fp8" and stored.name.startswith("fp8_blk"):
        return "fp8_blk", "fp8_blk"
    return path.dtype, _weight_format(stored, path.dtype)


def _weight_format(stored: NumberFormat, act: str) -> str:
    """Weights narrower than the arithmetic are expanded on the way: int8 or int4 weight-only kernels."""
    width = {"fp4": 4.0, "fp8": 8.0, "int8": 8.0, "bf16": 16.0, "fp16": 16.0}.get(act, 32.0)
    if act in ("bf16", "fp16", "fp8", "int8") and stored.element_bits < width:
        return "int4" if stored.element_bits <= FOUR_BITS else "int8"
    return act


def vector_columns(operator: Operator, platform: Platform) -> Row | None:
    """Rows, columns and compulsory bytes; an unknown function counts as an element-wise one."""
    name = _VECTOR_NAMES.get(operator.op, operator.op)
    return {
        "op": name if name in OPS else "mul",
        "rows": operator.dims["rows"],
        "cols": operator.dims["cols"],
        "bytes_read": operator.read_bytes,
        "bytes_written": operator.written_bytes,
        "backend": "engine",
    }


def collective_columns(operator: Operator, platform: Platform) -> Row | None:
    """Inside one node; None for a single rank and across nodes. Engines reduce small messages by one-shot kernels."""
    ranks = operator.dims["ranks"]
    if np.max(ranks) > platform.node_size or np.min(ranks) < 2:
        return None
    linked = has_peer_link(platform.device)
    custom = operator.op == "all_reduce" and linked
    return {
        "op": operator.op,
        "bytes": np.maximum(operator.dims["bytes"], 1),
        "n_gpus": ranks,
        "topology": "single-node-nvswitch" if linked else "single-node-pcie",
        "backend": "engine-custom" if custom else "engine",
    }


def has_peer_link(device: Device) -> bool:
    """Whether the library's kernels may use another link than PCIe inside a node."""
    return any(not link.name.lower().startswith(("pcie", "host")) for link in device.links)


ADAPTERS: Final[dict[str, tuple[str, Callable[[Operator, Platform], Row | None]]]] = {
    "gemm": ("gemm", gemm_columns),
    "attention_prefill": ("attention_prefill", attention_prefill.columns_of),
    "attention_decode": ("attention_decode", attention_decode.columns_of),
    "moe": ("moe", moe.columns_of),
    "vector": ("vector", vector_columns),
    "embedding": ("vector", vector_columns),
    "collective": ("collective", collective_columns),
}
"""Operator kind -> (family name, columns of it)."""
