"""The matrix multiplies inside one operator of a sharded graph, with the width of each of their tensors.

A GEMM is one product; attention is two, the query heads of one KV head stacked as rows; an expert layer has its up
and down products over equal shares of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from hwsim.ir.workload import Operator
from hwsim.mapping import gemms
from hwsim.mapping.problem import Gemm

Bits = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Product:
    """`times` executions of one GEMM; `bits` are the stored bits of an element of A, B and Z."""

    gemm: Gemm
    times: int
    bits: Bits


def products_of(operator: Operator) -> tuple[Product, ...]:
    """The products of one execution of an operator; none for operators without a matrix multiply.

    Raises InputError where a size is an array (a grid of scenarios has no single tiling).
    """
    bits = _bits(operator)
    found = gemms.products(_own_share(operator))
    return tuple(
        Product(Gemm(m, n, k, batch, name), times, bits[min(index, len(bits) - 1)])
        for index, (name, (batch, m, n, k), times) in enumerate(found)
        if times > 0
    )


def _own_share(operator: Operator) -> Operator:
    """After sharding an expert layer keeps its full width and all experts, and says how they are split."""
    d = operator.dims
    if operator.kind != "moe" or ("moe_tp" not in d and "moe_ep" not in d):
        return operator
    active = max(ceil(d["active_experts"] / d.get("moe_ep", 1)), 1)
    tokens = ceil(d["tokens"] / d.get("moe_ep", 1))
    return replace(
        operator, dims={**d, "inter": d["inter"] // d.get("moe_tp", 1), "active_experts": active, "tokens": tokens}
    )


def _bits(operator: Operator) -> tuple[Bits, ...]:
    """Stored bits of A, B, Z of each product."""
    acts = [t.format.bits for t in operator.inputs if t.role == "activation"]
    act = acts[0] if acts else 16.0
    out = operator.outputs[0].format.bits if operator.outputs else act
    cached = [t.format.bits for t in operator.inputs if t.role == "kv_cache"]
    if operator.kind.startswith("attention"):
        cache = cached[0] if cached else act
        return ((act, cache, act), (act, cache, out))  # scores have the width of the activations
    weight = operator.weights[0].format.bits if operator.weights else acts[1] if len(acts) > 1 else act
    return ((act, weight, out),)
