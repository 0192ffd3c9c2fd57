"""Board power of a running GPU: what its clocks draw beyond idle, and the limit that the board holds.

P = idle + active + dynamic <= TDP. `active` is the power of clock trees, schedulers, uncore and leakage at temperature
that a board draws while it works through kernels, whatever they compute; energies per operation and byte
(`hwsim.cost.energy`) are regressed beside such a constant and do not contain it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device

# Share of (TDP - idle) that running clocks draw. Calibrated on the average power of 30 runs of Llama-2-70B on 2, 4
# and 8 A100 (power column of the public Splitwise simulator's measurements, 4,096 prompt tokens at most): median of
# (measured - idle - dynamic) / (TDP - idle), dynamic from hwsim's own operators over the measured time.
# Range over the runs 0.14 to 0.37. See docs/formulas/energy-money.md for the alternatives that fit worse.
ACTIVE_SHARE: Final = 0.25


def active_power_w(device: Device) -> Num:
    """Watts above idle that a GPU draws while it runs, without any operation or byte.

    Assumption: one share for every board and load, host gaps of a step included: clocks stay up for longer than that.
    """
    return np.maximum(device.power.tdp_w - device.power.idle_w, 0.0) * ACTIVE_SHARE


def within_limit_j(energy_j: Num, time_s: Num, device: Device) -> Num:
    """Dynamic joules of `time_s` on a board that holds its TDP.

    At the limit a board lowers clock and voltage; the calibrated time contains the lower clock, this the lower
    energy of an operation.
    """
    room_w = np.maximum(device.power.tdp_w - device.power.idle_w - active_power_w(device), 0.0)
    return plain(np.minimum(energy_j, room_w * time_s))
