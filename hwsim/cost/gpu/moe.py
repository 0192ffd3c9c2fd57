"""Fused gated MoE on one rank: two grouped GEMMs over the experts that got tokens, activation passes, launches.

The routing decides how many experts are active and how tokens spread over them; each expert's tokens are padded to
the tile height; weights of active experts come from DRAM (L2 where a replayed set is resident). Expert parallelism
is charged at the rank with most tokens. Tile shapes are candidates: grouped CUTLASS kernels take the fastest, the
default configuration of SGLang's Triton kernel switches from 16 x 32 to 64 x 64 tiles where tokens exceed experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.common import Array, last_axis, resident, smooth_max
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Column, Columns, Family, KernelTime, Parameter, join, names
from hwsim.ir.platform import Device, Platform
from hwsim.ir.workload import Operator

BYTES: Final = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8_blk": 1.0, "int8": 1.0, "int4": 0.53125, "fp4": 0.5625}
"""Stored bytes of an element; int4 with a 16-bit scale a group of 64 or 128, fp4 with an 8-bit scale a block of 16."""
WIDE: Final = 128.0  # columns of weights a block streams, to which waves are normalized
QUANTILES: Final = 16  # experts are grouped into 16 quantiles of the load distribution
TRITON: Final = np.array([[16.0, 32.0], [64.0, 64.0]])
MARLIN: Final = np.array([[16.0, 64.0], [32.0, 64.0], [64.0, 64.0], [64.0, 128.0]])
CUTLASS: Final = np.array([[16.0, 128.0], [32.0, 128.0], [64.0, 128.0], [128.0, 128.0]])
# Kernels of one call: SGLang runs top-k, three to align tokens to blocks, buffer fills, two GEMMs, activation and sum;
# TensorRT-LLM top-k, expert maps, prefix sums, permute, two GEMMs (activation fused or between) and finalize.
LAUNCHES: Final = {"triton": 9.0, "cutlass": 7.0, "engine": 7.0}
# Mean of the largest of n standard normals, n = 1, 2, 4, 8, 16, 32 (order statistics; David and Nagaraja, table 2).
LARGEST_NORMAL: Final = ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (0.0, 0.56, 1.03, 1.42, 1.77, 2.07, 2.34))

PARAMETERS: Final = (
    Parameter("launch_us", "start of one kernel of the layer", "us", 3.8, 1.0, 12.0),
    Parameter("tile_us", "fixed time of a tile", "us", 0.8, 0.01, 8.0),
    Parameter("mma_eff", "tensor rate of a full tile against the peak", "1", 0.65, 0.1, 1.0),
    Parameter("wave_hardness", "1: whole waves, 0: no tail", "1", 0.8, 0.0, 1.0, "linear"),
    Parameter("l2_bytes_per_clk", "operand bytes an SM feeds per clock", "B", 35.0, 6.0, 128.0),
    Parameter("hbm_eff", "reachable share of DRAM bandwidth", "1", 0.85, 0.5, 1.0),
    Parameter("fill_waves", "waves of 128-wide tiles that saturate DRAM", "1", 0.4, 0.02, 4.0),
    Parameter("overlap", "sharpness of the maximum of compute and weight streaming", "1", 2.5, 1.0, 8.0),
    Parameter("cache_share", "share of L2 that a replayed set keeps", "1", 0.7, 0.2, 2.0, shared=True),
    Parameter("activation", "traffic factor of permute, activation and finalize passes", "1", 1.0, 0.2, 5.0),
    Parameter("expert_us", "per-expert work of the block-scaled path", "us", 0.2, 0.005, 1.0, classes=("fp8_blk",)),
    Parameter("dequant", "dequantization time against the MMA of a 128-wide tile", "1", 0.4, 0.02, 5.0,
              classes=("bf16+int4", "fp16+int4")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """Arrays (rows,) of one call; `inter` is the width of an expert on this rank. Bytes are of one element."""

    tokens: Array
    hidden: Array
    inter: Array
    topk: Array
    experts: Array
    ranks: Array
    matrices: Array
    act_bytes: float
    weight_bytes: float

    @property
    def local(self) -> Array:
        """Experts on this rank."""
        return self.experts / self.ranks


@dataclass(frozen=True, slots=True)
class Load:
    """Routing outcome of this rank: tokens of an expert by quantile (rows, quantiles), share of them that is active,
    experts a quantile stands for (rows,), active experts and token-expert pairs (rows,)."""

    tokens: Array
    share: Array
    weight: Array
    active: Array
    pairs: Array


def layer(c: Columns, kernel_class: str) -> Layer:
    """Read the columns; `kernel_class` is ``<act>[+<weight>]@<protocol>``."""
    act, _, weight = kernel_class.split("@")[0].partition("+")
    v = {k: np.asarray(c[k], dtype=np.float64) for k in ("num_tokens", "hidden", "inter", "topk", "num_experts")}
    tp, ep = (np.asarray(c.get(k, 1.0), dtype=np.float64) for k in ("moe_tp", "moe_ep"))
    matrices = np.asarray(c.get("matrices", 3.0), dtype=np.float64)
    shape = (v["num_tokens"], v["hidden"], v["inter"] / tp, v["topk"], v["num_experts"], ep, matrices)
    return Layer(*shape, BYTES[act], BYTES[weight or act])


def skewed_tokens(x: Layer, alpha: Array) -> Array:
    """Tokens of each expert by ascending quantile (rows, quantiles) under the benchmark's power-law routing.

    Loads are drawn with density x^-alpha between 1 and 0.8 T, scaled to T topk pairs, rounded; what rounding lost or
    gained goes one token each to the most loaded experts (aiconfigurator's generator, as its documentation says).
    """
    u = (np.arange(QUANTILES) + 0.5) / QUANTILES
    power = last_axis(1.0 - alpha)
    top = np.maximum(0.8 * x.tokens, 1.0001)
    draw = (1.0 + (last_axis(top) ** power - 1.0) * u) ** (1.0 / power)
    pairs, group = x.tokens * x.topk, x.experts / QUANTILES
    scaled = draw * last_axis(pairs / (draw.sum(-1) * group))
    tokens = np.minimum(np.round(scaled), last_axis(x.tokens))
    rest = pairs - tokens.sum(-1) * group
    order = np.arange(QUANTILES)[::-1]
    share = np.clip(last_axis(np.abs(rest) / group) - order, 0.0, 1.0)
    tokens = np.maximum(tokens + last_axis(np.sign(rest)) * share, 0.0)
    return np.asarray(tokens * last_axis(pairs / np.maximum(tokens.sum(-1) * group, 1e-9)))


def routing(c: Columns, x: Layer) -> Load:
    """Tokens an expert of the most loaded rank gets: balanced, power_law_<alpha> or random (uniform choice)."""
    kind = names(c.get("distribution", "balanced"))
    mean = x.tokens * x.topk / x.experts
    touched = np.where(kind == "random", 1.0 - (1.0 - np.minimum(x.topk / x.experts, 1.0)) ** x.tokens, 1.0)
    even = mean / touched
    weight = x.local / QUANTILES
    skew = np.char.startswith(kind, "power_law")
    tokens = last_axis(even) + np.zeros(QUANTILES)
    if bool(np.any(skew)):
        kinds, which = np.unique(kind, return_inverse=True)
        alpha = np.array([_alpha(str(k)) for k in kinds])[which]
        drawn = skewed_tokens(x, alpha)
        spread = drawn.std(-1) / np.maximum(drawn.mean(-1), 1e-9)
        largest = np.interp(np.log2(np.maximum(x.ranks, 1.0)), *LARGEST_NORMAL)
        heavy = 1.0 + spread * largest / np.sqrt(x.local) * np.sqrt(1.0 - 1.0 / x.ranks)
        tokens = np.where(last_axis(skew), drawn * last_axis(heavy), tokens)
    share = np.minimum(tokens, 1.0) * last_axis(touched)
    active = np.maximum(share.sum(-1) * weight, np.minimum(x.tokens * x.topk / x.ranks, 1.0))
    return Load(tokens, share, weight, active, (tokens * last_axis(touched)).sum(-1) * weight)


def _alpha(kind: str) -> float:
    """Exponent in ``power_law_1.2``; any value for other distributions (unused). 1 itself would divide by zero."""
    text = kind.removeprefix("power_law_")
    value = float(text) if kind.startswith("power_law_") else 1.2
    return value if abs(value - 1.0) > 1e-3 else 1.001


def row_tiles(load: Load, height: Array) -> Array:
    """Tiles of all active experts for each candidate height: (rows, candidates). Each expert pads to whole tiles."""
    per_expert = np.ceil(load.tokens[..., None, :] / height[:, None] - 1e-6) * load.share[..., None, :]
    return np.asarray(np.maximum(per_expert.sum(-1) * last_axis(load.weight), last_axis(load.active)))


def moe_time(c: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of a fused gated MoE layer on one rank. Arrays broadcast over rows; tiles are the trailing axis."""
    dtype, protocol = kernel_class.split("@")
    x = layer(c, kernel_class)
    load = routing(c, x)
    tiles = TRITON if protocol == "triton" else CUTLASS
    tiles = MARLIN if dtype.endswith("+int4") else tiles
    rows = row_tiles(load, tiles[:, 0])
    weights = x.matrices * x.hidden * x.inter * x.weight_bytes * load.active
    cached = np.zeros_like(weights) if protocol == "engine" else resident(weights, f.l2_bytes, p["cache_share"])
    groups = _Groups(x, load, tiles, rows, cached)
    first = _grouped(groups, ((x.matrices - 1.0) * x.inter, x.hidden), f, dtype, p)
    second = _grouped(groups, (x.hidden, x.inter), f, dtype, p)
    both = [a + b for a, b in zip(first, second, strict=True)]
    default = protocol == "triton" and tiles is TRITON
    pick = (x.tokens > x.experts).astype(int) if default else np.argmin(both[0], -1)
    gemm, compute, hbm = (np.take_along_axis(v, pick[..., None], -1)[..., 0] for v in both)
    passes = _passes_s(x, load, f, p)
    launch = (
        LAUNCHES[protocol] * p["launch_us"] * 1e-6
        + (p["expert_us"] * 1e-6 * x.local if dtype == "fp8_blk" else 0.0)
        + 0.0 * gemm
    )
    parts = {"compute": compute, "hbm": hbm, "l2": passes, "launch": launch}
    return KernelTime(launch + gemm + passes, parts)


@dataclass(frozen=True, slots=True)
class _Groups:
    """A layer's rows over its experts, cut into the row tiles of each candidate; `cached`: share of weights in L2."""

    layer: Layer
    load: Load
    tiles: Array
    rows: Array
    cached: Array


def _grouped(
    groups: _Groups, shape: tuple[Array, Array], f: Facts, dtype: str, p: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """Time, compute and DRAM seconds (rows, candidates) of one grouped GEMM with weights `shape` = (n, k)."""
    x, load, tiles, rows = groups.layer, groups.load, groups.tiles, groups.rows
    cached = last_axis(groups.cached)
    n, k = (last_axis(v) for v in shape)
    height, width = tiles[:, 0], tiles[:, 1]
    sms, clock = np.asarray(f.sms), np.asarray(f.clock_hz)
    compute_dtype = dtype.split("+")[0]
    l2 = sms * clock * p["l2_bytes_per_clk"]
    mma = 2.0 * height * width * sms / (f.peak(compute_dtype) * p["mma_eff"])
    unpack = 1.0 + p["dequant"] * width / 128.0 if "+" in dtype else 1.0
    columns = np.ceil(n / width)
    wave = rows * columns / sms
    hard = p["wave_hardness"] * np.ceil(wave - 1e-9) + (1.0 - p["wave_hardness"]) * wave
    feed = k * (last_axis(load.pairs) * columns * x.act_bytes + rows * columns * width * x.weight_bytes) / l2
    compute = np.where(wave > 1.0, hard, 1.0) * (p["tile_us"] * 1e-6 + k * mma * unpack) + feed
    rate = f.dram_bytes_per_s * p["hbm_eff"] * np.minimum(1.0, wave * width / WIDE / p["fill_waves"])
    bytes_moved = last_axis(load.active) * n * k * x.weight_bytes
    hbm = bytes_moved * ((1.0 - cached) / rate + cached / l2)
    return smooth_max(compute, hbm, p["overlap"]), np.asarray(compute), np.asarray(hbm)


def _passes_s(x: Layer, load: Load, f: Facts, p: Mapping[str, Any]) -> Array:
    """Permute, gated activation and finalize: each token-expert pair crosses memory between the GEMMs."""
    pair = x.hidden * (2.0 * x.act_bytes + 4.0) + x.inter * (6.0 + x.act_bytes)
    moved = x.tokens * x.hidden * (x.act_bytes + 2.0) + load.pairs * pair
    share = resident(moved, f.l2_bytes, p["cache_share"])
    dram = f.dram_bytes_per_s * p["hbm_eff"]
    l2 = np.asarray(f.sms) * f.clock_hz * p["l2_bytes_per_clk"]
    return np.asarray(p["activation"] * moved * ((1.0 - share) / dram + share / l2))


def _ranks(c: Columns) -> Array:
    return np.asarray(c.get("moe_tp", 1.0), dtype=np.float64) * np.asarray(c.get("moe_ep", 1.0), dtype=np.float64)


def flop(c: Columns) -> Array:
    """Operations of the three matrices on an average rank: 2 x 3 hidden inter for each token-expert pair."""
    return np.asarray(6.0 * c["num_tokens"] * c["topk"] * c["hidden"] * c["inter"] / _ranks(c))


def traffic_bytes(c: Columns) -> Array:
    """Compulsory bytes: weights of min(experts, pairs) active experts once, tokens in and out."""
    weight = np.vectorize(BYTES.__getitem__, otypes=[float])(names(c["dtype_weight"]))
    ep = np.asarray(c.get("moe_ep", 1.0), dtype=np.float64)
    active = np.minimum(np.asarray(c["num_experts"]), np.asarray(c["num_tokens"]) * c["topk"]) / ep
    return np.asarray(
        3.0 * active * c["hidden"] * c["inter"] / (_ranks(c) / ep) * weight + 4.0 * c["num_tokens"] * c["hidden"]
    )


def kernel_class(c: Columns) -> Array:
    """``bf16@triton``, ``bf16+int4@triton``, ``fp8_blk@cutlass``, ``fp8@engine``: formats and kernel source."""
    act, weight = names(c["dtype_act"]), names(c["dtype_weight"])
    dtype = np.where(act == weight, act, np.char.add(np.char.add(act, "+"), weight))
    backend = names(c.get("backend", "engine"))
    source = np.where(backend == "engine", "engine", np.where(backend == "sglang", "triton", "cutlass"))
    return np.char.add(np.char.add(dtype, "@"), source)


def columns_of(operator: Operator, platform: Platform) -> dict[str, Any]:
    """CSV columns of an operator in a serving engine; tokens choose experts at random, as its active experts assume."""
    dims = operator.dims
    act, weight = _formats(operator, platform.device)
    columns = {k: dims[k] for k in ("hidden", "inter", "topk")}
    columns |= {"moe_tp": dims.get("moe_tp", 1), "moe_ep": dims.get("moe_ep", 1), "matrices": dims.get("matrices", 3)}
    names_ = {"dtype_act": act, "dtype_weight": weight, "distribution": "random", "backend": "engine"}
    return {**columns, **names_, "num_tokens": dims["tokens"], "num_experts": dims["experts"]}


def _formats(operator: Operator, device: Device) -> tuple[str, str]:
    """Kernel formats (activation, weight): 16-bit activations beside narrow weights, and devices without the narrow
    arithmetic, take weight-only kernels; others have one format."""
    fmt = operator.weight_format
    if fmt is None or fmt.element_bits > 8:
        return "bf16", "bf16"
    wide = fmt.weight_only or operator.dtype in ("bf16", "fp16") or device.peak(fmt.compute) is None
    if wide or fmt.compute not in ("fp8", "fp4", "int8"):
        return "bf16", "int8" if fmt.element_bits > 4 else "int4"
    name = "fp8_blk" if fmt.compute == "fp8" and fmt.group > 32 else fmt.compute
    return name, name


FAMILY: Final = Family(
    name="moe",
    signature=("num_tokens", "hidden", "inter", "topk", "num_experts"),
    columns=(
        Column("num_tokens"),
        Column("hidden"),
        Column("inter"),
        Column("topk"),
        Column("num_experts"),
        Column("moe_tp", default=1),
        Column("moe_ep", default=1),
        Column("dtype_act", "name", known=tuple(BYTES), default="bf16"),
        Column("dtype_weight", "name", known=tuple(BYTES), default="bf16"),
        Column(
            "distribution", "name", known=("balanced", "random", "power_law_1.2", "power_law_1.01"), default="balanced"
        ),
        Column("backend", "name", default="engine"),
    ),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=lambda c: join(c["hidden"], c["inter"], c["topk"], c["num_experts"]),
    time=moe_time,
    flop=flop,
    traffic_bytes=traffic_bytes,
    compute_dtype=lambda c: names(c["dtype_act"]),
    fallbacks={
        "fp4": ("fp8", "fp8_blk", "bf16"),
        "fp8_blk": ("fp8", "bf16"),
        "fp8": ("fp8_blk", "bf16"),
        "fp16": ("bf16",),
        "bf16+int4": ("bf16",),
        "bf16+int8": ("bf16+int4", "bf16"),
        "fp16+int4": ("bf16+int4", "bf16"),
        "int8": ("fp8", "bf16"),
        "bf16": ("fp8", "fp8_blk"),
    },
)
