"""GEMM: tile candidates, wave quantization, split-K, L2 and DRAM traffic, power-limited tensor rate, launch floor.

For each candidate tile and split the kernel takes ``launch + quantization + smooth_max(blocks, DRAM)``; the fastest
wins (a library picks its kernel by a heuristic that this stands for). See docs/formulas/gpu-gemm.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.cost.gpu.common import last_axis, pick, resident, smooth_max, waves
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Array, Column, Columns, Family, KernelTime, Parameter, join, names, protocol

K_STEP = 64  # elements of K in one pipeline stage of the CUTLASS and cuBLAS main loops
SMEM_TILE = 128 * 256  # output elements of the largest tile; one such block fills an SM's register file
MIN_SPLIT_STEPS = 4  # a split shorter than the pipeline's depth only adds latency
ROTATED_COPIES = 5  # aiconfigurator replays a CUDA graph over min(5, ceil(L2 / weights)) weight copies
FP32_J_PER_FLOP_M = 1.6e-12 / 1e-9  # joules a FLOP and metre of process, whole chip, SIMT FP32 GEMM
PARTIAL_BYTES = 8.0  # a split writes and reads one fp32 partial an output element

BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0, "fp8": 1.0, "fp8_blk": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.5}
"""Stored bytes of an element; NVFP4 has one byte of scale for 16 elements."""
ACTIVATIONS = ("bf16", "fp16", "fp32", "fp8", "fp8_blk", "int8", "fp4")
QUANTIZED = ("fp8", "fp8_blk", "fp4", "int8")
WEIGHT_ONLY = ("bf16+int8", "bf16+int4", "fp16+int8", "fp16+int4")
GEMV_ROWS = {"bf16": 1, "fp16": 1, "int8": 4}
UNSPLIT = ("fp8_blk",)
"""DeepGEMM kernels do not split K."""
"""Rows up to which libraries switch to a matrix-vector kernel without tensor cores."""

# (rows, columns) of the output that one thread block computes. Finer lists change the mean error by < 0.1 points.
TILES = ((16, 64), (16, 256), (64, 64), (64, 128), (64, 256), (128, 128), (128, 192), (128, 256))
# SIMT and SIMD kernels need no 16-row tile: thin products do not pay for padding.
FP32_TILES = ((1, 256), (8, 64), (128, 32), (64, 64), (64, 128), (128, 128))
# DeepGEMM (block-scaled fp8): rows fixed at 64 or 128 by m, no split-K.
BLOCK_SCALED_TILES = ((64, 32), (64, 64), (64, 128), (128, 32), (128, 64), (128, 128))

_TILES_OF = {"fp8_blk": BLOCK_SCALED_TILES, "fp32": FP32_TILES}

P = Parameter
PARAMETERS = (
    P("launch_kcycles", "kernel launch and drain, as the protocol sees it", "1000 cycles", 5.0, 0.4, 200),
    P("gemv_kcycles", "the same for the matrix-vector kernel of very small m", "1000 cycles", 4.5, 0.4, 200,
      classes=tuple(GEMV_ROWS)),
    P("power_eff", "share of peak that power and issue limits sustain over a long kernel", "1", 0.8, 0.2, 1.0),
    P("hardness", "1: hard waves, 0: stream-K or persistent blocks without a tail", "1", 0.6, 0.0, 1.0, "linear"),
    P("store_bytes_per_clk", "output bytes an SM stores in a clock, not overlapped with the loop", "B", 15, 2, 300),
    P("split_us", "fix-up of a split-K kernel", "us", 2.5, 0.05, 100),
    P("hbm_eff", "sustained share of the DRAM bandwidth", "1", 0.85, 0.4, 1.0, shared=True),
    P("ramp_us", "time until DRAM streams at full rate", "us", 0.8, 0.05, 15, shared=True),
    P("l2_bytes_per_clk", "operand bytes that reach an SM in a clock", "B", 40, 8, 128, shared=True),
    P("cache_share", "share of L2 that a replayed working set can occupy", "1", 0.4, 0.2, 2.0, shared=True),
    P("half_reuse", "tile size at which operand or dequantization work halves the rate", "elements", 8, 0.1, 60,
      classes=("fp32", "fp8_blk", *WEIGHT_ONLY)),
    P("iter_cycles", "latency of one K step of a lone block", "cycles", 150, 20, 1500,
      classes=("fp8", "fp8_blk", "fp4", "int8", *WEIGHT_ONLY)),
    P("quant_bytes", "bytes an activation element costs in quantization", "B", 3.0, 0.1, 60, classes=QUANTIZED),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """One kernel class on arrays with a trailing axis for choices; bytes are compulsory and of one replay."""

    dtype: str
    protocol: str
    batch: Array
    m: Array
    n: Array
    k: Array
    act_bytes: float
    weight_bytes: float
    out_bytes: float

    @property
    def weights(self) -> Array:
        return self.batch * self.n * self.k * self.weight_bytes

    @property
    def activations(self) -> Array:
        return self.batch * self.m * (self.k * self.act_bytes + self.n * self.out_bytes)

    def uses(self, parameter: str) -> bool:
        return _CLASSES[parameter] == () or self.dtype in _CLASSES[parameter]


_CLASSES = {p.name: p.classes for p in PARAMETERS}


def shape(columns: Columns, kernel_class: str) -> Shape:
    """Columns of one class as a `Shape`."""
    dtype, _, protocol = kernel_class.partition("@")
    act, _, weight = dtype.partition("+")
    batch, m, n, k = (last_axis(columns[c]) for c in ("batch", "m", "n", "k"))
    widths = (BYTES[act], BYTES[weight or act], 4.0 if act == "fp32" else 2.0)
    return Shape(dtype, protocol, batch, m, n, k, *widths)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Candidate tilings: rows, columns, K steps and number of thread blocks (trailing axis: the candidates)."""

    rows: Array
    cols: Array
    split: Array
    steps: Array
    count: Array
    allowed: Array


