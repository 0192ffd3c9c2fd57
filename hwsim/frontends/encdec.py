"""Encoder-decoders (T5, Whisper). Prefill runs the encoder, fills the cross-attention cache and reads the prompt.

Text models (T5) give the prompt to the encoder: the decoder's prefill is its one start token. Speech models
have an encoder input of fixed length, and the prompt goes to the decoder. Decode reads keys and values of the source
from the cache, so the encoder does not appear in it.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.frontends.attention import Heads, attention_kernel, cache_tensor, self_attention
from hwsim.frontends.block import State, carried
from hwsim.frontends.ffn import feed_forward
from hwsim.frontends.graph import GraphBuilder, Scenario, Segment, lesser
from hwsim.frontends.transformer import embed, head
from hwsim.ir.workload import Tensor
from hwsim.schema.model import EncoderPart, ModelSpec

# Whisper reads two spectrogram frames for each encoder position: its second convolution has stride 2
_FRAMES_PER_POSITION = 2
_CONV_KERNEL = 3
_STEM = "encoder_embed"


def emit_encoder_decoder(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Encoder (prefill only), then the decoder with self and cross attention, and the output head."""
    part = spec.encoder
    assert part is not None, "the schema gives every encoder-decoder this section"
    source = _encode(builder, spec, part, s) if s.phase == "prefill" else None
    inner = replace(s, q_tokens=1, past_tokens=0) if s.phase == "prefill" and part.tokens is None else s
    x = embed(builder, spec, inner, inner.tokens, "decoder_embed")
    bias = _position_bias(Segment(builder, "decoder_embed", 1, s.formats), spec)
    seg = Segment(builder, "decoder", spec.layers, s.formats)
    state = _decoder_block(seg, spec, carried(seg, (x, None)), (source, bias), inner)
    head(builder, spec, s, state)
    return (spec.notes,) if spec.notes else ()


def _position_bias(seg: Segment, spec: ModelSpec) -> tuple[Tensor, ...]:
    """Relative position bias (T5): one table for a whole stack, looked up once a pass."""
    if spec.positions != "relative":
        return ()
    return (
        seg.lookup("position_bias", spec.position_buckets, (spec.position_buckets, spec.heads), shard="replicated"),
    )


def _encode(builder: GraphBuilder, spec: ModelSpec, part: EncoderPart, s: Scenario) -> Tensor:
    """The encoder stack on the source; returns its normalized output (batch x source rows)."""
    inner = replace(s, phase="forward", q_tokens=s.source_tokens, past_tokens=0)
    x = _spectrogram(builder, spec, part, inner) if part.mel_bins else embed(builder, spec, inner, inner.tokens, _STEM)
    bias = _position_bias(Segment(builder, _STEM, 1, s.formats), spec)
    seg = Segment(builder, "encoder", part.layers, s.formats)
    heads = Heads.of(spec, causal=False)
    x, residual = seg.norm("norm1", spec.norm, *carried(seg, (x, None)))
    branch = self_attention(seg, spec, heads, x, inner, bias)
    x, residual = seg.norm("norm2", spec.norm, residual, branch)
    state = (residual, feed_forward(seg, spec, x, spec.ffn))
    return Segment(builder, "encoder_head", 1, s.formats).norm("norm", spec.norm, *state)[0]


def _spectrogram(builder: GraphBuilder, spec: ModelSpec, part: EncoderPart, s: Scenario) -> Tensor:
    """Two convolutions of kernel 3 as matrix multiplies over gathered frames, then fixed positions."""
    seg = Segment(builder, _STEM, 1, s.formats)
    frames = seg.tensor("frames", s.tokens * _FRAMES_PER_POSITION, _CONV_KERNEL * part.mel_bins)
    x = seg.linear("conv1", frames, spec.hidden, shard="replicated", bias=spec.hidden)
    x = seg.vector("gelu1", "gelu", (x,), (seg.like("gelu1.out", x),))
    gathered = Tensor(x.name, (s.tokens, _CONV_KERNEL * spec.hidden), x.format)
    x = seg.linear("conv2", gathered, spec.hidden, shard="replicated", bias=spec.hidden)
    positions = seg.wide_weight("positions.weight", part.tokens or 0, spec.hidden)
    return seg.vector("gelu2", "gelu", (x, positions), (seg.like("gelu2.out", x),))


def _decoder_block(
    seg: Segment, spec: ModelSpec, state: State, given: tuple[Tensor | None, tuple[Tensor, ...]], s: Scenario
) -> State:
    """Self attention, cross attention, feed-forward; `given` is (encoder output or None, position bias)."""
    source, bias = given
    x, residual = seg.norm("norm1", spec.norm, *state)
    branch = self_attention(seg, spec, Heads.of(spec), x, s, bias)
    x, residual = seg.norm("norm_cross", spec.norm, residual, branch)
    x, residual = seg.norm("norm2", spec.norm, residual, _cross_attention(seg, spec, x, source, s))
    return residual, feed_forward(seg, spec, x, spec.ffn)


def _cross_attention(seg: Segment, spec: ModelSpec, x: Tensor, source: Tensor | None, s: Scenario) -> Tensor:
    """Queries from the decoder, keys and values from the source: computed in prefill, read from the cache in decode."""
    kv_width = 2 * spec.kv_heads * spec.head_dim
    q_width = spec.heads * spec.head_dim
    has_bias = "qv" in spec.biases or "qkv" in spec.biases
    queries = seg.linear("cross_q", x, q_width, bias=q_width * has_bias)
    keys, written = _cross_keys(seg, spec, source, s, kv_width)
    heads = replace(Heads.of(spec, causal=False), kernel="cross_attention")
    seen = replace(s, past_tokens=s.source_tokens - lesser(s.q_tokens, s.source_tokens))
    out = attention_kernel(seg, heads, (queries, keys), seen, written)
    return seg.linear("cross_o", out, spec.hidden, shard="row", bias=spec.hidden * ("out" in spec.biases))


def _cross_keys(
    seg: Segment, spec: ModelSpec, source: Tensor | None, s: Scenario, width: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Keys and values of the source, and the cache write that goes with computing them.

    In decode the projection is not run, yet its weights belong to the model; only prefill graphs hold all weights.
    """
    cache = cache_tensor(f"{seg.name}.cross_cache", (s.batch, s.source_tokens), width, seg.formats.kv_cache)
    if source is None:
        return cache, ()
    bias = width if "qkv" in spec.biases else (width // 2 if "qv" in spec.biases else 0)
    return seg.linear("cross_kv", source, width, bias=bias), (cache,)
