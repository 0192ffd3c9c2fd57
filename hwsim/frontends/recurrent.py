"""Matmul-free language models (HGRN-bit, arXiv 2406.02528): a gated linear recurrence in place of attention.

Every projection has ternary weights and its own norm in front, whose output is quantized to 8 bits. A sequence
keeps one hidden vector a layer, so memory and time per token do not grow with the context.
"""

from __future__ import annotations

from hwsim.frontends.block import State, carried
from hwsim.frontends.graph import GraphBuilder, Scenario, Segment
from hwsim.frontends.transformer import embed
from hwsim.ir.workload import Tensor
from hwsim.schema.model import ModelSpec

_GATES = 3  # input, forget and output gate


def emit_recurrent(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Embedding, the recurrent blocks, final norm and output head."""
    seg = Segment(builder, "block", spec.layers, s.formats)
    state = _block(seg, spec, carried(seg, (embed(builder, spec, s, s.tokens), None)), s)
    tail = Segment(builder, "head", 1, s.formats)
    x, _ = tail.norm("norm", spec.norm, *state, quantize=False)
    last = _bit_norm(tail, "lm_head_norm", Tensor(x.name, (s.batch, spec.hidden), x.format), 1)
    tail.linear("lm_head", last, spec.vocab, shard="vocab", matrix=_head_matrix(tail, spec))
    return (spec.notes,) if spec.notes else ()


def _head_matrix(seg: Segment, spec: ModelSpec) -> Tensor:
    if spec.tied:
        return Tensor("embed.tokens.weight", (spec.hidden, spec.vocab), seg.formats.wide, "weight")
    return seg.wide_weight("lm_head.weight", spec.hidden, spec.vocab)


def _block(seg: Segment, spec: ModelSpec, state: State, s: Scenario) -> State:
    x, residual = seg.norm("norm1", spec.norm, *state, quantize=False)
    gates = seg.linear("gates", _bit_norm(seg, "gates_norm", x, _GATES), _GATES * spec.hidden)
    mixed = _recurrence(seg, spec, gates, s)
    branch = seg.linear("o_proj", _bit_norm(seg, "o_norm", mixed, 2), spec.hidden, shard="row")
    x, residual = seg.norm("norm2", spec.norm, residual, branch, quantize=False)
    up = seg.linear("gate_up", _bit_norm(seg, "gate_up_norm", x, 1), 2 * spec.ffn)
    op = f"{spec.activation}_mul"
    middle = seg.vector(op, op, (up,), (seg.tensor(f"{op}.out", x.shape[0], spec.ffn),), shard="elements")
    return residual, seg.linear("down", _bit_norm(seg, "down_norm", middle, 1), spec.hidden, shard="row")


def _bit_norm(seg: Segment, name: str, x: Tensor, weights: int) -> Tensor:
    """The norm in front of a ternary projection; `weights` projections that share an input have one each."""
    weight = seg.wide_weight(f"{name}.weight", weights, x.shape[1])
    return seg.vector(name, "rms_norm", (x, weight), (seg.like(f"{name}.out", x, seg.formats.activations),))


def _recurrence(seg: Segment, spec: ModelSpec, gates: Tensor, s: Scenario) -> Tensor:
    """h = f h + (1 - f) i, elementwise over time; reads and writes the state of each sequence once a pass.

    The learned lower bound of the forget gate is one value a channel and layer.
    """
    shape, wide = (s.batch, spec.hidden), seg.formats.wide
    before = Tensor(f"{seg.name}.state", shape, seg.formats.kv_cache, "state")
    after = Tensor(f"{seg.name}.state.new", shape, seg.formats.kv_cache, "state")
    bound = seg.wide_weight("recurrence.lower_bound", spec.hidden)
    out = seg.tensor("recurrence.out", gates.shape[0], spec.hidden, wide)
    return seg.vector("recurrence", "recurrence", (gates, bound, before), (out, after), shard="elements")