def candidates(s: Shape, sms: Any) -> Blocks:
    """Every tile without a split, and with the split of K that fills the device once."""
    tiles = _TILES_OF.get(s.dtype, TILES)
    rows, cols = (np.array(side, dtype=np.float64) for side in zip(*tiles, strict=True))
    outputs = s.batch * np.ceil(s.m / rows) * np.ceil(s.n / cols)
    steps = np.ceil(s.k / K_STEP)
    if s.dtype in UNSPLIT:
        fixed = (rows == 128) | (s.m <= 64) if s.dtype == "fp8_blk" else np.ones_like(outputs, dtype=bool)
        return Blocks(rows, cols, np.ones_like(outputs), steps + 0 * outputs, outputs, fixed)
    fill = np.clip(np.floor(sms / outputs), 1.0, np.maximum(1.0, np.floor(steps / MIN_SPLIT_STEPS)))
    split = np.concatenate([np.ones_like(fill), fill], axis=-1)
    outputs = np.concatenate([outputs, outputs], axis=-1)
    rows, cols = (np.concatenate([side, side]) for side in (rows, cols))
    return Blocks(rows, cols, split, np.ceil(steps / split), outputs * split, np.ones_like(outputs, dtype=bool))


def asked(columns: Columns, b: Blocks) -> Blocks:
    """The candidates, narrowed to the tile that a mapper asked for (columns tile_rows, tile_cols, tile_split).

    A tile that no kernel of the library has leaves the choice as it is.
    """
    if "tile_rows" not in columns:
        return b
    wanted = [last_axis(columns[name]) for name in ("tile_rows", "tile_cols", "tile_split")]
    same = (b.rows == wanted[0]) & (b.cols == wanted[1]) & (b.split == wanted[2]) & b.allowed
    return replace(b, allowed=np.where(np.any(same, axis=-1, keepdims=True), same, b.allowed))


def compute_s(s: Shape, b: Blocks, f: Facts, p: Mapping[str, Any]) -> Array:
    """Main loop and store of all blocks: waves at peak, never faster than the power-limited rate.

    A partial wave leaves SMs idle and power to spare, so quantization is paid at the boost clock and the power
    limit only on the work itself.
    """
    dtype = s.dtype.partition("+")[0] if "+" in s.dtype else s.dtype
    peak, sms, clock = (_wide(x) for x in (f.peak(dtype), f.sms, f.clock_hz))
    edge = b.rows * b.cols / (b.rows + b.cols)
    reuse = edge / (edge + p["half_reuse"]) if s.uses("half_reuse") else 1.0
    flop = 2.0 * b.rows * b.cols * K_STEP * b.steps
    main = flop * sms / (peak * reuse)
    store = b.rows * b.cols * s.out_bytes / (p["store_bytes_per_clk"] * clock)
    quantized = waves(b.count, sms, p["hardness"]) * (main + store)
    return smooth_max(quantized, b.count * flop / (peak * sustained(dtype, f, p)), 8.0)


