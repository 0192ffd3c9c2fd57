"""From operators and a mapping to tasks: tensor-parallel shards, the collectives they need, bytes by memory level.

Sharding follows Megatron-LM (Shoeybi et al., 2019): column-split then row-split GEMMs with one all-reduce a half
block; heads and KV heads split (KV heads fewer than ranks are replicated); vocabulary split for embedding and head.
Experts split by intermediate width (moe_tp) and by expert (moe_ep) inside the tensor group, or by expert over the
tensor groups of several data-parallel replicas (`hwsim.mapping.parallelism.experts`). With sequence parallelism the
residual stream between split operators is kept in rows (`hwsim.mapping.parallelism.sequence`).

Traffic: weights, KV cache and recurrent state come from main memory; an activation is produced and consumed within
a few kernels, so up to the last-level cache's capacity of it stays there and only the excess reaches main memory
(optimistic replacement: the floor stays a floor; the calibrated kernel models know their own residency).
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from hwsim.cost import registry
from hwsim.cost.roofline import largest
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Mapping, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph
from hwsim.mapping.parallelism.experts import exchanged_bytes, widened
from hwsim.mapping.parallelism.sequence import SequenceRegion
from hwsim.mapping.parallelism.topology import crossings, stride

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
    """Tasks of one device of one replica, in topological order.

    Raises
    ------
    InfeasibleError: a degree that does not divide what it splits, or more devices than the platform has.
    """
    _check_degrees(mapping, platform)
    layers = sum({o.segment: o.repeat for o in graph.operators if o.segment not in ("embed", "head")}.values())
    stages = np.max(mapping.pipeline_parallel)
    if stages > max(layers, 1):
        raise InfeasibleError(
            f"{stages} pipeline stages for {layers} layers leave some without any",
            where=graph.name,
            fix=f"use --pp {max(layers, 1)} or less",
        )
    stream = _Stream(platform, mapping, SequenceRegion(mapping.sequence_parallel))
    for edge in graph.edges:
        stream.feeds.setdefault(edge.target, []).append(edge.tensor)
    for operator in graph.operators:
        stream.add(operator)
    if stages > 1:
        stream.hand_over(graph)
    mapped = MappedGraph(
        graph.name, graph.phase, platform, mapping, tuple(stream.tasks), graph.tokens, graph.batch, layers, graph.notes
    )
    return registry.plan(mapped)


@dataclass(slots=True)
class _Stream:
    """The tasks so far. `ready` names, for every tensor, the task whose end makes it complete."""

    platform: Platform
    mapping: Mapping
    region: SequenceRegion
    tasks: list[Task] = field(default_factory=list)
    ready: dict[str, str] = field(default_factory=dict)
    feeds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, operator: Operator) -> None:
        """The operator's share and the collectives around it."""
        tp, ep = self.mapping.tensor_parallel, self.mapping.expert_parallel
        for tensor in self.region.missing(operator):
            self._gather(tensor, operator)
        depends = tuple(dict.fromkeys(self.ready[t] for t in self.feeds.get(operator.name, ()) if t in self.ready))
        wide = operator.kind == "moe" and ep > tp
        if wide:
            sent = exchanged_bytes(operator, operator.inputs[0], tp, ep)
            depends = (self._collective(operator, "dispatch", "all_to_all", (sent, ep), depends),)
        sharded, reduce = shard(operator, self.mapping)
        sharded = self.region.localize(sharded)
        self.tasks.append(_task(sharded, self.platform, depends, self.mapping.operators.get(operator.name, {})))
        last = self._wide_end(operator) if wide else self._reduce(operator, reduce)
        self.ready.update({t.name: last for t in operator.outputs})

    def _gather(self, tensor: Tensor, reader: Operator) -> None:
        after = (self.ready[tensor.name],) if tensor.name in self.ready else ()
        message = (tensor.moved_bytes, self.mapping.tensor_parallel)
        named = replace(reader, name=tensor.name)
        self.ready[tensor.name] = self._collective(named, "all_gather", "all_gather", message, after)

    def _reduce(self, operator: Operator, reduce: str) -> str:
        """Complete the partial sums of a split operator; in a sequence region every rank keeps its rows only."""
        if not reduce:
            return operator.name
        if reduce == "all_reduce" and self.region.ranks > 1:
            reduce = "reduce_scatter"
            self.region.leaves(operator)
        message = sum((t.moved_bytes for t in operator.outputs if t.role == "activation"), 0)
        return self._collective(operator, reduce, reduce, (message, self.mapping.tensor_parallel), (operator.name,))

    def _wide_end(self, operator: Operator) -> str:
        """Partial sums return to the ranks that own the tokens; the tensor group completes the rows."""
        tp, ep = self.mapping.tensor_parallel, self.mapping.expert_parallel
        back = exchanged_bytes(operator, operator.outputs[0], tp, ep)
        last = self._collective(operator, "combine", "all_to_all", (back, ep), (operator.name,))
        if self.region.ranks > 1:
            self.region.leaves(operator)
        elif tp > 1:
            message = operator.outputs[0].moved_bytes
            last = self._collective(operator, "all_gather", "all_gather", (message, tp), (last,))
        return last

    def _collective(
        self, around: Operator, name: str, op: str, message: tuple[Num, int], depends: tuple[str, ...]
    ) -> str:
        """Add the collective `around`.`name` of (bytes, ranks); returns its task name."""
        dims = {"bytes": message[0], "ranks": message[1]}
        operator = Operator(
            f"{around.name}.{name}",
            "collective",
            op,
            dims,
            0,
            around.dtype,
            segment=around.segment,
            repeat=around.repeat,
        )
        self.tasks.append(_task(operator, self.platform, depends, {}))
        return operator.name

    def hand_over(self, graph: WorkloadGraph) -> None:
        """Sends of the residual stream between stages, once for each boundary a micro-batch crosses.

        The ranks of a send are the devices that it spans: 2 inside a node, more than a node across.
        """
        stages, node = self.mapping.pipeline_parallel, self.platform.node_size
        block = [o for o in graph.operators if o.segment not in ("embed", "head")]
        sizes = {t.name: t.moved_bytes for t in block[-1].outputs if t.role == "activation"}
        message = largest(sizes) if sizes else 0
        message = message / self.region.ranks if self.region.ranks > 1 else message
        far = crossings(stages, stride(self.mapping), node) if self.platform.scale_out is not None else 0
        count: Any  # an array for a grid of stages
        for name, count, span in (("send", stages - 1 - far, 2), ("send_across", far, node + 1)):
            if np.any(count):
                around = replace(block[-1], name="pipeline", segment="block", repeat=count)
                self._collective(around, name, "send_recv", (message, span), (self.tasks[-1].name,))


