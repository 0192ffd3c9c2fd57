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

# In generations of devices; they order the donors and enter no time (choices).
FORMAT_PENALTY: Final = 10.0  # any kin of the same format comes before another format
OTHER_PROTOCOL: Final = 6.0  # a protocol that `SUBSTITUTES` does not list
UNKNOWN_PENALTY: Final = 100.0  # a format or generation that nothing is known of
# What stands in for a protocol without rows, and how unlike it is (in generations). Engines launch from CUDA graphs;
# kineto times hold no launch gap; eager floors are the host's, tens of microseconds, and stand in only at last.
_REPLAYED: Final = {"graph": 0.6, "engine": 0.6, "cutlass": 0.6, "triton": 0.7, "kineto": 1.2, "eager": 4.0}
SUBSTITUTES: Final = {
    "engine": _REPLAYED, "graph": _REPLAYED, "cutlass": _REPLAYED, "triton": _REPLAYED,
    "kineto": {"graph": 1.2, "engine": 1.2, "eager": 5.0}, "eager": {"kineto": 4.0, "graph": 4.0},
    "nvlink": {"nvlink-skewed": 1.0, "oneshot": 1.5}, "oneshot": {"nvlink": 0.6}, "bridge": {"nvlink": 0.6},
    "pcie": {"pcie-skewed": 1.0, "network": 3.0}, "network": {"ethernet": 2.0}, "ethernet": {"network": 1.0},
    "nvlink-skewed": {"nvlink": 1.0}, "pcie-skewed": {"pcie": 1.0},
    "bridge-skewed": {"nvlink-skewed": 0.6, "nvlink": 1.0},
}  # fmt: skip
# ln(measured / predicted) where nothing at all was fitted: the spread of two efficiencies with a launch floor.
NOISE: Final = 0.006  # no band is narrower: repeated runs of large element-wise kernels differ by about as much
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
        low = np.minimum(np.interp(at, self.log_us, self.log_low), -NOISE)
        high = np.maximum(np.interp(at, self.log_us, self.log_high), NOISE)
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
        total += SUBSTITUTES.get(want_by, {}).get(have_by, OTHER_PROTOCOL)
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
