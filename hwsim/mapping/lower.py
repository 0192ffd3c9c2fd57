"""From operators and a mapping to tasks: tensor-parallel shards, the collectives they need, bytes by memory level.

Sharding follows Megatron-LM (Shoeybi et al., 2019): column-split then row-split GEMMs with one all-reduce a half
block; heads and KV heads split (KV heads fewer than ranks are replicated); vocabulary split for embedding and head.
Experts split by intermediate width (moe_tp) and by expert (moe_ep) inside the tensor group.

Traffic: weights, KV cache and recurrent state come from main memory; an activation is produced and consumed within
a few kernels, so up to the last-level cache's capacity of it stays there and only the excess reaches main memory
(optimistic replacement: the floor stays a floor; the calibrated kernel models know their own residency).
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hwsim.cost import registry
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Mapping, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph

# Convert and scale: two vector operations an element of a weight-only format (assumption: no lookup tables).
DEQUANT_OPS_PER_ELEMENT: Final = 2
# Formats name the vector work "vector/<dtype>"; 16-bit vector units are widened where a device has none.
_DEQUANT_DEMAND: Final = "vector/fp16"


@dataclass(frozen=True, slots=True)
class _Split:
    """Shares of one rank after splitting an operator."""

    dims: MappingType[str, Num]
    flop: float
    inputs: float
    weights: float
    outputs: float
    kv_cache: float = 1.0
    reduce: str = ""


def lower(graph: WorkloadGraph, platform: Platform, mapping: Mapping) -> MappedGraph:
    """Tasks of one device of the tensor group, in topological order.

    Raises
    ------
    InfeasibleError: a degree that does not divide what it splits, or more devices than the platform has.
    """
    _check_degrees(mapping, platform)
    layers = sum({o.segment: o.repeat for o in graph.operators if o.segment not in ("embed", "head")}.values())
    if mapping.pipeline_parallel > max(layers, 1):
        raise InfeasibleError(
            f"{mapping.pipeline_parallel} pipeline stages for {layers} layers leave some without any",
            where=graph.name,
            fix=f"use --pp {max(layers, 1)} or less",
        )
    tasks: list[Task] = []
    final: dict[str, str] = {}  # operator -> task whose end makes its output complete
    feeds: dict[str, list[str]] = {}
    for edge in graph.edges:
        feeds.setdefault(edge.target, []).append(edge.source)
    for operator in graph.operators:
        sharded, reduce = shard(operator, mapping)
        depends = tuple(dict.fromkeys(final[s] for s in feeds.get(operator.name, ()) if s in final))
        tasks.append(_task(sharded, platform, depends, mapping.operators.get(operator.name, {})))
        final[operator.name] = operator.name
        if reduce:
            collective = _collective(operator, sharded, reduce, mapping.tensor_parallel)
            tasks.append(_task(collective, platform, (operator.name,), {}))
            final[operator.name] = collective.name
    if mapping.pipeline_parallel > 1:
        tasks.append(_pipeline_send(graph, platform, mapping.pipeline_parallel, tasks[-1].name))
    mapped = MappedGraph(
        graph.name, graph.phase, platform, mapping, tuple(tasks), graph.tokens, graph.batch, layers, graph.notes
    )
    return registry.plan(mapped)


def _check_degrees(mapping: Mapping, platform: Platform) -> None:
    needed = mapping.tensor_parallel * mapping.pipeline_parallel
    if needed > platform.count:
        raise InfeasibleError(
            f"the mapping needs {needed} devices",
            where=platform.name,
            seen=f"{platform.count} available",
            fix="lower --tp or --pp",
        )
    if mapping.tensor_parallel % mapping.expert_parallel:
        raise InfeasibleError(
            "expert parallelism must divide tensor parallelism",
            seen=f"ep={mapping.expert_parallel}, tp={mapping.tensor_parallel}",
            fix="choose --ep among the divisors of --tp",
        )


def shard(operator: Operator, mapping: Mapping) -> tuple[Operator, str]:
    """One rank's share of an operator, and the collective that completes its output ("" for none)."""
    tp = mapping.tensor_parallel
    if tp == 1 and operator.kind != "moe":
        return operator, ""
    split = _split(operator, tp, mapping.expert_parallel)
    if split is None:
        return operator, ""
    shares = {"weight": split.weights, "kv_cache": split.kv_cache, "state": split.kv_cache}
    return replace(
        operator,
        dims={**operator.dims, **split.dims},
        flop=_times(operator.flop, split.flop),
        inputs=tuple(_scaled(t, shares.get(t.role, split.inputs)) for t in operator.inputs),
        outputs=tuple(_scaled(t, shares.get(t.role, split.outputs)) for t in operator.outputs),
    ), split.reduce


