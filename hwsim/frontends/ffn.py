"""Feed-forward half of a block: plain or gated, and mixtures of experts with shared experts."""

from __future__ import annotations

import numpy as np

from hwsim.frontends.formats import compute_dtype
from hwsim.frontends.graph import Scenario, Segment
from hwsim.ir.numbers import Num
from hwsim.ir.workload import Operator, Tensor
from hwsim.schema.model import ModelSpec, MoE


def feed_forward(seg: Segment, spec: ModelSpec, x: Tensor, width: int, prefix: str = "") -> Tensor:
    """Plain: up, activation, down. Gated: one fused gate-and-up multiply, activation times gate, down."""
    bias = "ffn" in spec.biases
    wide = width * (1 + spec.gated)
    op = f"{spec.activation}_mul" if spec.gated else spec.activation
    first = seg.linear(prefix + ("gate_up" if spec.gated else "up"), x, wide, bias=wide * bias)
    middle = seg.tensor(f"{prefix}{op}.out", x.shape[0], width, seg.formats.activations)
    seg.vector(prefix + op, op, (first,), (middle,), shard="elements")
    return seg.linear(f"{prefix}down", middle, spec.hidden, shard="row", bias=spec.hidden * bias)


def expected_active(experts: int, top_k: int, tokens: Num) -> Num:
    """Expected distinct experts that `tokens` tokens pick, each taking `top_k` of `experts` without repetition.

    E (1 - (1 - k/E)^T). Assumption: uniform, independent routing of tokens; skewed routing touches fewer.
    Written with log1p and expm1 so that it stays accurate where k/E is small.
    """
    if top_k >= experts:
        return experts
    if np.ndim(tokens) == 0 and tokens == 1:
        return top_k
    active = -experts * np.expm1(np.asarray(tokens, dtype=np.float64) * np.log1p(-top_k / experts))
    return float(active) if np.ndim(active) == 0 else active


def experts_block(seg: Segment, spec: ModelSpec, x: Tensor, s: Scenario) -> Tensor:
    """Router, top-k, the fused expert kernel, shared experts as dense multiplies, and the sum of both."""
    moe = _need(spec.moe)
    bias = moe.experts * ("router" in spec.biases)
    gate = seg.wide_weight("router.weight", spec.hidden, moe.experts)
    scores = seg.linear("router", x, moe.experts, shard="replicated", bias=bias, matrix=gate)
    picked = seg.tensor("topk.out", x.shape[0], 2 * moe.top_k)
    fields = (seg.wide_weight("topk.selection_bias", moe.experts),) if moe.selection_bias else ()
    seg.vector("topk", "topk_softmax", (scores, *fields), (picked,), dims=(x.shape[0], moe.experts))
    routed = _expert_kernel(seg, spec, moe, (x, picked), s)
    return _with_shared(seg, spec, moe, x, routed) if moe.shared_ffn else routed


def _need(moe: MoE | None) -> MoE:
    assert moe is not None, "only called for layers with experts"
    return moe


def _expert_kernel(seg: Segment, spec: ModelSpec, moe: MoE, inputs: tuple[Tensor, ...], s: Scenario) -> Tensor:
    tokens, matrices = s.tokens, 3 if spec.gated else 2
    active = expected_active(moe.experts, moe.top_k, tokens)
    touched = active / moe.experts
    fmt = seg.formats
    weight = Tensor(
        f"{seg.name}.moe.weight", (moe.experts, matrices, spec.hidden, moe.expert_ffn), fmt.weights, "weight", touched
    )
    bias_cols = (matrices - 1) * moe.expert_ffn + spec.hidden
    bias = Tensor(f"{seg.name}.moe.bias", (moe.experts, bias_cols), fmt.wide, "weight", touched)
    out = seg.tensor("moe.out", tokens, spec.hidden)
    dims: dict[str, Num] = {"tokens": tokens, "hidden": spec.hidden, "inter": moe.expert_ffn, "experts": moe.experts}
    dims |= {"topk": moe.top_k, "active_experts": active, "matrices": matrices}
    seg.add(
        Operator(
            name=f"{seg.name}.moe",
            kind="moe",
            op="moe",
            dims=dims,
            flop=2 * matrices * spec.hidden * moe.expert_ffn * moe.top_k * tokens,
            dtype=compute_dtype(fmt.weights, fmt.activations),
            inputs=(*inputs, weight, *((bias,) if "experts" in spec.biases else ())),
            outputs=(out,),
            shard="experts",
        )
    )
    return out


def _with_shared(seg: Segment, spec: ModelSpec, moe: MoE, x: Tensor, routed: Tensor) -> Tensor:
    shared = feed_forward(seg, spec, x, moe.shared_ffn, "shared_")
    inputs: tuple[Tensor, ...] = (routed, shared)
    if moe.shared_gate:
        gate = seg.wide_weight("shared_expert_gate.weight", spec.hidden, 1)
        inputs = (*inputs, seg.linear("shared_expert_gate", x, 1, shard="replicated", matrix=gate))
    return seg.vector("moe_add", "add", inputs, (seg.like("moe_add.out", routed),))
