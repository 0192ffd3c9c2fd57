"""Expert groups wider than the tensor group: attention in data-parallel replicas, experts over all of them.

A group of `ep` ranks holds `experts / ep` experts each; the tokens of `ep / tp` replicas meet there. A token goes
once to every rank that holds one of its experts (dispatch) and the partial sums come back (combine): two
all-to-alls take the place of the all-reduce. Assumption: uniform routing, as in `hwsim.frontends.ffn`.
Source: DeepSeek-V3 technical report, arXiv 2412.19437, sec. 3.2.2 and 3.4.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hwsim.frontends.ffn import expected_active
from hwsim.ir.numbers import Num
from hwsim.ir.workload import Operator, Tensor


def distinct_ranks(experts: int, top_k: int, ranks: int) -> float:
    """Expected ranks that the `top_k` different experts of one token lie on.

    Exact for uniform picks without repetition: ranks (1 - C(E - e, k) / C(E, k)) with e = E/ranks experts a rank.
    """
    own = experts // ranks
    missed = math.comb(experts - own, top_k) / math.comb(experts, top_k)
    return ranks * (1.0 - missed)


def widened(operator: Operator, tp: int, ep: int) -> Operator:
    """One rank's share of an expert operator in a group of `ep` > `tp` ranks: `tokens` are those of the group."""
    dims = operator.dims
    replicas = ep // tp
    tokens = dims["tokens"] * replicas
    active = expected_active(int(dims["experts"]), int(dims["topk"]), tokens)
    arriving = replicas * distinct_ranks(int(dims["experts"]), int(dims["topk"]), ep) / ep
    sizes: dict[str, Num] = {"tokens": tokens, "active_experts": active, "moe_tp": 1, "moe_ep": ep}
    return replace(
        operator,
        dims={**dims, **sizes},
        flop=operator.flop / tp,
        inputs=tuple(_share(t, ep, arriving, active / dims["experts"]) for t in operator.inputs),
        outputs=tuple(_share(t, ep, arriving, 1.0) for t in operator.outputs),
    )


def _share(tensor: Tensor, ep: int, arriving: float, touched: Num) -> Tensor:
    """Weights: the experts of one rank. Activations: the rows that arrive there."""
    if tensor.role == "weight":
        return replace(tensor, shape=(tensor.shape[0] / ep, *tensor.shape[1:]), touched=touched)
    return replace(tensor, shape=(tensor.shape[0] * arriving, *tensor.shape[1:]))


def exchanged_bytes(operator: Operator, tensor: Tensor, tp: int, ep: int) -> Num:
    """Buffer of one rank in dispatch or combine: its tokens (1/tp of the replica's), once for each rank they visit."""
    ranks = distinct_ranks(int(operator.dims["experts"]), int(operator.dims["topk"]), ep)
    return tensor.format.bytes(tensor.elements) / tp * ranks
