"""Multi-head latent attention (DeepSeek-V2 report, arXiv 2405.04434, sec. 2.1): two equal forms of one computation.

Prefill expands the latents to full keys and values (fewer operations a query-key pair). Decode absorbs the
expansion into the query and the output, so that attention runs on the latents themselves, as multi-query
attention with head_dim kv_lora + rope and v_head_dim kv_lora. Both hold the same weights.
"""

from __future__ import annotations

import numpy as np

from hwsim.frontends.attention import Heads, attention_kernel, cache_tensor
from hwsim.frontends.formats import compute_dtype
from hwsim.frontends.graph import Scenario, Segment
from hwsim.ir.workload import Operator, Tensor
from hwsim.schema.model import MLA, ModelSpec


def latent_attention(seg: Segment, spec: ModelSpec, x: Tensor, s: Scenario) -> Tensor:
    """The attention half of a block with latents on normalized `x`; returns the branch that joins the residual."""
    mla = spec.mla
    assert mla is not None, "only called for models with latents"
    queries = _queries(seg, spec, mla, x)
    latent = seg.linear("kv_a", x, mla.kv_lora_rank + mla.qk_rope_head_dim, shard="replicated")
    latent = _rotated_latent(seg, spec, mla, (latent, queries))
    form = _absorbed if s.phase == "decode" else _expanded
    return seg.linear("o_proj", form(seg, spec, mla, (queries, latent), s), spec.hidden, shard="row")


def cached_elements(mla: MLA) -> int:
    """Elements that one token leaves in the cache of one layer: the latent and one rotary key for all heads."""
    return mla.kv_lora_rank + mla.qk_rope_head_dim


def _queries(seg: Segment, spec: ModelSpec, mla: MLA, x: Tensor) -> Tensor:
    width = spec.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    if not mla.q_lora_rank:
        return seg.linear("q_proj", x, width)
    low = seg.linear("q_a", x, mla.q_lora_rank, shard="replicated")
    return seg.linear("q_b", seg.norm("q_a_norm", "rms_norm", low)[0], width)


def _rotated_latent(seg: Segment, spec: ModelSpec, mla: MLA, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Norm of the latent and rotation of the rotary parts, fused in one kernel over both."""
    latent, queries = inputs
    rows, width = latent.shape
    weight = seg.wide_weight("kv_a_norm.weight", mla.kv_lora_rank)
    out = seg.tensor("kv_a_norm.out", rows, width, seg.formats.activations)
    seg.vector("kv_a_norm", "rms_norm", (latent, weight), (out,))
    rotary = (spec.heads + 1) * mla.qk_rope_head_dim
    share = spec.heads * mla.qk_rope_head_dim / int(queries.shape[1])
    part = Tensor(queries.name, queries.shape, queries.format, touched=share)
    rotated = Tensor(f"{seg.name}.rope.out", out.shape, out.format)
    seg.vector("rope", "rope", (out, part), (rotated,), shard="heads", dims=(rows, rotary))
    return rotated


def _expanded(seg: Segment, spec: ModelSpec, mla: MLA, inputs: tuple[Tensor, Tensor], s: Scenario) -> Tensor:
    """Prefill: latents of cached and new tokens become keys and values of every head."""
    queries, latent = inputs
    width = spec.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    some_past = np.ndim(s.past_tokens) or s.past_tokens
    shape = (s.batch * s.past_tokens, mla.kv_lora_rank)
    past = (Tensor(f"{seg.name}.kv_cache", shape, seg.formats.kv_cache, "kv_cache"),) if some_past else ()
    used = Tensor(latent.name, (latent.shape[0], mla.kv_lora_rank), latent.format)
    expanded = seg.linear("kv_b", (used, *past), width)
    qk_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    heads = Heads(spec.heads, spec.heads, qk_dim, mla.v_head_dim, cached=0)
    written = cache_tensor(
        f"{seg.name}.kv_cache.new", (s.batch, s.q_tokens), cached_elements(mla), seg.formats.kv_cache
    )
    return attention_kernel(seg, heads, (queries, expanded, latent), s, written=(written,))


def _absorbed(seg: Segment, spec: ModelSpec, mla: MLA, inputs: tuple[Tensor, Tensor], s: Scenario) -> Tensor:
    """Decode: the expansion moves into the query (before) and the output (after the weighted sum of latents)."""
    queries, latent = inputs
    heads = Heads(spec.heads, 1, cached_elements(mla), mla.kv_lora_rank, cached=cached_elements(mla))
    absorbed = _per_head(seg, spec, "q_absorb", queries, (mla.qk_nope_head_dim, mla.kv_lora_rank))
    summed = attention_kernel(seg, heads, (absorbed, latent), s)
    return _per_head(seg, spec, "v_absorb", summed, (mla.kv_lora_rank, mla.v_head_dim))


def _per_head(seg: Segment, spec: ModelSpec, name: str, x: Tensor, shape: tuple[int, int]) -> Tensor:
    """A batched multiply, one (k, n) matrix a head; servers keep these two in 16 bits."""
    (k, n), rows = shape, x.shape[0]
    weight = seg.weight(f"{name}.weight", spec.heads, k, n)
    out = seg.tensor(f"{name}.out", rows, spec.heads * n, seg.formats.activations)
    seg.add(
        Operator(
            name=f"{seg.name}.{name}",
            kind="gemm",
            op="bmm",
            dims={"batch": spec.heads, "m": rows, "n": n, "k": k},
            flop=2 * spec.heads * rows * n * k,
            dtype=compute_dtype(weight.format, seg.formats.wide),
            inputs=(x, weight),
            outputs=(out,),
            shard="heads",
        )
    )
    return out