def _split(operator: Operator, tp: int, ep: int) -> _Split | None:
    dims, share = operator.dims, 1.0 / tp
    if operator.kind == "moe":
        _divide(operator, "experts", ep)
        _divide(operator, "inter", tp // ep)
        extra: dict[str, Num] = {"moe_tp": tp // ep, "moe_ep": ep}
        return _Split(extra, share, 1.0, share, 1.0, reduce="all_reduce" if tp > 1 else "")
    match operator.shard:
        case "column":
            return _Split({"n": _divide(operator, "n", tp)}, share, 1.0, share, share)
        case "row":
            return _Split({"k": _divide(operator, "k", tp)}, share, share, share, 1.0, reduce="all_reduce")
        case "heads":
            return _split_heads(operator, tp)
        case "elements":
            return _Split({"cols": dims["cols"] / tp}, share, share, share, share)
        case "vocab" if operator.kind == "gemm":
            return _Split({"n": -(-dims["n"] // tp)}, share, 1.0, share, share, reduce="all_gather")
        case "vocab":
            return _Split({}, share, 1.0, share, 1.0, reduce="all_reduce")
    return None


def _split_heads(operator: Operator, tp: int) -> _Split:
    share = 1.0 / tp
    if operator.kind == "vector" or operator.kind == "gemm":
        key = "cols" if operator.kind == "vector" else "batch"
        return _Split({key: operator.dims[key] / tp}, share, share, share, share)
    heads = _divide(operator, "n_heads", tp)
    kv_heads = int(operator.dims["n_kv_heads"])
    kv_local = max(-(-kv_heads // tp), 1)
    return _Split({"n_heads": heads, "n_kv_heads": kv_local}, share, share, share, share, kv_local / kv_heads)


def _divide(operator: Operator, key: str, parts: int) -> Num:
    value = operator.dims[key]
    if value % parts:
        raise InfeasibleError(
            f"{parts} ranks cannot share {key} = {value:g} of {operator.name} equally",
            where=operator.name,
            seen=f"remainder {value % parts:g}",
            fix=f"choose a degree that divides {value:g}",
        )
    return value // parts


def _scaled(tensor: Tensor, share: float) -> Tensor:
    """A tensor with `share` of the elements; the last axis carries the split."""
    if share == 1.0:
        return tensor
    return replace(tensor, shape=(*tensor.shape[:-1], _times(tensor.shape[-1], share)))


def _times(value: Num, share: float) -> Num:
    """`value` x `share`, an int where both are exact."""
    if isinstance(value, int):
        scaled = value * share
        parts = round(1 / share)
        return value // parts if abs(share * parts - 1) < 1e-12 and value % parts == 0 else scaled
    return value * share


def _collective(operator: Operator, sharded: Operator, op: str, ranks: int) -> Operator:
    """The collective after a split operator, on its full output (all_reduce) or the gathered one (all_gather)."""
    message = sum((t.moved_bytes for t in operator.outputs if t.role == "activation"), 0)
    return Operator(
        f"{operator.name}.{op}",
        "collective",
        op,
        {"bytes": message, "ranks": ranks},
        0,
        operator.dtype,
        segment=operator.segment,
        repeat=sharded.repeat,
    )


def _task(operator: Operator, platform: Platform, depends: tuple[str, ...], choice: MappingType[str, object]) -> Task:
    flop: dict[str, Num] = {operator.dtype: operator.flop}
    for weight in operator.weights:
        if weight.format.weight_only and operator.kind in ("gemm", "moe"):
            flop[_DEQUANT_DEMAND] = (
                flop.get(_DEQUANT_DEMAND, 0) + DEQUANT_OPS_PER_ELEMENT * weight.elements * weight.touched
            )
    return Task(
        name=operator.name,
        operator=operator,
        count=operator.repeat,
        flop=flop,
        traffic_bytes=traffic(operator, platform),
        depends=depends,
        choice=choice,
    )


def traffic(operator: Operator, platform: Platform) -> dict[str, Num]:
    """Bytes of one execution by memory level: everything at the last-level cache, misses at main memory."""
    device = platform.device
    main, cache = device.main_memory, device.last_level_cache
    resident = 0.0 if cache is None else cache.size_bytes
    far: Num = 0
    everything: Num = 0
    for tensor in (*operator.inputs, *operator.outputs):
        moved = tensor.moved_bytes
        everything = everything + moved
        far = far + (np.maximum(moved - resident, 0.0) if tensor.role == "activation" else moved)
    if operator.kind == "collective":
        return {}
    return {main.name: far} if cache is None else {main.name: far, cache.name: everything}


def _pipeline_send(graph: WorkloadGraph, platform: Platform, stages: int, after: str) -> Task:
    """Hand-over of the residual stream between stages, once for each boundary a micro-batch crosses."""
    block = [o for o in graph.operators if o.segment not in ("embed", "head")]
    message = max((t.moved_bytes for t in block[-1].outputs if t.role == "activation"), default=0)
    operator = Operator(
        "pipeline.send",
        "collective",
        "send_recv",
        {"bytes": message, "ranks": 2},
        0,
        block[-1].dtype,
        repeat=stages - 1,
    )
    return _task(operator, platform, (after,), {})
