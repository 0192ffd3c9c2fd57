"""Which fitted parameters and which error band apply: the device's own, else those of its nearest kin.

A kernel class is ``format@protocol``. The best match over all donors is the one with the least penalty: another format
costs most, then the distance of the donor in generations, then another protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.family import Array, Family
from hwsim.ir.platform import Calibration

FORMAT_PENALTY: Final = 10.0
PROTOCOL_PENALTY: Final = 0.6
UNKNOWN_PENALTY: Final = 100.0
# What stands in for a protocol without rows: engines launch from CUDA graphs; kineto times have no launch gap.
SUBSTITUTES: Final = {
    "engine": ("graph", "cutlass", "triton", "kineto", "eager"),
    "graph": ("engine", "cutlass", "triton", "kineto", "eager"),
    "kineto": ("graph", "eager"),
    "eager": ("kineto", "graph"),
    "cutlass": ("triton", "graph"), "triton": ("cutlass", "graph"),
    "nvlink": ("nvlink-skewed", "oneshot"), "oneshot": ("nvlink",),
    "pcie": ("pcie-skewed", "network"), "ethernet": ("network",),
    "network": ("network", "ethernet"),
    "nvlink-skewed": ("nvlink",), "pcie-skewed": ("pcie",), "bridge-skewed": ("nvlink-skewed", "nvlink"),
}  # fmt: skip
# ln(measured / predicted) where nothing at all was fitted: the spread of two efficiencies with a launch floor.
UNFITTED: Final = (-0.45, 0.45)
TRANSFER_FLOOR: Final = 0.18  # a device that was never measured claims no narrower band than this (leave-one-GPU-out)


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters for one kernel class with the donor they come from and the log band around its predictions."""

    parameters: Mapping[str, float]
    donor: str
    kernel_class: str
    exact: bool
    log_us: Array
    log_low: Array
    log_high: Array

    def band(self, time_s: Any) -> tuple[Array, Array]:
        """Low and high seconds that hold 80 % of measured values; interpolated in ln(time), so continuous."""
        at = np.log(np.maximum(np.asarray(time_s, dtype=np.float64) * 1e6, 1e-9))
        low = np.minimum(np.interp(at, self.log_us, self.log_low), 0.0)
        high = np.maximum(np.interp(at, self.log_us, self.log_high), 0.0)
        return time_s * np.exp(low), time_s * np.exp(high)


def choose(calibration: Calibration | None, family: Family, kernel_class: str) -> Choice:
    """The parameters for `kernel_class`, nearest first; the family's start values where no donor has any class."""
    donors = calibration.families.get(family.name, {}).get("donors", []) if calibration is not None else []
    ranked = [(penalty(family, kernel_class, c) + d["distance"], d, c) for d in donors for c in d["classes"]]
    if not ranked or min(r[0] for r in ranked) >= UNKNOWN_PENALTY:
        ends = (np.full(1, end) for end in UNFITTED)
        return Choice(family.start(), "", kernel_class, False, np.zeros(1), *ends)
    _, donor, found = min(ranked, key=lambda r: r[0])
    entry = donor["classes"][found]
    exact = donor["distance"] == 0 and found.partition("@")[0] == kernel_class.partition("@")[0]
    log_us, low, high = _bins(entry["residuals"])
    if not exact:
        low, high = _widened(entry.get("transfer"), low, high)
    return Choice({**family.start(), **entry["parameters"]}, donor["device"], found, exact, log_us, low, high)


def penalty(family: Family, wanted: str, found: str) -> float:
    """How unlike two kernel classes are: 0 the same; another protocol < another generation < another format."""
    if wanted == found:
        return 0.0
    (want, want_by), (have, have_by) = (c.partition("@")[::2] for c in (wanted, found))
    total = 0.0
    if want != have:
        options = family.fallbacks.get(want, ())
        if have not in options:
            return UNKNOWN_PENALTY
        total += FORMAT_PENALTY * (1 + options.index(have))
    if want_by != have_by:
        others = SUBSTITUTES.get(want_by, ())
        total += PROTOCOL_PENALTY * (1 + (others.index(have_by) if have_by in others else len(others) + 3))
    return total


def _bins(residuals: Any) -> tuple[Array, Array, Array]:
    if not residuals:
        return np.zeros(1), np.full(1, UNFITTED[0]), np.full(1, UNFITTED[1])
    rows = sorted((np.log(b["predicted_us"]), b["q10"], b["q90"]) for b in residuals)
    at, low, high = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return at, low, high


def _widened(transfer: Any, low: Array, high: Array) -> tuple[Array, Array]:
    """At least the band that leaving a GPU out found for this donor."""
    t_low, t_high = (transfer["q10"], transfer["q90"]) if transfer else (-TRANSFER_FLOOR, TRANSFER_FLOOR)
    return np.minimum(low, min(t_low, -TRANSFER_FLOOR)), np.maximum(high, max(t_high, TRANSFER_FLOOR))
