"""Error figures of predictions against measurements; all take log errors or times as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def scores(predicted: Array, measured: Array, low: Array | None = None, high: Array | None = None) -> dict[str, Any]:
    """n, mape, median, p90, bias (median signed), rank correlation, share inside the band; percent except the rank."""
    error = predicted / measured - 1.0
    percent = 100.0 * np.abs(error)
    out: dict[str, Any] = {
        "n": len(measured),
        "mape": float(percent.mean()),
        "median": float(np.median(percent)),
        "p90": float(np.quantile(percent, 0.9)),
        "bias": float(100.0 * np.median(error)),
        "rank": rank_correlation(predicted, measured),
    }
    if low is not None and high is not None:
        out["in_band"] = float(100.0 * np.mean((measured >= low) & (measured <= high)))
    return out


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rho with mean ranks for ties; 1 for fewer than two distinct values."""
    if len(a) < 2:
        return 1.0
    x, y = _ranks(a), _ranks(b)
    spread = float(np.std(x) * np.std(y))
    return float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else 1.0


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse])
