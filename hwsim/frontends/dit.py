"""Diffusion transformers with adaptive layer norm (DiT, arXiv 2212.09748): one denoising step of `batch` latents.

Each block turns the condition (time and class) into six vectors that scale, shift and gate its two halves.
Classifier-free guidance doubles the batch; a picture takes as many forward passes as its sampler has steps.
"""

from __future__ import annotations

from hwsim.frontends.attention import Heads, self_attention
from hwsim.frontends.ffn import feed_forward
from hwsim.frontends.graph import VECTOR_FLOP, GraphBuilder, Scenario, Segment
from hwsim.ir.workload import Tensor
from hwsim.schema.model import Diffusion, ModelSpec

_MODULATIONS = 6  # scale, shift and gate for each half (DiT sec. 3.2)


def latent_tokens(part: Diffusion) -> int:
    """Patches of one latent image."""
    return (part.latent_size // part.patch) ** 2


def emit_diffusion(builder: GraphBuilder, spec: ModelSpec, s: Scenario) -> tuple[str, ...]:
    """Patches, condition, the blocks, and the final layer that predicts noise (and its variance)."""
    part = spec.diffusion
    assert part is not None, "the schema gives every diffusion model this section"
    x, condition = _patches(builder, spec, part, s), _condition(builder, spec, part, s)
    seg = Segment(builder, "block", spec.layers, s.formats)
    residual, gated = _block(seg, spec, x, condition, s)
    _final(Segment(builder, "head", 1, s.formats), spec, part, (residual, gated, condition))
    return (spec.notes,) if spec.notes else ()


def _patches(builder: GraphBuilder, spec: ModelSpec, part: Diffusion, s: Scenario) -> Tensor:
    seg = Segment(builder, "embed", 1, s.formats)
    latent = seg.tensor("latent", s.tokens, part.channels * part.patch**2)
    x = seg.linear("patches", latent, spec.hidden, shard="replicated", bias=spec.hidden)
    positions = seg.wide_weight("positions.weight", latent_tokens(part), spec.hidden)
    return seg.vector("positions", "add", (x, positions), (seg.like("positions.out", x),))


def _condition(builder: GraphBuilder, spec: ModelSpec, part: Diffusion, s: Scenario) -> Tensor:
    """Sinusoidal time features through two layers, plus the class row (one more row for no class)."""
    seg = Segment(builder, "condition_embed", 1, s.formats)
    x = seg.tensor("frequencies", s.batch, part.frequency_dim)
    x = seg.linear("time1", x, spec.hidden, shard="replicated", bias=spec.hidden)
    x = seg.vector("silu", "silu", (x,), (seg.like("silu.out", x),))
    x = seg.linear("time2", x, spec.hidden, shard="replicated", bias=spec.hidden)
    inputs: tuple[Tensor, ...] = (x,)
    if part.classes:
        inputs = (x, seg.lookup("label", s.batch, (part.classes + 1, spec.hidden), shard="replicated"))
    return seg.vector("sum_silu", "silu", inputs, (seg.like("sum_silu.out", x, s.formats.activations),))


def _block(seg: Segment, spec: ModelSpec, x: Tensor, condition: Tensor, s: Scenario) -> tuple[Tensor, Tensor]:
    width = _MODULATIONS * spec.hidden
    modulation = seg.linear("modulation", condition, width, bias=width)
    carried = Tensor(f"{seg.name}.carried", x.shape, x.format)
    x, residual = _modulated(seg, "norm1", (x, carried, modulation))
    branch = self_attention(seg, spec, Heads.of(spec, causal=False), x, s)
    x, residual = _modulated(seg, "norm2", (residual, branch, modulation))
    return residual, feed_forward(seg, spec, x, spec.ffn)


def _modulated(seg: Segment, name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Gate and add the branch, normalize without weights, scale and shift: one fused kernel."""
    residual = seg.like(f"{name}.residual", inputs[0])
    out = seg.like(f"{name}.out", inputs[0], seg.formats.activations)
    cost = VECTOR_FLOP["layer_norm"] + VECTOR_FLOP["modulate"] + VECTOR_FLOP["gate_add"]
    seg.vector(name, "layer_norm", inputs, (out, residual), flop_per_element=cost)
    return out, residual


def _final(seg: Segment, spec: ModelSpec, part: Diffusion, inputs: tuple[Tensor, ...]) -> None:
    residual, branch, condition = inputs
    width = 2 * spec.hidden
    square = seg.wide_weight("modulation.weight", spec.hidden, width)
    modulation = seg.linear("modulation", condition, width, shard="replicated", bias=width, matrix=square)
    x, _ = _modulated(seg, "norm", (residual, branch, modulation))
    pixels = part.patch**2 * part.channels * (1 + part.learn_sigma)
    seg.linear(
        "pixels",
        x,
        pixels,
        shard="replicated",
        bias=pixels,
        matrix=seg.wide_weight("pixels.weight", spec.hidden, pixels),
    )
