"""Prefill attention: causal query tiles over sequence x heads, tensor and exponential throughput, append kernel.

A tile holds 128 query rows. Its time is a fixed part (pipeline fill, first loads, last stores) plus, for each KV
column it visits, 4 x 128 x d FLOP at the tensor rate and 128 exponentials on the special-function units, which
warps hide only in part. Tiles share SMs in waves; the longest tile bounds the call from below; a grid with few tiles
splits its KV. Loads of Q and stores of O do not overlap with their own tile's main loop and add in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.attention import (
    BYTES,
    EXP_PER_CLK_SM,
    Heads,
    KernelDesign,
    append_s,
    byte_cost,
    choose_splits,
    design,
    head_columns,
    heads,
)
from hwsim.cost.gpu.common import Array, smooth_max
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Column, Columns, Family, KernelTime, Parameter, join, names, protocol
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator

ROWS: Final = 128.0  # query rows of a tile
COLUMNS: Final = {"flash2": 64.0, "flash3": 128.0, "blackwell": 128.0}  # KV columns of a main-loop step
NO_WINDOW: Final = 1e12

PARAMETERS: Final = (
    Parameter("launch_us", "start of one kernel of the call", "us", 3.8, 1.0, 12.0, shared=True),
    Parameter("tile_us", "fixed time of a query tile", "us", 1.5, 0.05, 8.0, shared=True),
    Parameter("mma_eff", "tensor rate against the generation's issue share", "1", 1.0, 0.6, 1.15, shared=True),
    Parameter("exp_share", "part of the exponentials that no MMA hides", "1", 0.86, 0.4, 1.3, shared=True),
    Parameter("wave_hardness", "1: whole waves, 0: no tail", "1", 0.5, 0.0, 1.0, "linear", shared=True),
    Parameter("hbm_eff", "reachable share of DRAM bandwidth", "1", 0.8, 0.5, 1.0, shared=True),
    Parameter("l2_bytes_per_clk", "L2 bytes per clock and SM", "B", 45.0, 24.0, 96.0, shared=True),
    Parameter("cache_share", "share of L2 that a replayed set keeps", "1", 0.8, 0.2, 2.0, shared=True),
    Parameter("exposed", "part of Q and O traffic that the main loop does not hide", "1", 0.6, 0.1, 1.0, shared=True),
    Parameter("append_us", "latency of one token's KV append", "us", 3.0, 0.3, 12.0, shared=True),
    Parameter("merge_us", "combine kernel of split KV", "us", 3.0, 0.3, 10.0, shared=True),
    Parameter("wide_cost", "time factor of head dims above 256 (another kernel)", "1", 2.2, 1.0, 5.0, shared=True),
    Parameter("append_fp8", "append latency factor of an fp8 cache", "1", 1.7, 0.5, 8.0, classes=("fp8kv",)),
    Parameter("fp8_tile_us", "latency of the in-kernel transposition of V", "us", 1.5, 0.05, 8.0, classes=("fp8kv",)),
    Parameter("fp8_wide", "main-loop slowdown of fp8 at head dim 256", "1", 0.6, 0.02, 2.0, classes=("fp8kv",)),
)


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of a call, arrays over rows: of a head, KV columns of all of them and of the longest, heads, splits."""

    tiles: Array
    kv_sum: Array
    kv_longest: Array
    heads: Array
    splits: Array

    def blocks(self, h: Heads) -> Array:
        return h.batch * self.heads * self.tiles


def query_grid(h: Heads, seq: Array, prefix: Array, kernel: KernelDesign, slots: Any) -> Grid:
    """Count tiles and the KV columns each visits under the causal mask, the window and the step width."""
    step = COLUMNS[kernel.name]
    packed = h.group if kernel.packs_heads else np.ones_like(h.group)
    positions = ROWS / packed  # sequence positions one tile covers
    tiles = np.ceil(seq * packed / ROWS)
    window = np.where(h.window > 0, h.window, NO_WINDOW)
    kv_sum = np.maximum(_kv_sum(seq, prefix, positions, tiles, window, step), tiles * step)
    longest = np.maximum(np.minimum(seq + prefix, window + positions), step)
    n_heads = h.n_heads / packed
    if kernel.prefill_splits:
        kv_tiles = np.ceil(longest / step)
        splits = choose_splits(h.batch * n_heads * tiles, kv_tiles, slots, 128)
        splits = np.where(kv_tiles <= 4, 1.0, splits)
    else:
        splits = np.ones_like(tiles)
    return Grid(tiles, kv_sum, longest, n_heads, splits)


