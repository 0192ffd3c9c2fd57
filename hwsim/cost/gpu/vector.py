"""Vector operators: bytes through DRAM or L2, instruction issue of the SMs that have rows, launch floor.

Element-wise kernels spread over all SMs; row kernels (norms, softmax, gated activations, rope) give one row to one
thread block, so few rows leave SMs idle. Derivation and sources: docs/formulas/gpu-vector.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.cost.gpu.common import resident, smooth_max
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Array, Column, Columns, Family, KernelTime, Parameter, join, names, protocol

ROW_OPS = ("rmsnorm", "layernorm", "softmax", "silu_mul", "rope", "gelu_mul")
"""Kernels with one thread block a row."""
REDUCTIONS = ("layernorm", "softmax", "rmsnorm")
"""Kernels that read a row again after its reduction."""
OPS = (
    *ROW_OPS, "gelu", "relu", "tanh", "add", "mul", "div", "pow",
    "add_scalar", "mul_scalar", "div_scalar", "pow_scalar", "copy",
)  # fmt: skip
ROW_BLOCKS = 16  # row blocks of 128 threads that fit on one SM (2048 threads): rows in flight for the second read
WARP_COLS = 1024  # up to here PyTorch's softmax gives a row to one warp (persistent softmax)
VECTOR_WIDTH = 4096  # elements one pass of a 1024-thread block covers with 4 elements a thread

P = Parameter
PARAMETERS = (
    P("launch_kcycles", "kernel launch and drain, as the protocol sees it", "1000 cycles", 4.0, 0.4, 200),
    P("issue_per_clk", "elements an SM handles in a clock", "1", 4.0, 0.05, 200),
    P("reread", "share of the input a reduction reads again when it missed the cache", "1", 0.5, 0.0, 2.0, "linear",
      classes=REDUCTIONS),
    P("hbm_eff", "sustained share of the DRAM bandwidth", "1", 0.88, 0.3, 1.0, shared=True),
    P("l2_bytes_per_clk", "bytes an SM moves to and from L2 in a clock", "B", 25, 4, 128, shared=True),
    P("cache_share", "share of L2 that a replayed working set can occupy", "1", 0.6, 0.1, 2.0, shared=True),
)  # fmt: skip


def vector_time_s(columns: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of one vector kernel; class ``op@protocol``, columns rows, cols, bytes_read, bytes_written."""
    op, _, protocol = kernel_class.partition("@")
    rows, cols = (np.asarray(columns[c], dtype=np.float64) for c in ("rows", "cols"))
    read, written = (np.asarray(columns[c], dtype=np.float64) for c in ("bytes_read", "bytes_written"))
    if op in REDUCTIONS:
        in_flight = ROW_BLOCKS * f.sms * read / rows
        read = read * (1.0 + p["reread"] * (1.0 - resident(in_flight, f.l2_bytes, p["cache_share"])))
    total = read + written
    warm = resident(total, f.l2_bytes, p["cache_share"]) if protocol != "engine" else 0.0
    active = np.minimum(rows, f.sms) if op in ROW_OPS else np.minimum(np.ceil(rows * cols / 1024.0), f.sms)
    issue = rows * _issued(op, cols) / (active * f.clock_hz * p["issue_per_clk"])
    l2 = total / (active * f.clock_hz * p["l2_bytes_per_clk"])
    dram = total * (1.0 - warm) / (f.dram_bytes_per_s * p["hbm_eff"])
    launch = np.broadcast_to(p["launch_kcycles"] * 1e3 / f.clock_hz, dram.shape)
    body = smooth_max(np.maximum(issue, l2), dram)
    return KernelTime(launch + body, {"compute": issue, "l2": l2, "hbm": dram, "launch": launch})


def _issued(op: str, cols: Array) -> Array:
    """Elements that threads pass over: PyTorch's block softmax (above 1024 columns) rounds up to whole passes."""
    if op != "softmax":
        return cols
    return np.where(cols > WARP_COLS, np.ceil(cols / VECTOR_WIDTH) * VECTOR_WIDTH, cols)


def kernel_class(columns: Columns) -> Array:
    """``op@protocol`` with the protocols of GEMM."""
    return np.char.add(np.char.add(names(columns["op"]), "@"), protocol(columns["backend"]))


_ELEMENTWISE = (
    "add",
    "mul",
    "relu",
    "add_scalar",
    "mul_scalar",
    "gelu",
    "tanh",
    "div",
    "pow",
    "div_scalar",
    "pow_scalar",
)
FALLBACKS = {
    **{op: tuple(o for o in _ELEMENTWISE if o != op) for op in (*_ELEMENTWISE, "copy")},
    "rmsnorm": ("layernorm",), "layernorm": ("rmsnorm",), "softmax": ("layernorm",), "gelu_mul": ("silu_mul",),
    "silu_mul": ("gelu", "mul"), "rope": ("mul",),
}  # fmt: skip

FAMILY = Family(
    name="vector",
    signature=("rows", "cols", "bytes_read", "bytes_written", "op"),
    columns=(
        Column("op", "name", known=OPS),
        Column("dtype", "name"),
        Column("rows"),
        Column("cols"),
        Column("bytes_read", minimum=0),
        Column("bytes_written", minimum=0),
        Column("backend", "name", default="engine"),
    ),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=lambda c: join(c["rows"], c["cols"]),
    time=vector_time_s,
    flop=lambda c: np.asarray(c["rows"]) * np.asarray(c["cols"]),
    traffic_bytes=lambda c: np.asarray(c["bytes_read"]) + np.asarray(c["bytes_written"]),
    compute_dtype=lambda c: np.full(len(names(c["op"])), "fp32"),
    fallbacks=FALLBACKS,
)
