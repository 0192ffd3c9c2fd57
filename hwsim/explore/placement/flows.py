"""Tensors between operators of a graph with repeated layers, as flows of a placement problem."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsim.explore.placement.phases import PhaseGraph, is_carried, output_of
from hwsim.ir.workload import Operator
from hwsim.mapping.placement.problem import Flow


@dataclass(frozen=True, slots=True)
class Union:
    """Operators of all phases, in the order of execution; `index` by name."""

    operators: tuple[Operator, ...]
    index: dict[str, int]


def union_of(phases: list[PhaseGraph]) -> Union:
    """One list of operators: those of the largest graph; what only others have follows its predecessor there."""
    graphs = sorted((p.graph for p in phases), key=lambda g: -len(g.operators))
    order: list[Operator] = []
    for graph in graphs:
        known, at = {o.name for o in order}, 0
        for operator in graph.operators:
            if operator.name in known:
                at = next(i for i, o in enumerate(order) if o.name == operator.name) + 1
            else:
                order.insert(at, operator)
                at += 1
    return Union(tuple(order), {o.name: i for i, o in enumerate(order)})


def flows_of(union: Union, phases: list[PhaseGraph]) -> list[list[Flow]]:
    """The same list of flows for every phase, each with that phase's bytes of one execution (0 where absent).

    What leaves a repeated segment also enters the next layer: its operators with a carried input consume it.
    """
    shape: dict[tuple[int, str], Flow] = {}
    sizes: list[dict[tuple[int, str], float]] = [{} for _ in phases]
    for phase, size in zip(phases, sizes, strict=True):
        for edge in phase.graph.edges:
            source = phase.graph.operator(edge.source)
            tensor = output_of(source, edge.tensor)
            key = (union.index[edge.source], edge.tensor)
            shape[key] = _with_sink(union, shape.get(key, Flow(edge.tensor, key[0])), union.index[edge.target])
            size[key] = 0.0 if tensor is None else float(tensor.stored_bytes)
    shape = {key: _wrapped(union, flow) for key, flow in shape.items()}
    return [
        [
            replace(f, sent_bytes=s.get(k, 0.0), messages=float(k in s), live_bytes=s.get(k, 0.0))
            for k, f in shape.items()
        ]
        for s in sizes
    ]


def _with_sink(union: Union, flow: Flow, sink: int) -> Flow:
    source, target = union.operators[flow.source], union.operators[sink]
    if sink in (*flow.each, *flow.exits, *flow.everywhere):
        return flow
    if source.segment == target.segment:
        return replace(flow, each=(*flow.each, sink))
    if target.repeat == 1 or is_carried(target):
        return replace(flow, exits=(*flow.exits, sink))
    return replace(flow, everywhere=(*flow.everywhere, sink))


def _wrapped(union: Union, flow: Flow) -> Flow:
    source = union.operators[flow.source]
    if source.repeat == 1 or not flow.exits:
        return flow
    same = (at for at, o in enumerate(union.operators) if o.segment == source.segment and is_carried(o))
    return replace(flow, wraps=tuple(same))
