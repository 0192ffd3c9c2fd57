"""Micro-benchmarks of a CUDA GPU through PyTorch: CUDA-graph replay over buffers rotated past the L2 cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hwsim.errors import InputError, MissingExtraError
from hwsim.validation.measure.timing import BATCHES, Sample, copies, summarize

BACKEND = "torch-engine"  # graph launch, weights rotated past L2: what a serving engine sees
BUDGET_BYTES = 8 << 30
REPLAYS = 20
GEMM_NK = ((1024, 1024), (4096, 1024), (1024, 4096), (4096, 4096), (12288, 4096), (4096, 12288), (32768, 4096))
GEMM_M = (1, 4, 16, 48, 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
HEADS = ((32, 32, 128), (32, 8, 128), (64, 8, 128), (16, 16, 64))
PREFILL = ((1, 512), (1, 2048), (1, 8192), (4, 1024), (16, 512))
DECODE = ((1, 512), (1, 8192), (8, 2048), (32, 1024), (64, 4096))
NORM_ROWS, NORM_COLS = (1, 16, 128, 1024, 8192), (1024, 4096, 8192)
MESSAGES = tuple(2**i for i in range(10, 29, 2))


def torch_module() -> Any:
    """PyTorch with a usable CUDA device. Raises MissingExtraError, InputError."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "cuda", "measuring a CUDA device") from None
    if not torch.cuda.is_available():
        raise InputError(
            "PyTorch sees no CUDA device", where="--target cuda", seen=f"torch {torch.__version__}",
            fix="run on a machine with a GPU and a CUDA build of PyTorch, or --target cpu",
        )  # fmt: skip
    return torch


def graph_sample(calls: list[Callable[[], object]]) -> Sample:
    """Seconds a call of a CUDA graph that holds each of `calls` once (its buffers rotate with it)."""
    torch = torch_module()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(BATCHES + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / (REPLAYS * len(calls)))
    return summarize(times[1:], REPLAYS * len(calls))


def gemm(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the GEMM schema for fp32 (no TF32), fp16 and bf16."""
    torch = torch_module()
    torch.backends.cuda.matmul.allow_tf32 = False
    names = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    for name, dtype in names.items():
        for n, k in GEMM_NK[::3] if quick else GEMM_NK:
            count = min(16, copies(n * k * dtype.itemsize, _l2_bytes(torch), BUDGET_BYTES))
            weights = [torch.randn(k, n, device="cuda", dtype=dtype) for _ in range(count)]
            for m in GEMM_M[::3] if quick else GEMM_M:
                a = torch.randn(m, k, device="cuda", dtype=dtype)
                found = graph_sample([partial(torch.matmul, a, w) for w in weights])
                shape = {"batch": 1, "m": m, "n": n, "k": k}
                yield {**_head(torch, device), "dtype_act": name, "dtype_weight": name, **shape, **_tail(found)}


def prefill(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the prefill schema: causal scaled-dot-product attention, bf16."""
    torch = torch_module()
    attend = torch.nn.functional.scaled_dot_product_attention
    for heads, kv_heads, dim in HEADS[:1] if quick else HEADS:
        for batch, length in PREFILL:
            q = torch.randn(batch, heads, length, dim, device="cuda", dtype=torch.bfloat16)
            k, v = (torch.randn(batch, kv_heads, length, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            found = graph_sample([partial(attend, q, k, v, is_causal=True, enable_gqa=heads != kv_heads)])
            shape = {"batch": batch, "seq_len": length, "prefix": 0}
            yield {**_head(torch, device), **_heads(heads, kv_heads, dim), **shape, **_tail(found)}


def decode(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the decode schema: one query a sequence over its cache, bf16."""
    torch = torch_module()
    attend = torch.nn.functional.scaled_dot_product_attention
    for heads, kv_heads, dim in HEADS[:1] if quick else HEADS:
        for batch, context in DECODE:
            q = torch.randn(batch, heads, 1, dim, device="cuda", dtype=torch.bfloat16)
            size = 4.0 * batch * kv_heads * context * dim
            caches = [
                [torch.randn(batch, kv_heads, context, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
                for _ in range(min(16, copies(size, _l2_bytes(torch), BUDGET_BYTES)))
            ]
            found = graph_sample([partial(attend, q, *c, enable_gqa=heads != kv_heads) for c in caches])
            shape = {"batch": batch, "context_len": context}
            yield {**_head(torch, device), **_heads(heads, kv_heads, dim), **shape, **_tail(found)}


def vector(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the vector schema: norms, softmax, activations, adds and copies of bf16."""
    torch = torch_module()
    F = torch.nn.functional
    for rows in NORM_ROWS[::2] if quick else NORM_ROWS:
        for cols in NORM_COLS:
            x, y = (torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            out, g = torch.empty_like(x), torch.ones(cols, device="cuda", dtype=torch.bfloat16)
            calls: dict[str, tuple[int, Callable[[], object]]] = {
                "layernorm": (1, partial(F.layer_norm, x, (cols,), g)),
                "softmax": (1, partial(torch.softmax, x, -1)),
                "gelu": (1, partial(F.gelu, x)),
                "add": (2, partial(torch.add, x, y)),
                "copy": (1, partial(out.copy_, x)),
            }
            for op, (inputs, call) in calls.items():
                size = 2 * rows * cols
                shape = {"rows": rows, "cols": cols, "bytes_read": inputs * size, "bytes_written": size}
                yield {**_head(torch, device), "op": op, "dtype": "bf16", **shape, **_tail(graph_sample([call]))}


def collective(device: str, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the collective schema over all visible GPUs by NCCL; nothing with a single GPU."""
    torch = torch_module()
    ranks = torch.cuda.device_count()
    for size in (MESSAGES[::3] if quick else MESSAGES) if ranks > 1 else ():
        buffers = [torch.ones(size // 2, device=f"cuda:{i}", dtype=torch.float16) for i in range(ranks)]
        times = []
        for _ in range(BATCHES + 1):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(REPLAYS):
                torch.cuda.nccl.all_reduce(buffers)
            end.record()
            for i in range(ranks):
                torch.cuda.synchronize(i)
            times.append(start.elapsed_time(end) * 1e-3 / REPLAYS)
        shape = {
            "topology": "single-node-nvswitch",
            "op": "all_reduce",
            "n_gpus": ranks,
            "bytes": size,
            "dtype": "fp16",
        }
        yield {**_head(torch, device), "backend": "nccl", **shape, **_tail(summarize(times[1:], REPLAYS))}


def _l2_bytes(torch: Any) -> float:
    return float(torch.cuda.get_device_properties(0).L2_cache_size)


def _heads(heads: int, kv_heads: int, dim: int) -> dict[str, Any]:
    head = {"n_heads": heads, "n_kv_heads": kv_heads, "head_dim": dim, "window": 0}
    return {"dtype": "bf16", "kv_dtype": "bf16", **head}


def _head(torch: Any, device: str) -> dict[str, Any]:
    return {"gpu": device, "backend": BACKEND, "version": str(torch.__version__)}


def _tail(found: Sample) -> dict[str, Any]:
    return {"latency_us": float(f"{found.median_s * 1e6:.5g}"), "spread_percent": float(f"{100 * found.spread:.3g}")}


FAMILIES = {
    "gemm": gemm,
    "attention_prefill": prefill,
    "attention_decode": decode,
    "vectorop": vector,
    "collective": collective,
}
"""File stem -> benchmark."""
