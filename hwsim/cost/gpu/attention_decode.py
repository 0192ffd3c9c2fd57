"""Decode attention: one query token a sequence streams its KV cache through padded tiles, in splits that fill the GPU.

A block takes one KV head of one sequence (or one split of it). Its KV tiles are bound by padded matrix work, by the
bytes one SM can stream, or all blocks together by DRAM (L2 where a replayed cache is resident). Around the main
loop stand the KV append, the movement of queries and outputs, the combine kernel of split caches and, with
FlashAttention-2 under GQA, a layout copy that swaps query heads and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.attention import (
    BYTES,
    EXP_PER_CLK_SM,
    FLASH2,
    ByteCost,
    Heads,
    KernelDesign,
    append_s,
    byte_cost,
    choose_splits,
    design,
    head_columns,
    heads,
)
from hwsim.cost.gpu.attention_prefill import COMMON_COLUMNS, FALLBACKS, kernel_class, site
from hwsim.cost.gpu.common import Array, smooth_max
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Column, Columns, Family, KernelTime, Parameter, names
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator

EXPOSED_EXP: Final = 0.9  # part of the exponentials that no MMA hides, as fitted on long prefill

PARAMETERS: Final = (
    Parameter("launch_us", "start of one kernel of the call", "us", 3.8, 1.0, 12.0, shared=True),
    Parameter("tile_us", "fixed time of a block", "us", 1.5, 0.05, 8.0, shared=True),
    Parameter("mma_eff", "tensor rate on padded rows against the peak", "1", 0.6, 0.3, 1.0, shared=True),
    Parameter("wave_hardness", "1: whole waves, 0: no tail", "1", 0.7, 0.0, 1.0, "linear", shared=True),
    Parameter("hbm_eff", "reachable share of DRAM bandwidth", "1", 0.87, 0.6, 1.0, shared=True),
    Parameter("l2_bytes_per_clk", "L2 bytes per clock and SM", "B", 40.0, 24.0, 96.0, shared=True),
    Parameter("cache_share", "share of L2 that a replayed set keeps", "1", 0.7, 0.2, 2.0, shared=True),
    Parameter("stream", "KV rate of one block against an SM's fair share of DRAM", "1", 1.3, 0.5, 4.0, shared=True),
    Parameter("append_us", "latency of one token's KV append", "us", 8.0, 0.3, 25.0, shared=True),
    Parameter("merge_us", "combine kernel of split KV", "us", 2.5, 0.2, 10.0, shared=True),
    Parameter("row_bytes", "traffic factor of queries and outputs", "1", 1.3, 0.2, 6.0, shared=True),
    Parameter("swap_us", "layout copy of FlashAttention-2 under GQA", "us", 5.0, 0.5, 12.0, shared=True),
    Parameter("append_fp8", "append latency factor of an fp8 cache", "1", 1.0, 0.5, 8.0, classes=("fp8kv",)),
    Parameter("fp8_us", "quantization of Q at head dim 128", "us", 1.2, 0.1, 6.0, classes=("fp8kv",)),
    Parameter("fp8_tile", "slowdown of fp8 tiles at head dim 128", "1", 0.4, 0.02, 3.0, classes=("fp8kv",)),
)
# Ratios that both fitted GPUs share within 20 %, so that they are no parameters:
MERGE_STEP: Final = 0.04  # time of the combine kernel a split, against its start
MERGE_TRAFFIC: Final = 1.5  # its fp32 partials against the 16-bit rows: strided writes
GROUPED_START: Final = 0.3  # longer start of FlashAttention-2's grouped path, against its layout copies
WINDOW_TILES: Final = 3.5  # masked tiles that a window adds at its two ends
SEGMENT_US: Final = 1.8  # per sequence; Triton kernel of head dims above 256 on captured graphs, fitted once (46 rows)


@dataclass(frozen=True, slots=True)
class Work:
    """Arrays over rows: cached tokens read, KV tiles of a head, blocks without splits, splits."""

    tokens: Array
    width: Array
    tiles: Array
    blocks: Array
    splits: Array


def split_work(h: Heads, context: Array, kernel: KernelDesign, f: Facts, p: Mapping[str, Any]) -> Work:
    """Tiles and splits of a call. FlashAttention-2 splits GQA only, over two blocks an SM; a window caps the tokens."""
    windowed = (h.window > 0) & (context + 1.0 > h.window)
    tokens = np.where(windowed, h.window, context + 1.0)
    width = np.where(h.head_dim <= 128, 128.0, 64.0)
    tiles = np.ceil(tokens / width)
    blocks = h.batch * h.n_kv_heads * np.ceil(h.group / 128.0)
    if kernel is FLASH2:
        splits = choose_splits(blocks, tiles, 2.0 * np.asarray(f.sms), kernel.most_splits)
        splits = np.where(h.group > 1, splits, 1.0)
    else:
        splits = np.where(tiles > 4, choose_splits(blocks, tiles, f.sms, kernel.most_splits), 1.0)
    return Work(tokens, width, tiles + windowed * WINDOW_TILES, blocks, splits)


def decode_time(c: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of attention for one new token a sequence, KV append included. Arrays broadcast over rows."""
    kernel = design(f.generation)
    h = heads(c, kernel_class)
    context = np.asarray(c["context_len"], dtype=np.float64)
    work = split_work(h, context, kernel, f, p)
    kv_bytes = h.batch * h.n_kv_heads * work.tokens * h.row_bytes
    query_bytes = h.batch * h.n_heads * h.head_dim * 4.0
    cost = byte_cost(f, kv_bytes + query_bytes, kernel_class.endswith("@engine"), p)
    compute, longest = _main_loop(h, work, kernel, f, p)
    hbm = kv_bytes * cost.mixed_s
    body = smooth_max(smooth_max(compute, hbm), longest)
    rows = query_bytes * cost.mixed_s * p["row_bytes"]
    extra = rows + _combine_s(h, work, kernel, cost, p) + append_s(h.batch, h, f, 0.0 * hbm, p)
    if kernel is FLASH2:
        grouped = (h.group > 1) & (h.n_kv_heads > 1) & (h.batch > 1)
        extra = extra + np.where(grouped, p["swap_us"] * 1e-6 + 2.0 * rows, 0.0)
        extra = extra + np.where(h.group > 1, GROUPED_START * p["swap_us"] * 1e-6, 0.0)
    extra = extra + h.quantized * p["fp8_us"] * 1e-6 * h.head_dim / 128.0
    launch = kernel.launches * p["launch_us"] * 1e-6 + 0.0 * hbm
    parts = {"compute": compute, "hbm": hbm, "l2": kv_bytes * cost.l2_s, "launch": launch, "rows": extra}
    return KernelTime(launch + body + extra, parts)