def _check_degrees(mapping: Mapping, platform: Platform) -> None:
    tp, dp, ep = mapping.tensor_parallel, mapping.data_parallel, mapping.expert_parallel
    needed = np.max(tp * mapping.pipeline_parallel * dp)
    if needed > platform.count:
        raise InfeasibleError(
            f"the mapping needs {needed} devices",
            where=platform.name,
            seen=f"{platform.count} available",
            fix="lower --tp, --pp or --dp",
        )
    if mapping.sequence_parallel not in (1, tp):
        raise InfeasibleError("sequence parallelism uses the ranks of the tensor group", fix="sp = 1 or tp")
    if ep <= tp and tp % ep:
        raise InfeasibleError(
            "expert parallelism must divide tensor parallelism",
            seen=f"ep={ep}, tp={tp}",
            fix="choose --ep among the divisors of --tp",
        )
    if ep > tp and (ep % tp or np.any(dp % (ep // tp))):
        raise InfeasibleError(
            "an expert group wider than the tensor group takes whole tensor groups of the data-parallel replicas",
            seen=f"ep={ep}, tp={tp}, dp={dp}",
            fix="choose --ep so that it is --tp times a divisor of --dp",
        )


def shard(operator: Operator, mapping: Mapping) -> tuple[Operator, str]:
    """One rank's share of an operator, and the collective that completes its output ("" for none)."""
    tp = mapping.tensor_parallel
    if tp == 1 and operator.kind != "moe":
        return operator, ""
    if operator.kind == "moe" and mapping.expert_parallel > tp:
        _divide(operator, "experts", mapping.expert_parallel)
        return widened(operator, tp, mapping.expert_parallel), ""
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
