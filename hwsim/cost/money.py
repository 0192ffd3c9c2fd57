"""Money: dated rates times device-seconds, and electricity where the hardware is owned (LAW-4).

bill = devices x rate x time + energy x (electricity price x PUE); rented devices include their electricity.
Bought devices are written off linearly over the price file's amortization.
"""

from __future__ import annotations

from hwsim.ir.numbers import Num
from hwsim.ir.platform import Price


def bill_usd(price: Price, devices: Num, time_s: Num, energy_j: Num) -> Num:
    """US dollars of `devices` busy for `time_s` that draw `energy_j` together."""
    return devices * price.rate_usd_per_s * time_s + price.energy_usd_per_j * energy_j


def usd_per_mtok(bill: Num, tokens: Num) -> Num:
    """US dollars per million tokens."""
    return bill / tokens * 1e6