def _kv_sum(seq: Array, prefix: Array, positions: Array, tiles: Array, window: Array, step: float) -> Array:
    """Sum over a head's tiles of min(end of tile + prefix, window + tile), rounded up by half a step on average."""
    reach = window + positions - prefix
    full = np.clip(np.floor(reach / positions), 0.0, tiles)
    overshoot = np.where(full == tiles, np.maximum(tiles * positions - seq, 0.0), 0.0)
    causal = positions * full * (full + 1.0) / 2.0 - overshoot + full * prefix
    rounding = tiles * np.maximum(step - positions, 0.0) / 2.0
    windowed = np.where(tiles > full, (tiles - full) * (window + positions), 0.0)
    return np.asarray(causal + windowed + rounding)


def prefill_time(c: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of causal attention over new tokens, KV append included. Arrays broadcast over rows."""
    kernel = design(f.generation)
    h = heads(c, kernel_class)
    seq = np.asarray(c["seq_len"], dtype=np.float64)
    prefix = np.asarray(c.get("prefix", 0.0), dtype=np.float64) + 0.0 * seq
    grid = query_grid(h, seq, prefix, kernel, f.sms)
    column_s, tile_s = _column_s(h, f, kernel, p), p["tile_us"] * 1e-6
    tokens = h.batch * seq
    query_bytes = tokens * h.n_heads * h.head_dim * 4.0  # Q read, O written, 16 bit
    kv_bytes = h.batch * (seq + prefix) * h.n_kv_heads * h.row_bytes
    cost = byte_cost(f, query_bytes + kv_bytes * 2.0, kernel_class.endswith("@engine"), p)
    blocks = grid.blocks(h) * grid.splits
    wave = blocks / f.sms
    quantized = p["wave_hardness"] * np.ceil(wave - 1e-9) + (1.0 - p["wave_hardness"]) * wave
    compute = quantized * (tile_s + grid.kv_sum / grid.tiles / grid.splits * column_s)
    transpose = h.quantized * (seq * h.group > 64) * p["fp8_tile_us"] * 1e-6
    longest = tile_s + transpose + grid.kv_longest / grid.splits * column_s
    l2 = h.batch * grid.heads * grid.kv_sum * h.row_bytes * cost.l2_s
    hbm = query_bytes * cost.mixed_s + kv_bytes * (1.0 - cost.resident) * cost.dram_s
    body = smooth_max(smooth_max(compute, l2) + p["exposed"] * hbm, longest)
    body = smooth_max(body, hbm, 8.0)
    extra = append_s(tokens, h, f, cost.mixed_s, p) + _quantize_s(h, tokens, cost.mixed_s)
    split = grid.splits > 1
    partial = tokens * h.n_heads * grid.splits * (h.head_dim + 1.0) * 8.0
    extra = extra + np.where(split, partial * cost.l2_s + p["merge_us"] * 1e-6, 0.0)
    launch = kernel.launches * p["launch_us"] * 1e-6 + 0.0 * seq
    parts = {"compute": compute, "hbm": hbm, "l2": l2, "launch": launch, "append": extra}
    return KernelTime(launch + body + extra, parts)


def _column_s(h: Heads, f: Facts, kernel: KernelDesign, p: Mapping[str, Any]) -> Array:
    """Seconds of one KV column of a 128-row tile on one SM: MMA at the tensor rate plus exposed exponentials."""
    mma = 4.0 * ROWS * h.head_dim * np.asarray(f.sms) / (f.peak("bf16") * kernel.mma_share * p["mma_eff"])
    exp = ROWS / (EXP_PER_CLK_SM * np.asarray(f.clock_hz)) * p["exp_share"]
    slow = 1.0 + float(h.fp8) * p["fp8_wide"] * np.maximum(h.head_dim - 128.0, 0.0) / 128.0
    slow = slow * np.where(h.wide, p["wide_cost"], 1.0)
    return np.asarray((mma + exp) * slow)


def _quantize_s(h: Heads, tokens: Array, byte_s: Array) -> Array:
    """Quantization of Q before fp8 attention: 2 bytes read, 1 written an element."""
    return np.asarray(h.quantized * 3.0 * tokens * h.n_heads * h.head_dim * byte_s)


def causal_pairs(seq: Any, prefix: Any, window: Any) -> Array:
    """Exact query-key pairs of `seq` new tokens after `prefix`: sum of min(prefix + i, window); window 0 is none."""
    seq, prefix, window = (np.asarray(v, dtype=np.float64) for v in (seq, prefix, window))
    width = np.where(window > 0, window, NO_WINDOW)
    growing = np.clip(width - prefix, 0.0, seq)  # queries that still see everything before them
    pairs = growing * prefix + growing * (growing + 1.0) / 2.0
    return np.asarray(pairs + np.where(seq > growing, (seq - growing) * width, 0.0))


def flop(c: Columns) -> Array:
    """Exact FLOP of QK^T and PV under the causal mask."""
    pairs = causal_pairs(c["seq_len"], c.get("prefix", 0.0), c.get("window", 0.0))
    return np.asarray(4.0 * pairs * c["batch"] * c["n_heads"] * c["head_dim"])


def traffic_bytes(c: Columns) -> Array:
    """Compulsory bytes: Q, K, V read and O, K, V written once, prefix K and V read."""
    seq, prefix = np.asarray(c["seq_len"], dtype=np.float64), np.asarray(c.get("prefix", 0.0), dtype=np.float64)
    kv = np.vectorize(BYTES.__getitem__, otypes=[float])(names(c["kv_dtype"]))
    query = 4.0 * seq * c["n_heads"] * c["head_dim"]
    return np.asarray(c["batch"] * (query + 2.0 * (seq * (2.0 + kv) + prefix * kv) * c["n_kv_heads"] * c["head_dim"]))


def kernel_class(c: Columns) -> Array:
    """``bf16kv@graph``, ``fp8kv@engine``: cache format and protocol."""
    kv = names(c["kv_dtype"])
    cache = np.where((kv == "fp8") | (kv == "int8"), "fp8kv@", "bf16kv@")
    engine = protocol(c.get("backend", "engine")) == "engine"
    return np.char.add(cache, np.where(engine, "engine", "graph"))


def site(c: Columns) -> Array:
    """Head configuration: no cross-validation fold splits one."""
    return join(c["n_heads"], c["n_kv_heads"], c["head_dim"])


def columns_of(operator: Operator, platform: Platform) -> dict[str, Any]:
    """CSV columns of an operator. Bidirectional calls become causal with (s - 1) / 2 more prefix: equal pairs."""
    dims = operator.dims
    prefix = np.asarray(dims.get("prefix", 0), dtype=np.float64)
    both_ways = 1.0 - np.asarray(dims.get("causal", 1), dtype=np.float64)
    more = {"seq_len": dims["q_len"], "prefix": prefix + both_ways * (np.asarray(dims["q_len"]) - 1.0) / 2.0}
    return {**head_columns(operator), **more}


COMMON_COLUMNS: Final = (
    Column("batch"),
    Column("n_heads"),
    Column("n_kv_heads"),
    Column("head_dim"),
    Column("window", minimum=0, default=0),
    Column("dtype", "name", known=("bf16", "fp16"), default="bf16"),
    Column("kv_dtype", "name", known=("bf16", "fp16", "fp8", "int8"), default="bf16"),
    Column("backend", "name", default="engine"),
)
FALLBACKS: Final = {"fp8kv": ("bf16kv",), "bf16kv": ("fp8kv",)}
FAMILY: Final = Family(
    name="attention_prefill",
    signature=("seq_len", "n_heads", "n_kv_heads", "head_dim"),
    columns=(Column("seq_len"), Column("prefix", minimum=0, default=0), *COMMON_COLUMNS),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=site,
    time=prefill_time,
    flop=flop,
    traffic_bytes=traffic_bytes,
    compute_dtype=lambda c: names(c.get("dtype", "bf16")),
    fallbacks=FALLBACKS,
)
