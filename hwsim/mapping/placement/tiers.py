"""Tensors over memory tiers: fractional striping, the time of a phase as the slowest of what works side by side.

Share s[k, t] of tensor k lies in tier t. A phase p reads and writes a[p, k] bytes of tensor k. Tier t serves phase p
at r[p, t] (a load-store walk and a DMA reach different rates), tiers behind one link share it.

- parallel: T_p = max(floor_p, max_t sum_k a s / r, max_link sum_(k, t behind it) a s / link)
- serial (one thread walks the pages): T_p = max(floor_p, sum_t sum_k a s / r, the links)
- a tensor lies in at most two kinds of tiers; equal cards are one kind, striped over evenly (no cost tells them apart,
  so averaging a solution over them loses nothing)

Minimise sum_p count_p T_p. Assumptions: rates do not depend on the share, phases do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.mapping.placement.problem import SLACK
from hwsim.units import gib

Array = np.ndarray[Any, Any]
MOST_KINDS = 2


@dataclass(frozen=True, slots=True)
class Tier:
    """A kind of memory, near to far in the order given; `size_bytes` of all `count` equal modules together."""

    name: str
    size_bytes: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor, or a group that is treated alike; `home`: the tiers it may lie in (empty: all)."""

    name: str
    size_bytes: float
    home: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A path that several tiers share: bytes of the tiers `behind` it pass at one rate."""

    name: str
    bytes_per_s: float
    behind: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Phase:
    """One phase: `traffic_bytes` a tensor, shape (tensors,); `rates`: B/s of each tier, shape (tiers,).

    `floor_s`: what it takes at least, whatever lies where. `count`: executions in the run.
    """

    name: str
    traffic_bytes: Array
    rates: Array
    floor_s: float = 0.0
    count: float = 1.0
    links: tuple[Link, ...] = ()
    serial: bool = False


@dataclass(frozen=True, eq=False)
class TierProblem:
    """Tensors, tiers from near to far, phases."""

    name: str
    tiers: tuple[Tier, ...]
    tensors: tuple[Tensor, ...]
    phases: tuple[Phase, ...]

    @property
    def sizes(self) -> Array:
        return np.array([t.size_bytes for t in self.tensors])

    @property
    def allowed(self) -> Array:
        """Which tensor may lie in which tier, shape (tensors, tiers)."""
        return np.array([[not t.home or i in t.home for i in range(len(self.tiers))] for t in self.tensors])


def phase_parts(problem: TierProblem, phase: Phase, shares: Array) -> dict[str, float]:
    """Seconds of a phase by what could bind it: ``computing``, each tier (or ``all tiers`` in series), each link."""
    moved = phase.traffic_bytes @ shares
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.where(moved > 0, moved / phase.rates, 0.0)
    parts = {"computing": phase.floor_s}
    if phase.serial:
        parts["all tiers"] = float(seconds.sum())
    else:
        parts |= {t.name: float(s) for t, s in zip(problem.tiers, seconds, strict=True)}
    return parts | {k.name: float(moved[list(k.behind)].sum()) / k.bytes_per_s for k in phase.links}


def time_of(problem: TierProblem, shares: Array) -> float:
    """Seconds of all phases."""
    return sum(p.count * max(phase_parts(problem, p, shares).values()) for p in problem.phases)


def used_bytes(problem: TierProblem, shares: Array) -> Array:
    """Bytes in each tier, shape (tiers,)."""
    out: Array = problem.sizes @ shares
    return out


def tier_violations(problem: TierProblem, shares: Array, *, kinds: int | None = MOST_KINDS) -> list[str]:
    """What is wrong with shares; `kinds` None allows any number of tiers a tensor."""
    if shares.shape != (len(problem.tensors), len(problem.tiers)) or not np.all(shares >= -SLACK):
        return ["shares are not a table of tensors by tiers"]
    wrong = []
    for tensor, own, may in zip(problem.tensors, shares, problem.allowed, strict=True):
        if abs(own.sum() - 1) > SLACK:
            wrong.append(f"{tensor.name}: shares add up to {own.sum():.6g}")
        if np.any(own[~may] > SLACK):
            wrong.append(f"{tensor.name}: lies where it may not")
        if kinds is not None and int((own > SLACK).sum()) > kinds:
            wrong.append(f"{tensor.name}: in more than {kinds} tiers")
    for tier, used in zip(problem.tiers, used_bytes(problem, shares), strict=True):
        if used > tier.size_bytes * (1 + SLACK):
            wrong.append(f"{tier.name}: {gib(used)} in {gib(tier.size_bytes)}")
    return wrong
