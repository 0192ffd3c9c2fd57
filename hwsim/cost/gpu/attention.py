"""What prefill and decode attention share: kernel structure by generation, split choice, KV append, byte costs.

Structure (which rows share a tile, when the KV is split, how many kernels a call launches) is read from the open
sources of the kernels that serving engines run and is not fitted:

- FlashAttention-2 (Dao, 2023): one query head a tile, except that single-token GQA decode swaps heads for rows; only
  that path splits the KV; 2 kernels a call (KV append, attention).
- FlashAttention-3 (Shah et al., 2024): packs the query heads of one KV head into a tile, splits short grids,
  2 thread blocks' worth of asynchronous MMA; 3 kernels a call (append, tile scheduler, attention).
- Blackwell data-centre kernels (FlashInfer with TensorRT-LLM generated kernels): packed heads, splits, 2 kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.common import Array, last_axis, resident
from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Columns
from hwsim.ir.workload import Operator

THREADS_PER_SM: Final = (
    2048.0  # resident threads, every data-centre generation since Volta (CUDA C guide, table of compute capabilities)
)
APPEND_THREADS: Final = 512.0  # largest block of the KV-append kernel: one block a token (vLLM cache_kernels.cu)
EXP_PER_CLK_SM: Final = 16.0  # special-function results per clock and SM (CUDA C guide, arithmetic throughput table)
SPLIT_EFFICIENCY: Final = 0.85  # FlashAttention takes the fewest splits within 85 % of the best SM occupancy
BYTES: Final = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625}
# Candidates of the split search: dense where the choice matters, sparse above.
_SPLITS: Final = np.array([*range(1, 17), 18, 20, 22, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 112, 128], dtype=float)


@dataclass(frozen=True, slots=True)
class KernelDesign:
    """Structure of one generation's kernels.

    Attributes
    ----------
    packs_heads: query heads of one KV head share a tile's rows.
    launches: kernels of one call. prefill_splits: short prefill grids split their KV too.
    mma_share: part of the tensor peak that the main loop issues at best. FlashAttention-2 measures 0.7 of peak on A100
        with its exponentials hidden; asynchronous warpgroup MMA issues at peak (FlashAttention-3, section 3).
    stream_share: KV bytes one block streams against a fair share of DRAM bandwidth (bulk copies keep more in flight).
    most_splits: cap of the split search. combine_batch: largest batch whose captured graph always holds a
        combine kernel (0: only where the KV is split).
    """

    name: str
    packs_heads: bool
    launches: int
    prefill_splits: bool
    mma_share: float
    stream_share: float
    most_splits: int
    combine_batch: int


FLASH2: Final = KernelDesign("flash2", False, 2, False, 0.66, 1.0, 128, 0)
FLASH3: Final = KernelDesign("flash3", True, 3, True, 1.0, 2.0, 32, 512)
BLACKWELL: Final = KernelDesign("blackwell", True, 2, True, 1.0, 2.0, 32, 0)
_DESIGNS: Final = {"hopper": FLASH3, "blackwell": BLACKWELL}


def design(generation: str) -> KernelDesign:
    """Kernels of a generation name; all before Hopper run FlashAttention-2 or its ports."""
    return _DESIGNS.get(generation, FLASH2)


@dataclass(frozen=True, slots=True)
class Heads:
    """Arrays (rows,) of one call: sequences, query and KV heads, head dimension, cached elements of a KV head."""

    batch: Array
    n_heads: Array
    n_kv_heads: Array
    head_dim: Array
    window: Array
    row_elements: Array
    kv_bytes: float
    fp8: bool

    @property
    def group(self) -> Array:
        return self.n_heads / self.n_kv_heads

    @property
    def quantized(self) -> Array:
        """1 where a separate kernel quantizes Q for fp8 arithmetic (head dims above 64 in vLLM), else 0."""
        return np.where(self.head_dim > 64, float(self.fp8), 0.0)

    @property
    def wide(self) -> Array:
        """True where heads above 256 take a fallback kernel; latents shared by keys and values (MLA) have their own."""
        return np.asarray((self.head_dim > 256) & (self.row_elements >= 2.0 * self.head_dim))

    @property
    def row_bytes(self) -> Array:
        """Cached K and V bytes of one token and KV head."""
        return self.row_elements * self.kv_bytes


def heads(columns: Columns, kernel_class: str) -> Heads:
    """Read the columns both families have. `kernel_class` is ``<kv dtype>kv@<protocol>``."""
    fp8 = kernel_class.startswith("fp8kv")
    value = {k: np.asarray(columns[k], dtype=np.float64) for k in ("batch", "n_heads", "n_kv_heads", "head_dim")}
    window = np.asarray(columns.get("window", 0.0), dtype=np.float64)
    row = np.asarray(columns.get("kv_row_elements", 2.0 * value["head_dim"]), dtype=np.float64)
    return Heads(**value, window=window, row_elements=row, kv_bytes=1.0 if fp8 else 2.0, fp8=fp8)


def choose_splits(blocks: Array, tiles: Array, slots: Any, most: int) -> Array:
    """KV splits of a grid: the fewest within 85 % of the best wave efficiency (FlashAttention's own rule).

    blocks: thread blocks without splits; tiles: KV tiles of one block; slots: blocks that run at once. A grid that
    fills 80 % of the slots is not split.
    """
    splits = _SPLITS[: np.searchsorted(_SPLITS, most, side="right")]
    wave = last_axis(blocks) * splits / last_axis(slots)
    allowed = (splits <= last_axis(tiles)) & (splits <= last_axis(slots))
    efficiency = np.where(allowed | (splits == 1), wave / np.ceil(wave), 0.0)
    good = efficiency >= SPLIT_EFFICIENCY * efficiency.max(axis=-1, keepdims=True)
    return np.where(blocks >= 0.8 * np.asarray(slots), 1.0, splits[np.argmax(good, axis=-1)])


@dataclass(frozen=True, slots=True)
class ByteCost:
    """Seconds a byte from DRAM, from L2, and as the mix of a replayed working set."""

    dram_s: Array
    l2_s: Array
    resident: Array

    @property
    def mixed_s(self) -> Array:
        return (1.0 - self.resident) * self.dram_s + self.resident * self.l2_s


def byte_cost(f: Facts, working_set: Array, cold: bool, p: Mapping[str, Any]) -> ByteCost:
    """Cost of a byte of a working set that the benchmark replays (`cold`: an engine, where it never stays in L2)."""
    dram = 1.0 / (np.asarray(f.dram_bytes_per_s) * p["hbm_eff"])
    l2 = 1.0 / (np.asarray(f.sms) * f.clock_hz * p["l2_bytes_per_clk"])
    share = np.zeros_like(working_set) if cold else resident(working_set, f.l2_bytes, p["cache_share"])
    return ByteCost(dram, l2, share)


def append_s(tokens: Array, h: Heads, f: Facts, byte_s: Array, p: Mapping[str, Any]) -> Array:
    """KV-append kernel: one thread block a token, so latency x tokens over resident threads, or its bytes.

    Each block has min(512, n_kv_heads head_dim) threads (vLLM); both bounds add as the 4-norm.
    """
    width = h.n_kv_heads * h.head_dim
    threads = np.clip(width, 32.0, APPEND_THREADS)
    latency = p["append_us"] * 1e-6 * np.where(h.fp8, p["append_fp8"], 1.0)
    issue = tokens * threads / (THREADS_PER_SM * f.sms) * latency
    moved = 2.0 * tokens * width * (2.0 + h.kv_bytes) * byte_s
    return np.asarray((issue**4 + moved**4) ** 0.25)


def head_columns(operator: Operator) -> dict[str, Any]:
    """CSV columns that both families take, from an operator inside a serving engine.

    Kernels with different key and value widths (MLA) count as their mean width: 2 (d + d_v) FLOP a pair. Cached
    elements of a token and KV head come from the cache tensor where there is one, so that a latent is not read twice.
    """
    dims = operator.dims
    caches = [t for t in (*operator.inputs, *operator.outputs) if t.role == "kv_cache"]
    narrow = bool(caches) and caches[0].format.element_bits <= 8
    width = (np.asarray(dims["head_dim"]) + np.asarray(dims.get("v_head_dim", dims["head_dim"]))) / 2.0
    columns: dict[str, Any] = {"head_dim": width, "window": dims.get("window", 0), "backend": "engine"}
    columns |= {k: dims[k] for k in ("batch", "n_heads", "n_kv_heads")}
    if caches:
        columns["kv_row_elements"] = np.asarray(caches[0].shape[-1]) / np.asarray(dims["n_kv_heads"])
    return columns | {"dtype": "bf16", "kv_dtype": "fp8" if narrow else "bf16"}
