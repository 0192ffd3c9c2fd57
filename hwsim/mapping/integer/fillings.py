"""Tiles that fit together and cannot grow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def maximal_tiles(
    values: list[Array], mask: tuple[bool, bool, bool], widths: tuple[float, float, float], room: float
) -> list[tuple[int, int, int]]:
    """Extents (M, N, K) that fit together and none of which can grow, from the given values.

    Size in words: sum over held tensors of the product of their two extents times the tensor's width.
    """
    m, n = (g.ravel() for g in np.meshgrid(values[0], values[1], indexing="ij"))
    a, b, z = (w if on else 0.0 for w, on in zip(widths, mask, strict=True))
    left = room - z * m * n
    per_k = a * m + b * n
    with np.errstate(divide="ignore"):
        bound = np.where(per_k > 0, left / np.maximum(per_k, 1e-300), math.inf)
    bound = np.where(left >= 0, bound * (1 + 1e-12), -1.0)
    at = np.searchsorted(values[2], bound, side="right") - 1
    fits = at >= 0
    triples = np.stack([m[fits], n[fits], values[2][at[fits]]], axis=1)
    return antichain(triples)


def antichain(points: Array) -> list[tuple[int, int, int]]:
    """Points that no other point reaches in every coordinate."""
    order = np.lexsort((-points[:, 2], -points[:, 1], -points[:, 0])) if len(points) else np.arange(0)
    kept: list[tuple[int, int, int]] = []
    front: Array = np.zeros((0, 2))
    for p in points[order]:
        if len(front) and np.any((front[:, 0] >= p[1]) & (front[:, 1] >= p[2])):
            continue
        kept.append((int(p[0]), int(p[1]), int(p[2])))
        front = np.vstack([front, p[1:]])
    return kept
