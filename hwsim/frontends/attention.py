"""Attention of a block: fused QKV projection, rotary embedding, the kernel with its cache write, out projection.

Covers multi-head, grouped-query and multi-query attention, with full or sliding windows, causal or not.
Latent attention (MLA) is in `mla`, cross attention in `encdec`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.frontends.formats import compute_dtype
from hwsim.frontends.graph import Scenario, Segment, lesser
from hwsim.ir.numbers import Num
from hwsim.ir.workload import NumberFormat, Operator, Tensor
from hwsim.schema.model import ModelSpec


def causal_pairs(past: Num, q: Num, window: int = 0) -> Num:
    """Query-key pairs of `q` new tokens after `past` cached ones, each seeing itself and what is before it.

    Full: q past + q (q + 1) / 2. With a window W a query at position p sees min(p + 1, W) keys, so the count is
    S(past + q) - S(past) with S(n) = m (m + 1) / 2 + (n - m) W, m = min(n, W). Exact integers for scalars.
    """
    if window == 0:
        return q * past + q * (q + 1) // 2
    return _seen(past + q, window) - _seen(past, window)


def _seen(n: Num, window: int) -> Num:
    ramp = lesser(n, window)
    return ramp * (ramp + 1) // 2 + (n - ramp) * window


def visible(tokens: Num, window: int) -> Num:
    """Cached tokens that a layer keeps: all, or the last `window`."""
    return lesser(tokens, window) if window else tokens


@dataclass(frozen=True, slots=True)
class Heads:
    """Head configuration that an attention kernel sees. `cached` is what one token leaves in the cache (elements)."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    v_head_dim: int
    cached: int
    window: int = 0
    causal: bool = True
    kernel: str = "attention"

    @classmethod
    def of(cls, spec: ModelSpec, window: int = 0, causal: bool = True) -> Heads:
        cached = 2 * spec.kv_heads * spec.head_dim if causal else 0
        return cls(spec.heads, spec.kv_heads, spec.head_dim, spec.head_dim, cached, window, causal)

    @property
    def q_width(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def qkv_width(self) -> int:
        return self.q_width + self.n_kv_heads * (self.head_dim + self.v_head_dim)

    def flop(self, pairs: Num) -> Num:
        """Scores and weighted sum: 2 (d_qk + d_v) operations a query-key pair and head; softmax not counted."""
        return 2 * (self.head_dim + self.v_head_dim) * self.n_heads * pairs


def cache_tensor(name: str, rows: tuple[Num, Num], elements: int, fmt: NumberFormat) -> Tensor:
    """Cached keys and values of (sequences, tokens) rows."""
    return Tensor(name, (*rows, elements), fmt, "kv_cache")


def self_attention(
    seg: Segment, spec: ModelSpec, heads: Heads, x: Tensor, s: Scenario, position_bias: tuple[Tensor, ...] = ()
) -> Tensor:
    """The attention half of a block on normalized `x`; returns the branch that joins the residual.

    `position_bias` holds what the scores of every layer add (T5).
    """
    qkv = seg.linear("qkv", x, heads.qkv_width, shard="column", bias=_qkv_bias(spec, heads))
    qkv = _qk_norm(seg, spec, heads, qkv)
    if spec.positions == "rope":
        qkv = _rotate(seg, qkv, heads, spec.rotary_dim or heads.head_dim)
    extra = (seg.wide_weight("attention.sinks", spec.heads),) if spec.attention_sinks else position_bias
    if spec.positions == "relative_xl":
        extra = (*extra, _relative_projection(seg, spec, heads))
    out = attention_kernel(seg, heads, (qkv, *extra), s)
    return seg.linear("o_proj", out, spec.hidden, shard="row", bias=spec.hidden * ("out" in spec.biases))


def _relative_projection(seg: Segment, spec: ModelSpec, heads: Heads) -> Tensor:
    """Transformer-XL's matrix for relative positions (arXiv 1901.02860): its product with the fixed position table
    is a constant of the model, so inference keeps the matrix but does not move it."""
    return replace(seg.weight("relative_projection.weight", spec.hidden, heads.q_width), touched=0.0)


def _qkv_bias(spec: ModelSpec, heads: Heads) -> int:
    """Bias elements of the fused projection; ``qv`` leaves out the keys, whose bias a softmax cancels."""
    if "qkv" in spec.biases:
        return heads.qkv_width
    return heads.q_width + heads.n_kv_heads * heads.v_head_dim if "qv" in spec.biases else 0


def _qk_norm(seg: Segment, spec: ModelSpec, heads: Heads, qkv: Tensor) -> Tensor:
    """Norm of queries and keys, one weight a head dimension (``head``) or a whole projection (``full``)."""
    if spec.qk_norm == "none":
        return qkv
    kv_width = heads.n_kv_heads * heads.head_dim
    widths = (heads.q_width, kv_width) if spec.qk_norm == "full" else (heads.head_dim, heads.head_dim)
    fields = ("weight", "bias") if spec.qk_norm == "head_layer_norm" else ("weight",)
    weights = [seg.wide_weight(f"{side}_norm.{f}", n) for side, n in zip("qk", widths, strict=True) for f in fields]
    op = "layer_norm" if len(fields) == 2 else "rms_norm"
    return _in_place(seg, "qk_norm", op, qkv, heads.q_width + kv_width, tuple(weights))


def _rotate(seg: Segment, qkv: Tensor, heads: Heads, rotary_dim: int) -> Tensor:
    return _in_place(seg, "rope", "rope", qkv, (heads.n_heads + heads.n_kv_heads) * rotary_dim)


def _in_place(seg: Segment, name: str, op: str, x: Tensor, cols: int, weights: tuple[Tensor, ...] = ()) -> Tensor:
    """A vector kernel that rewrites `cols` of the columns of `x`; the rest stays where it is."""
    rows, width = x.shape
    touched = cols / width
    source = Tensor(x.name, x.shape, x.format, touched=touched)
    out = Tensor(f"{seg.name}.{name}.out", x.shape, x.format, touched=touched)
    seg.vector(name, op, (source, *weights), (out,), shard="heads", dims=(rows, cols))
    return Tensor(out.name, x.shape, x.format)


def attention_kernel(
    seg: Segment, heads: Heads, inputs: tuple[Tensor, ...], s: Scenario, written: tuple[Tensor, ...] = ()
) -> Tensor:
    """The fused attention kernel: reads cached keys and values, writes the new ones, returns (tokens, heads v_dim).

    `written` names cache writes beyond those of `heads.cached` (MLA's prefill writes latents it does not read).
    Decode reads `past` + 1 cached tokens (the new one included) and writes one; prefill reads the `past` cached
    tokens, takes the new ones from the projection and writes them. Windows cap what is read.
    """
    if s.phase == "decode":
        return _decode_kernel(seg, heads, inputs, s)
    rows = s.batch * s.q_tokens
    out = seg.tensor(f"{heads.kernel}.out", rows, heads.n_heads * heads.v_head_dim, seg.formats.activations)
    pairs = causal_pairs(s.past_tokens, s.q_tokens, heads.window) if heads.causal else s.q_tokens * s.context
    dims = _dims(heads, s, {"q_len": s.q_tokens, "prefix": s.past_tokens, "causal": int(heads.causal)})
    cached, new = _cache(seg, heads, s, visible(s.past_tokens, heads.window), s.q_tokens)
    tensors = ((*inputs, *cached), (out, *new, *written))
    return _kernel(seg, ("attention_prefill", heads.kernel), dims, heads.flop(pairs) * s.batch, tensors)


def _decode_kernel(seg: Segment, heads: Heads, inputs: tuple[Tensor, ...], s: Scenario) -> Tensor:
    out = seg.tensor(f"{heads.kernel}.out", s.tokens, heads.n_heads * heads.v_head_dim, seg.formats.activations)
    context = visible(s.context, heads.window)
    cached, written = _cache(seg, heads, s, context, s.q_tokens)
    dims = _dims(heads, s, {"context": context})
    return _kernel(
        seg,
        ("attention_decode", heads.kernel),
        dims,
        heads.flop(context) * s.tokens,
        ((*inputs, *cached), (out, *written)),
    )


def _dims(heads: Heads, s: Scenario, more: dict[str, Num]) -> dict[str, Num]:
    shape: dict[str, Num] = {"batch": s.batch, **more, "n_heads": heads.n_heads, "n_kv_heads": heads.n_kv_heads}
    return {**shape, "head_dim": heads.head_dim, "v_head_dim": heads.v_head_dim, "window": heads.window}


def _cache(
    seg: Segment, heads: Heads, s: Scenario, read: Num, new: Num
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Cache tensors (read, written); none where the block keeps no cache."""
    if heads.cached == 0:
        return (), ()
    fmt, name = seg.formats.kv_cache, f"{seg.name}.kv_cache"
    past = (cache_tensor(name, (s.batch, read), heads.cached, fmt),) if np.ndim(read) or read else ()
    return past, (cache_tensor(f"{name}.new", (s.batch, new), heads.cached, fmt),)


def _kernel(
    seg: Segment,
    kind: tuple[Any, str],
    dims: dict[str, Num],
    flop: Num,
    tensors: tuple[tuple[Tensor, ...], tuple[Tensor, ...]],
) -> Tensor:
    inputs, outputs = tensors
    wide = seg.formats.wide
    # Kernels multiply 16-bit queries with keys expanded to the wider of the two formats
    dtype = compute_dtype(seg.formats.kv_cache, wide)
    seg.add(
        Operator(
            name=f"{seg.name}.{kind[1]}",
            kind=kind[0],
            op="attention",
            dims=dims,
            flop=flop,
            dtype=dtype,
            inputs=inputs,
            outputs=outputs,
            shard="heads",
        )
    )
    return outputs[0]
