"""Costed candidates as columns: one entry a (layout, batch), figures by the ordinary engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import unknown_name
from hwsim.mapping.parallelism.layouts import Layout

Array = NDArray[Any]
OBJECTIVES: Final = ("latency", "throughput", "energy", "cost")


@dataclass(frozen=True, slots=True)
class Columns:
    """Arrays of one length; column i is ``layouts[layout[i]]`` at `batch[i]` sequences on all its devices.

    `needed_bytes` and `usable_bytes` are of one device. Prices are NaN where none is known; a model of one phase
    has TTFT = latency and TPOT = 0.
    """

    layouts: tuple[Layout, ...]
    layout: NDArray[np.int64]
    batch: NDArray[np.int64]
    used: NDArray[np.int64]
    ttft_s: Array
    tpot_s: Array
    latency_s: Array
    tokens_per_s: Array
    energy_j_per_token: Array
    cost_usd_per_mtok: Array
    needed_bytes: Array
    usable_bytes: Array
    devices: int

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def tokens_per_s_device(self) -> Array:
        """Tokens per second over the devices given, idle ones included."""
        return np.asarray(self.tokens_per_s / self.devices)

    @property
    def fits(self) -> NDArray[np.bool_]:
        return np.asarray(self.needed_bytes <= self.usable_bytes)

    def value(self, objective: str) -> Array:
        """What is minimised; the throughput per device with a minus sign. Raises UnknownNameError."""
        values = {
            "latency": self.latency_s,
            "throughput": -self.tokens_per_s_device,
            "energy": self.energy_j_per_token,
            "cost": self.cost_usd_per_mtok,
        }
        if objective not in values:
            raise unknown_name("objective", objective, OBJECTIVES, where="--objective")
        return values[objective]


@dataclass(frozen=True, slots=True)
class Limits:
    """What users accept: seconds to the first token and between tokens (infinite: not asked)."""

    ttft_s: float = math.inf
    tpot_s: float = math.inf

    def without(self, name: str) -> Limits:
        """The limits with one dropped."""
        return Limits(**{"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, name: math.inf})


def allowed(columns: Columns, limits: Limits, *, memory: bool = True) -> NDArray[np.bool_]:
    """Columns that fit and keep the limits."""
    good = (columns.ttft_s <= limits.ttft_s) & (columns.tpot_s <= limits.tpot_s)
    return np.asarray(good & columns.fits if memory else good)


def failures(columns: Columns, limits: Limits) -> Mapping[str, int]:
    """Layouts that fail at every batch, by the first limit that none of their batches keeps."""
    reasons = {
        "memory": columns.fits,
        "ttft": columns.fits & (columns.ttft_s <= limits.ttft_s),
        "tpot": allowed(columns, limits),
    }
    alive = np.unique(columns.layout)
    counts: dict[str, int] = {}
    for name, good in reasons.items():
        kept = np.unique(columns.layout[good])
        counts[name] = len(alive) - len(kept)
        alive = kept
    return {name: count for name, count in counts.items() if count}


def pareto(columns: Columns, good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the columns that no other beats in both tokens/s/user and tokens/s/device, quickest user first."""
    speed = 1.0 / np.where(columns.tpot_s > 0, columns.tpot_s, columns.latency_s)
    index = np.flatnonzero(good)
    order = index[np.lexsort((-columns.tokens_per_s_device[index], -speed[index]))]
    rate = columns.tokens_per_s_device[order]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(rate)[:-1]]) if len(rate) else rate
    return np.asarray(order[rate > best_before])
