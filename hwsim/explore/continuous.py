"""From a static batch to a closed loop: clients that each ask again when they are answered, as engines serve them.

With C clients on a replica, a decode step D(C), the pass of one prompt P and the cost of one more prompt in a running
step P' = (P(8) - P(1)) / 7 (docs/formulas/end-to-end.md, scored there against serving benchmarks):

    TPOT = D + (C - 1) P' / answer        TTFT = P (1 + sqrt(C) / 2) + D     (sqrt(C) / 2 only where C > 1)

Answers per second = C / (TTFT + (answer - 1) TPOT). Energy: the work is that of the static batch, static power runs
for the new time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import money
from hwsim.ir.platform import Platform
from hwsim.validation.endtoend import CROWD

Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Loop:
    """Sizes of the points: total batch, clients of the fullest replica, devices at work, answer tokens.

    `static_w`: watts that the devices draw without doing anything.
    """

    batch: Any
    clients: Any
    devices: Any
    answer: float
    static_w: Any
    platform: Platform


def closed_loop(static: Figures, one_s: Any, crowd_s: Any, loop: Loop) -> Figures:
    """Figures of the closed loop from those of the static batch; `one_s`, `crowd_s`: TTFT of 1 and `CROWD` prompts."""
    one_more = np.maximum(crowd_s - one_s, 0.0) / (CROWD - 1)
    step = static["tpot_s"]
    tpot = step + (loop.clients - 1.0) * one_more / loop.answer
    ahead = 0.5 * np.sqrt(loop.clients) * np.minimum(loop.clients - 1.0, 1.0)
    return figures_at(static, (1.0 + ahead) * one_s + step, tpot, loop)


def figures_at(static: Figures, ttft: Any, tpot: Any, loop: Loop) -> Figures:
    """All figures at a TTFT and TPOT, for the work of the static batch."""
    latency = ttft + (loop.answer - 1.0) * tpot
    tokens = loop.batch * loop.answer
    work = static["energy_j_per_token"] * tokens - loop.static_w * static["latency_s"]
    energy = work + loop.static_w * latency
    price = loop.platform.price
    cost = np.full_like(latency, np.nan)
    if price is not None:
        cost = money.usd_per_mtok(money.bill_usd(price, loop.devices, latency, energy), tokens)
    return {
        "ttft_s": ttft,
        "tpot_s": tpot,
        "latency_s": latency,
        "tokens_per_s": tokens / latency,
        "energy_j_per_token": energy / tokens,
        "cost_usd_per_mtok": cost,
    }