def sustained(dtype: str, f: Facts, p: Mapping[str, Any]) -> Any:
    """Share of peak that lasts: the fitted one, and for plain FP32 no more than the board's power allows.

    A busy FP32 GEMM draws about 1.6 pJ a FLOP for each nm of the process (V100, A100: their sgemm rate at board power),
    so that 70 W cards hold 35-45 % of their boost peak.
    """
    if dtype != "fp32" or not np.all(f.tdp_w) or not np.all(f.process_m) or "fp32" in f.tensor_flop_per_s:
        return p["power_eff"]
    watts = f.peak("fp32") * FP32_J_PER_FLOP_M * f.process_m
    return _wide(np.minimum(p["power_eff"], f.tdp_w / watts))


def l2_s(s: Shape, b: Blocks, f: Facts, p: Mapping[str, Any]) -> Array:
    """Operands of every block (and split-K partials) through the active SMs' share of the L2 fabric."""
    sms, clock = _wide(f.sms), _wide(f.clock_hz)
    operands = b.count * (b.rows * s.act_bytes + b.cols * s.weight_bytes) * K_STEP * b.steps
    outputs = s.batch * s.m * s.n * (s.out_bytes + np.where(b.split > 1, PARTIAL_BYTES * b.split, 0.0))
    return np.asarray((operands + outputs) / (clock * p["l2_bytes_per_clk"] * np.minimum(sms, b.count)))


def chain_s(s: Shape, b: Blocks, f: Facts, p: Mapping[str, Any]) -> Any:
    """Latency of the K loop of one block after another: small tiles wait for memory, not for math."""
    if not s.uses("iter_cycles"):
        return 0.0
    resident_blocks = np.minimum(4.0, SMEM_TILE / (b.rows * b.cols))
    turns = np.maximum(1.0, b.count / (_wide(f.sms) * resident_blocks))
    return turns * b.steps * p["iter_cycles"] / _wide(f.clock_hz)


def dram_s(s: Shape, f: Facts, p: Mapping[str, Any]) -> Array:
    """Weights, activations and output that the protocol leaves cold, at the sustained bandwidth after a ramp.

    graph: min(5, ceil(L2/weights)) copies rotate, activations stay; eager and kineto repeat one buffer;
    engine: every weight is read from DRAM, as between two steps of a model larger than the cache.
    """
    cache, share = _wide(f.l2_bytes), p["cache_share"]
    copies = np.minimum(ROTATED_COPIES, np.ceil(cache / s.weights)) if s.protocol == "graph" else 1.0
    warm = resident(copies * s.weights + s.activations, cache, share) if s.protocol != "engine" else 0.0
    touched = resident(s.weights + s.activations, cache, share)
    ideal = (s.weights * (1.0 - warm) + s.activations * (1.0 - touched)) / _wide(f.dram_bytes_per_s)
    ramp = p["ramp_us"] * 1e-6
    return np.asarray(ideal / p["hbm_eff"] + ramp * (1.0 - np.exp(-ideal / ramp)))


def quantization_s(s: Shape, f: Facts, p: Mapping[str, Any]) -> Any:
    """The pass that turns 16-bit activations into the kernel's format; it is part of the measured call."""
    if s.dtype not in QUANTIZED:
        return 0.0
    elements = s.batch * s.m * s.k
    warm = resident(3.0 * elements, _wide(f.l2_bytes), p["cache_share"])
    slow = 1.0 / (_wide(f.dram_bytes_per_s) * p["hbm_eff"])
    fast = 1.0 / (_wide(f.sms) * _wide(f.clock_hz) * p["l2_bytes_per_clk"])
    return p["quant_bytes"] * elements * ((1.0 - warm) * slow + warm * np.minimum(fast, slow))


def launch_s(s: Shape, b: Blocks, f: Facts, p: Mapping[str, Any]) -> Array:
    """Launch floor, and the fix-up of a split K; int8 matrix-vector kernels reduce K inside a block for free."""
    first: Any = p["launch_kcycles"]
    split = np.where(b.split > 1, p["split_us"] * 1e-6, 0.0)
    if s.dtype in GEMV_ROWS:
        tiny = s.m <= GEMV_ROWS[s.dtype]
        first = np.where(tiny, p["gemv_kcycles"], first)
        split = np.where(tiny, 0.0, split) if s.dtype == "int8" else split
    return np.asarray(first * 1e3 / _wide(f.clock_hz) + split)


