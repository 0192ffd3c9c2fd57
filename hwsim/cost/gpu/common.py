"""Pieces every kernel model shares; all broadcast over numpy arrays and hold no state.

Sources: smooth maximum for imperfect overlap - roofline with transition (as in the ECM model, Hofmann et al. 2019);
wave quantization -
NVIDIA, "Matrix Multiplication Background User's Guide", section "Wave Quantization".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def last_axis(value: Any) -> Array:
    """Add a trailing axis of one, so that a per-row value broadcasts against (rows, choices)."""
    return np.asarray(value, dtype=np.float64)[..., None]


def smooth_max(a: Any, b: Any, sharpness: float = 4.0) -> Array:
    """(a^p + b^p)^(1/p): the maximum of two overlapping phases, up to 2^(1/p) above it where they are equal.

    a, b: seconds >= 0, broadcastable. sharpness: p >= 1; 1 is the serial sum, large p the perfect overlap.
    """
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = low / np.maximum(high, 1e-300)
    return np.asarray(high * (1.0 + ratio**sharpness) ** (1.0 / sharpness))


def waves(blocks: Any, slots: Any, hardness: Any) -> Array:
    """Waves that `blocks` equal thread blocks take on `slots` slots: q ceil(w) + (1-q) max(w, 1).

    hardness: q in [0, 1]; 1 is hard wave quantization, 0 a persistent or stream-K kernel without a tail.
    """
    w = np.asarray(blocks) / slots
    return np.asarray(hardness * np.ceil(w - 1e-9) + (1.0 - hardness) * np.maximum(w, 1.0))


def resident(working_set_bytes: Any, cache_bytes: Any, share: Any, spread: float = 3.0) -> Array:
    """Fraction of a replayed working set that is still in the cache: 1 far below `share` x cache, 0 far above.

    A smooth step in the logarithm of the size: 1 / (1 + (ws / (share cache))^(2 spread)).
    """
    ratio = np.asarray(working_set_bytes) / (share * np.asarray(cache_bytes))
    return np.asarray(1.0 / (1.0 + np.minimum(ratio, 1e6) ** (2.0 * spread)))


def pick(values: Any, chosen: Array) -> Array:
    """Values of the chosen candidate: (rows, choices) and indices (rows, 1) -> (rows,)."""
    array = np.asarray(values)
    if array.ndim == 0 or array.shape[-1] == 1:
        flat = array[..., 0] if array.ndim else array
        return np.broadcast_to(flat, chosen.shape[:-1]).copy()
    full = np.broadcast_to(array, (*chosen.shape[:-1], array.shape[-1]))
    return np.asarray(np.take_along_axis(full, chosen, axis=-1)[..., 0])
