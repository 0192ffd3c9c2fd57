"""The question: how much of what, in which formats, split how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.ir.numbers import Num


@dataclass(frozen=True, slots=True)
class Scenario:
    """One point (scalars) or a grid of them (arrays that broadcast).

    Attributes
    ----------
    batch: sequences that run together. prompt_tokens, output_tokens: per sequence; the first output token
        comes from the prefill, the others from decode steps.
    weights, activations, kv_cache: number format names ("" = the device's 16-bit format).
    tp, pp, ep: tensor, pipeline and expert parallel degrees; ep divides tp (experts split inside the tensor group),
        or is tp times a divisor of dp (experts split over the tensor groups of several replicas).
    dp: data-parallel replicas that share the batch. sp: keep the residual stream in rows over the tensor group.
    efficiency: ``calibrated`` or ``datasheet`` (bare roofline).
    mapper: who decides tiles (``roofline``: nobody, the ideal); map_objective: for what (``latency``), map_budget_s:
        wall seconds for the decisions of one phase (None: until proved).
    memory_fraction: share of the memory that weights, KV and activations may use.
    """

    batch: Num = 1
    prompt_tokens: Num = 512
    output_tokens: Num = 128
    weights: str = ""
    activations: str = ""
    kv_cache: str = ""
    tp: int = 1
    pp: int = 1  # an array too, in the searches of hwsim.explore.layouts
    ep: int = 1
    efficiency: str = "calibrated"
    engine: str = "analytic"
    mapper: str = "roofline"
    memory_fraction: float = 0.9
    price: str = ""
    dp: Num = 1
    sp: bool = False
    map_objective: str = ""
    map_budget_s: float | None = None

    @property
    def devices(self) -> Num:
        """Devices of all replicas."""
        return self.tp * self.pp * self.dp

    @property
    def batch_of_replica(self) -> Num:
        """Sequences of the fullest data-parallel replica."""
        return share_of(self.batch, self.dp)


def share_of(amount: Num, parts: Num) -> Num:
    """The largest of `parts` whole shares of `amount`."""
    if np.ndim(parts) == 0 and parts == 1:
        return amount
    share = np.ceil(amount / parts)
    return int(share) if np.ndim(share) == 0 else share