def gemm_time_s(columns: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of ``out[m,n] = act[m,k] x weight[k,n]`` (times `batch`) for rows of one class ``dtype@protocol``.

    columns: batch, m, n, k. p: values of `PARAMETERS`. Raises InputError where the device has no such arithmetic.
    """
    s = shape(columns, kernel_class)
    b = asked(columns, candidates(s, _wide(f.sms)))
    compute, l2, dram = compute_s(s, b, f, p), l2_s(s, b, f, p), dram_s(s, f, p)
    on_chip = smooth_max(compute, np.maximum(chain_s(s, b, f, p), l2))
    body = smooth_max(on_chip, dram)
    fixed = launch_s(s, b, f, p)
    quantize = quantization_s(s, f, p)
    total = np.where(b.allowed, body + fixed, np.inf)
    chosen = np.argmin(total, axis=-1)[..., None]
    parts = {"compute": compute, "hbm": dram + quantize, "l2": l2, "launch": fixed}
    return KernelTime(pick(total + quantize, chosen), {k: pick(v, chosen) for k, v in parts.items()})


def library_tiles(columns: Columns, f: Facts, kernel_class: str) -> tuple[tuple[int, int, int], ...]:
    """(rows, columns, splits of K) of every kernel that the library offers for one GEMM."""
    b = candidates(shape(columns, kernel_class), _wide(f.sms))
    rows, cols, split, allowed = (
        np.ravel(np.broadcast_arrays(x, b.count)[0]) for x in (b.rows, b.cols, b.split, b.allowed)
    )
    found = {(int(r), int(c), int(s)) for r, c, s, ok in zip(rows, cols, split, allowed, strict=True) if ok}
    return tuple(sorted(found))


def _wide(value: Any) -> Any:
    """Device facts against rows x choices: scalars as they are, arrays with a trailing axis."""
    return value if np.ndim(value) == 0 else last_axis(value)


def kernel_class(columns: Columns) -> Array:
    """``dtype@protocol``: bf16, fp8, fp8_blk, bf16+int4 ... and the protocol by the backend's name."""
    act, weight = names(columns["dtype_act"]), names(columns["dtype_weight"])
    dtype = np.where(act == weight, act, np.char.add(np.char.add(act, "+"), weight))
    return np.char.add(np.char.add(dtype, "@"), protocol(columns["backend"]))


def site(columns: Columns) -> Array:
    """Weight shape (all m together); a batched product is its own site."""
    single = join(columns["n"], columns["k"])
    batched = join(columns["batch"], columns["m"], columns["n"], columns["k"])
    return np.where(np.asarray(columns["batch"]) == 1, single, batched)


def flop(columns: Columns) -> Array:
    """2 m n k batch."""
    return np.asarray(2.0 * columns["batch"] * columns["m"] * columns["n"] * columns["k"])


def traffic_bytes(columns: Columns) -> Array:
    """Activations, weights and output once."""
    batch, m, n, k = (np.asarray(columns[c], dtype=np.float64) for c in ("batch", "m", "n", "k"))
    act = _lookup(columns["dtype_act"])
    out = np.where(names(columns["dtype_act"]) == "fp32", 4.0, 2.0)
    return np.asarray(batch * (m * k * act + n * k * _lookup(columns["dtype_weight"]) + m * n * out))


def _lookup(dtype: Any) -> Array:
    unique, index = np.unique(names(dtype), return_inverse=True)
    return np.array([BYTES[str(u)] for u in unique])[index]


FALLBACKS = {
    "bf16": ("fp16",), "fp16": ("bf16",),
    "fp8": ("fp8_blk", "int8", "bf16", "fp16"), "fp8_blk": ("fp8", "int8", "bf16"),
    "int8": ("fp8", "bf16", "fp16"), "fp4": ("fp8", "fp8_blk", "bf16"), "fp32": ("fp16", "bf16"),
    **{f"{act}+{weight}": (f"bf16+{weight}", "bf16+int8", "bf16+int4", "bf16", "fp16")
       for act in ("bf16", "fp16", "fp8") for weight in ("int4", "int8", "fp8", "fp4")},
}  # fmt: skip

FAMILY = Family(
    name="gemm",
    signature=("m", "n", "k", "dtype_act", "dtype_weight"),
    columns=(
        Column("batch", default=1),
        Column("m"),
        Column("n"),
        Column("k"),
        Column("dtype_act", "name", known=ACTIVATIONS),
        Column("dtype_weight", "name", known=tuple(BYTES)),
        Column("backend", "name", default="engine"),
    ),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=site,
    time=gemm_time_s,
    flop=flop,
    traffic_bytes=traffic_bytes,
    compute_dtype=lambda columns: names(columns["dtype_act"]),
    fallbacks=FALLBACKS,
)
