"""Encoders: text (BERT) and images (ViT). One forward pass, no cache, every token sees every other."""

from __future__ import annotations

from hwsim.frontends.block import LayerKind, decoder_block
from hwsim.frontends.graph import GraphBuilder, Scenario, Segment
from hwsim.frontends.transformer import embed
from hwsim.ir.workload import Tensor
from hwsim.schema.model import ModelSpec, Vision

State = tuple[Tensor, Tensor | None]


def emit_encoder(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Embeddings, the blocks, and the pooler on the first token of each sequence."""
    _finish(builder, spec, s, _blocks(builder, spec, s, embed(builder, spec, s, s.tokens)), classes=0)
    return (spec.notes,) if spec.notes else ()


def emit_vision(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Patches, the blocks, final norm, and pooler or classifier on the class token."""
    vision = spec.vision
    assert vision is not None, "the schema gives every vision model this section"
    x = _patches(builder, spec, vision, s)
    _finish(builder, spec, s, _blocks(builder, spec, s, x), vision.classes)
    return (spec.notes,) if spec.notes else ()


def image_tokens(vision: Vision) -> int:
    """Patches of one image, and its class token."""
    return (vision.image_size // vision.patch) ** 2 + vision.class_token


def _patches(builder: GraphBuilder, spec: ModelSpec, vision: Vision, s: Scenario) -> Tensor:
    """A convolution whose stride is its kernel is a matrix multiply of (patches, channels patch^2)."""
    seg = Segment(builder, "embed", 1, s.formats)
    patches = image_tokens(vision) - vision.class_token
    pixels = seg.tensor("pixels", s.batch * patches, vision.channels * vision.patch**2)
    rows = seg.linear("patches", pixels, spec.hidden, shard="replicated", bias=spec.hidden)
    extra = image_tokens(vision) + vision.class_token
    added = seg.wide_weight("positions.weight", extra, spec.hidden)  # positions of all tokens, and the class token
    out = seg.tensor("positions.out", s.tokens, spec.hidden)
    return seg.vector("positions", "add", (rows, added), (out,))


def _blocks(builder: GraphBuilder, spec: ModelSpec, s: Scenario, x: Tensor) -> State:
    segment = Segment(builder, "block", spec.layers, s.formats)
    return decoder_block(segment, spec, LayerKind(0, False), (x, None), s)


def _finish(builder: GraphBuilder, spec: ModelSpec, s: Scenario, state: State, classes: int) -> None:
    seg = Segment(builder, "head", 1, s.formats)
    x = seg.norm("norm", spec.norm, *state, quantize=False)[0] if spec.final_norm else state[0]
    first = Tensor(x.name, (s.batch, spec.hidden), x.format)
    if spec.pooler or (spec.vision is not None and spec.vision.pooler):
        square = seg.wide_weight("pooler.weight", spec.hidden, spec.hidden)
        pooled = seg.linear("pooler", first, spec.hidden, shard="replicated", bias=spec.hidden, matrix=square)
        first = seg.vector("tanh", "tanh", (pooled,), (seg.like("tanh.out", pooled),))
    if classes:
        matrix = seg.wide_weight("classifier.weight", spec.hidden, classes)
        seg.linear("classifier", first, classes, shard="replicated", bias=classes, matrix=matrix)
