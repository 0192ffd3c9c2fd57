"""Micro-benchmarks of this processor: BLAS through numpy, and STREAM-like vector kernels on cold buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hwsim.validation.measure.environment import last_level_cache_bytes
from hwsim.validation.measure.timing import copies, sample

BACKEND = "numpy-engine"  # weights rotate past the cache, as in an engine's step
BUDGET_BYTES = 1 << 30
SIDES = (256, 512, 1024, 2048, 4096)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
VECTOR_COLS = (1024, 4096, 16384)
VECTOR_ROWS = (1, 16, 64, 256, 1024)
MAX_FLOP = 2.0e10  # a call longer than about a second says nothing more


def gemm(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the GEMM schema: fp32, weights cold, m from matrix-vector to compute-bound."""
    cache = last_level_cache_bytes()
    sides, rows = (SIDES[:3], ROWS[::3]) if quick else (SIDES, ROWS)
    for n, k in ((n, k) for n in sides for k in sides):
        count = copies(4.0 * n * k, cache, BUDGET_BYTES)
        weights = np.ones((count, k, n), dtype=np.float32)
        for m in rows:
            if 2.0 * m * n * k <= MAX_FLOP:
                yield _gemm_row(device, m, n, k, weights)


def _gemm_row(device: str, m: int, n: int, k: int, weights: Any) -> dict[str, Any]:
    activations, out = np.ones((m, k), dtype=np.float32), np.empty((m, n), dtype=np.float32)
    found = sample(lambda i: np.matmul(activations, weights[i % len(weights)], out=out))
    shape = {"batch": 1, "m": m, "n": n, "k": k}
    return {**_head(device), "dtype_act": "fp32", "dtype_weight": "fp32", **shape, **_tail(found)}


def vector(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the vector schema: copy, scale and add of fp32 (the kernels of STREAM, McCalpin 1995)."""
    cache = last_level_cache_bytes()
    for rows in VECTOR_ROWS[::2] if quick else VECTOR_ROWS:
        for cols in VECTOR_COLS:
            count = copies(12.0 * rows * cols, cache, BUDGET_BYTES)
            a, b, c = (np.ones((count, rows, cols), dtype=np.float32) for _ in range(3))
            for op, (inputs, call) in _stream(a, b, c).items():
                size = 4 * rows * cols
                shape = {"rows": rows, "cols": cols, "bytes_read": inputs * size, "bytes_written": size}
                yield {**_head(device), "op": op, "dtype": "fp32", **shape, **_tail(sample(call))}


def _stream(a: Any, b: Any, c: Any) -> dict[str, tuple[int, Callable[[int], object]]]:
    """Kernel -> (input arrays, call that takes the i-th copies)."""
    n = len(a)

    def copy(i: int) -> object:
        return np.positive(a[i % n], out=c[i % n])

    def scale(i: int) -> object:
        return np.multiply(a[i % n], np.float32(3.0), out=c[i % n])

    def add(i: int) -> object:
        return np.add(a[i % n], b[i % n], out=c[i % n])

    return {"copy": (1, copy), "mul_scalar": (1, scale), "add": (2, add)}


def _head(device: str) -> dict[str, Any]:
    return {"gpu": device, "backend": BACKEND, "version": np.__version__}


def _tail(found: Any) -> dict[str, Any]:
    return {"latency_us": float(f"{found.median_s * 1e6:.5g}"), "spread_percent": float(f"{100 * found.spread:.3g}")}


FAMILIES = {"gemm": gemm, "vectorop": vector}
"""File stem -> benchmark."""
