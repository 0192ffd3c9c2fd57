"""Decoder-only transformers: embedding, blocks, final norm and output head."""

from __future__ import annotations

from hwsim.frontends.block import State, decoder_block, layer_kinds
from hwsim.frontends.graph import GraphBuilder, Scenario, Segment
from hwsim.ir.numbers import Num
from hwsim.ir.workload import Tensor
from hwsim.schema.model import ModelSpec


def emit_decoder(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Embedding, the blocks by kind, final norm and output head of a decoder-only model."""
    state: State = (embed(builder, spec, s, s.tokens), None)
    kinds = layer_kinds(spec)
    for kind, count in kinds.items():
        segment = Segment(builder, kind.label(tuple(kinds)), count, s.formats)
        state = decoder_block(segment, spec, kind, state, s)
    head(builder, spec, s, state)
    return (spec.notes,) if spec.notes else ()


def embed(builder: GraphBuilder, spec: ModelSpec, s: Scenario, tokens: Num, name: str = "embed") -> Tensor:
    """Token rows, plus learned positions and an embedding norm where the model has them."""
    seg = Segment(builder, name, 1, s.formats)
    x = seg.lookup("tokens", tokens, (spec.vocab, spec.hidden), weight="embed.tokens.weight")
    inputs: tuple[Tensor, ...] = (x,)
    if spec.positions == "learned":
        rows = spec.position_rows or spec.max_positions or 0
        inputs = (*inputs, seg.lookup("positions", tokens, (rows, spec.hidden), shard="replicated"))
    if spec.token_types:
        inputs = (*inputs, seg.lookup("types", tokens, (spec.token_types, spec.hidden), shard="replicated"))
    if len(inputs) > 1:
        x = seg.vector("add", "add", inputs, (seg.like("add.out", x),))
    return seg.norm("norm", spec.norm, x, quantize=False)[0] if spec.embedding_norm else x


def head(builder: GraphBuilder, spec: ModelSpec, s: Scenario, state: State) -> Tensor:
    """Final norm of all tokens, then logits of the last position of each sequence."""
    seg = Segment(builder, "head", 1, s.formats)
    x = seg.norm("norm", spec.norm, *state, quantize=False)[0] if spec.final_norm else _sum(seg, state)
    last = Tensor(x.name, (s.batch, spec.hidden), x.format)
    name = "embed.tokens.weight" if spec.tied else "head.lm_head.weight"
    matrix = Tensor(name, (spec.hidden, spec.vocab), s.formats.wide, "weight")
    return seg.linear(
        "lm_head", last, spec.vocab, shard="vocab", bias=spec.vocab * ("head" in spec.biases), matrix=matrix
    )


def _sum(seg: Segment, state: State) -> Tensor:
    x, delta = state
    return x if delta is None else seg.vector("add", "add", (x, delta), (seg.like("add.out", x),))
