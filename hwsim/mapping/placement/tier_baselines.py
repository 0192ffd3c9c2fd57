"""Hand-made rules for tensors in tiers, beside the program: interleave, nearest first, CXL-aware.

All give shares of shape (tensors, tiers). A tier that is full passes what is left on to the others with room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.mapping.placement.tiers import TierProblem

Array = np.ndarray[Any, Any]


def interleave(problem: TierProblem) -> Array:
    """Pages of every tensor in turn over all modules (the NUMA policy), in proportion to their count."""
    shares = np.zeros((len(problem.tensors), len(problem.tiers)))
    room = np.array([t.size_bytes for t in problem.tiers])
    modules = np.array([t.count for t in problem.tiers], dtype=float)
    for k, tensor in enumerate(problem.tensors):
        shares[k] = _spread(tensor.size_bytes, modules * problem.allowed[k], room, tensor.name)
        room = room - shares[k] * tensor.size_bytes
    return shares


def nearest_first(problem: TierProblem, order: Sequence[int] | None = None) -> Array:
    """Tensors in the order given, each into the nearest tier with room, the rest into the next."""
    tiers = list(range(len(problem.tiers)))
    return _filled(problem, range(len(problem.tensors)) if order is None else order, [tiers] * len(problem.tensors))


def aware(problem: TierProblem, cpu: Sequence[int], dma: Sequence[int]) -> Array:
    """CXL-aware rule (arXiv 2507.03305): what the CPU walks in DRAM, what only DMA touches on the cards.

    Parameters
    ----------
    cpu: tensors that the CPU walks, the first to stay in DRAM first. dma: tensors moved by DMA only.
    """
    tiers = list(range(len(problem.tiers)))
    preferred = [tiers if k in cpu else [*tiers[1:], 0] for k in range(len(problem.tensors))]
    return _filled(problem, [*cpu, *dma], preferred)


def _spread(size: float, weights: Array, room: Array, name: str) -> Array:
    """Shares in proportion to `weights` until tiers are full."""
    share, left = np.zeros(len(room)), 1.0
    while left > 1e-12:
        open_ = (weights > 0) & (room - share * size > 1e-9 * max(size, 1.0))
        if not open_.any():
            raise InfeasibleError(f"no tier has room for {name}", seen=f"{left * size:.6g} B left over")
        want = left * np.where(open_, weights, 0.0) / weights[open_].sum()
        step = np.minimum(want, np.where(open_, room / max(size, 1e-30) - share, 0.0))
        share, left = share + step, left - float(step.sum())
    return share


def _filled(problem: TierProblem, order: Sequence[int], preferred: Sequence[Sequence[int]]) -> Array:
    shares = np.zeros((len(problem.tensors), len(problem.tiers)))
    room = np.array([t.size_bytes for t in problem.tiers])
    for k in order:
        size, left = problem.tensors[k].size_bytes, 1.0
        for t in preferred[k]:
            if left <= 1e-12 or not problem.allowed[k, t]:
                continue
            shares[k, t] = min(left, room[t] / size) if size else left
            room[t] -= shares[k, t] * size
            left -= shares[k, t]
        if left > 1e-9:
            name = problem.tensors[k].name
            raise InfeasibleError(f"no tier has room for {name}", seen=f"{left * size:.6g} B left over")
    return shares