def _main_loop(h: Heads, work: Work, kernel: KernelDesign, f: Facts, p: Mapping[str, Any]) -> tuple[Array, Array]:
    """Seconds of all blocks by padded matrix work, and of the block with most tiles by its own stream."""
    rows = np.where(h.group <= 64, 64.0, 128.0)  # GQA rows padded to the tensor tile
    per_sm = f.peak("bf16") / np.asarray(f.sms) * p["mma_eff"]
    exp = EXPOSED_EXP / (EXP_PER_CLK_SM * np.asarray(f.clock_hz))
    tile = rows * work.width * (4.0 * h.head_dim / per_sm + exp)
    tile = tile * (1.0 + float(h.fp8) * p["fp8_tile"] * np.maximum(h.head_dim - 64.0, 0.0) / 64.0)
    wave = work.blocks * work.splits / f.sms
    hard = p["wave_hardness"] * np.ceil(wave - 1e-9) + (1.0 - p["wave_hardness"]) * wave
    quantized = np.where(wave > 1.0, hard, wave)
    compute = quantized * (p["tile_us"] * 1e-6 + work.tiles / work.splits * tile)
    fair = np.asarray(f.dram_bytes_per_s) / f.sms * p["stream"] * kernel.stream_share
    stream = np.minimum(work.tokens, work.width) * h.row_bytes / fair
    longest = np.ceil(work.tiles / work.splits - 1e-9) * np.maximum(tile, stream)
    return np.asarray(compute), np.asarray(longest)


def _combine_s(h: Heads, work: Work, kernel: KernelDesign, cost: ByteCost, p: Mapping[str, Any]) -> Array:
    """Combine kernel: partial outputs in fp32 written and read, one dependent step a split.

    Where the serving engine captures graphs with splits allowed, it runs for every batch up to the captured size.
    """
    captured = h.batch <= kernel.combine_batch
    split = work.splits > 1
    moved = h.batch * h.n_heads * (work.splits * (h.head_dim + 1.0) * 8.0 + 2.0 * h.head_dim)
    time = np.where(split | captured, moved * cost.mixed_s * p["row_bytes"] * MERGE_TRAFFIC, 0.0)
    time = time + np.where(split, (p["merge_us"] + MERGE_STEP * p["merge_us"] * work.splits) * 1e-6, 0.0)
    segmented = captured & h.wide
    return np.asarray(time + np.where(segmented, h.batch * SEGMENT_US * 1e-6, 0.0))


def _read_tokens(c: Columns) -> Array:
    context, window = (np.asarray(c[k], dtype=np.float64) for k in ("context_len", "window"))
    return np.where(window > 0, np.minimum(context + 1.0, window), context + 1.0)


def flop(c: Columns) -> Array:
    """Exact FLOP of one query token a sequence against the tokens it sees, itself included."""
    return np.asarray(4.0 * c["batch"] * c["n_heads"] * c["head_dim"] * _read_tokens(c))


def traffic_bytes(c: Columns) -> Array:
    """Compulsory bytes: the visible cache read, one token appended, queries read and outputs written."""
    kv = np.vectorize(BYTES.__getitem__, otypes=[float])(names(c["kv_dtype"]))
    cache = 2.0 * c["n_kv_heads"] * (_read_tokens(c) * kv + 2.0)
    return np.asarray(c["batch"] * c["head_dim"] * (cache + 4.0 * np.asarray(c["n_heads"])))


def columns_of(operator: Operator, platform: Platform) -> dict[str, Any]:
    """CSV columns of an operator; its `context` counts the new token, the column does not."""
    context = np.maximum(np.asarray(operator.dims["context"], dtype=np.float64) - 1.0, 0.0)
    return {**head_columns(operator), "context_len": context}


FAMILY: Final = Family(
    name="attention_decode",
    signature=("context_len", "n_heads", "n_kv_heads", "head_dim"),
    columns=(Column("context_len", minimum=0), *COMMON_COLUMNS),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=site,
    time=decode_time,
    flop=flop,
    traffic_bytes=traffic_bytes,
    compute_dtype=lambda c: names(c.get("dtype", "bf16")),
    fallbacks=FALLBACKS,
)
