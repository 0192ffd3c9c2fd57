"""Raw operators as workloads of the mapper: ``gemm:MxNxK``, ``bmm:BxMxNxK``, ``attention:BxHxQxKVxD[:causal]``.

The order is that of the mapping literature: Z[M,N] += A[M,K] B[K,N]. H is the number of heads, or ``H/G`` query heads
over KV heads; Q and KV are query positions and keys; D is the width of a head.
"""

from __future__ import annotations

import re
from typing import Final

from hwsim.errors import InputError
from hwsim.frontends.formats import Formats
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph

_NAME: Final = re.compile(r"(gemm|bmm):(\d{1,9}(?:x\d{1,9})*)\Z")
_AXES: Final = {"gemm": "MxNxK", "bmm": "BxMxNxK", "attention": "BxHxQxKVxD"}
_ATTENTION: Final = re.compile(
    r"attention:(\d{1,9})x(\d{1,9})(?:/(\d{1,9}))?x(\d{1,9})x(\d{1,9})x(\d{1,9})(:causal)?\Z"
)


def is_raw(name: str) -> bool:
    """Whether the name means a raw matrix multiply (well-formed or not)."""
    return name.partition(":")[0] in _AXES and ":" in name


def raw_graph(name: str, formats: Formats | None = None) -> WorkloadGraph:
    """The one-operator graph that ``gemm:MxNxK``, ``bmm:BxMxNxK`` or ``attention:...`` means (bf16 by default).

    Raises
    ------
    InputError: not of that form, or an extent of zero.
    """
    if name.startswith("attention:"):
        return _attention_graph(name, formats or Formats.of("bf16"))
    match = _NAME.match(name)
    extents = [int(v) for v in match[2].split("x")] if match else []
    kind = name.partition(":")[0]
    axes = _AXES.get(kind, _AXES["gemm"])
    if match is None or len(extents) != len(axes.split("x")) or min(extents) < 1:
        fix = f"write {kind}:{axes}, e.g. gemm:2048x12288x4096 or bmm:32x2048x2048x128"
        raise InputError("not a raw matrix multiply", where="WORKLOAD", seen=name[:80], fix=fix)
    batch, m, n, k = extents if kind == "bmm" else [1, *extents]
    used = formats or Formats.of("bf16")
    a = Tensor("op.a", (batch, m, k), used.activations)
    b = Tensor("op.b", (batch, k, n), used.weights, "activation" if kind == "bmm" else "weight")
    z = Tensor("op.z", (batch, m, n), used.wide)
    dims = {"batch": batch, "m": m, "n": n, "k": k}
    operator = Operator(name, "gemm", kind, dims, 2 * batch * m * n * k, used.activations.compute, (a, b), (z,))
    return WorkloadGraph(name, "forward", (operator,), tokens=m, batch=batch)


def _attention_graph(name: str, used: Formats) -> WorkloadGraph:
    match = _ATTENTION.match(name)
    numbers = [int(v) for v in match.groups()[:-1] if v is not None] if match else [0]
    if match is None or min(numbers) < 1:
        fix = f"write attention:{_AXES['attention']}[:causal], e.g. attention:1x32x2048x2048x128 or 1x32/8x1x4096x128"
        raise InputError("not a raw attention", where="WORKLOAD", seen=name[:80], fix=fix)
    batch, heads, queries, keys, width = (int(match[i]) for i in (1, 2, 4, 5, 6))
    kv_heads, causal = int(match[3] or heads), match[7] is not None
    if heads % kv_heads or (causal and queries > keys):
        fix = "KV heads divide the query heads, and a causal call has no more queries than keys"
        raise InputError("not a raw attention", where="WORKLOAD", seen=name[:80], fix=fix)
    prefix = keys - queries
    pairs = queries * prefix + queries * (queries + 1) // 2 if causal else queries * keys
    dims = {"batch": batch, "q_len": queries, "prefix": prefix, "n_heads": heads, "n_kv_heads": kv_heads,
            "head_dim": width, "v_head_dim": width, "window": 0, "causal": int(causal)}  # fmt: skip
    q, out = (Tensor(f"op.{t}", (batch, queries, heads * width), used.activations) for t in ("q", "out"))
    kv = tuple(Tensor(f"op.{t}", (batch, keys, kv_heads * width), used.kv_cache, "kv_cache") for t in ("k", "v"))
    flop = 4 * batch * heads * width * pairs
    operator = Operator(
        name, "attention_prefill", "attention", dims, flop, used.activations.compute, (q, *kv), (out,), shard="heads"
    )
    return WorkloadGraph(name, "forward", (operator,), tokens=batch * queries, batch=batch)
