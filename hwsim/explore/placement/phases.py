"""Graphs of a request by phase, how often each runs, and what operators keep in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwsim.cost.memory import MAX_STEP_TOKENS
from hwsim.engine.estimate import Model
from hwsim.errors import InputError, unknown_name
from hwsim.frontends.formats import Formats
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph


@dataclass(frozen=True, slots=True)
class Request:
    """What runs: sequences, tokens, and the phase of interest ("" for a whole request)."""

    batch: int = 1
    prompt: int = 512
    output: int = 128
    phase: str = ""


@dataclass(frozen=True, slots=True)
class PhaseGraph:
    """A phase's graph and its executions in a request."""

    name: str
    graph: WorkloadGraph
    count: float


def check_request(request: Request) -> None:
    """Raise InputError for sizes that mean nothing."""
    for name in ("batch", "prompt", "output"):
        value = getattr(request, name)
        if not 1 <= value <= 10**9:
            raise InputError(f"--{name} must be a whole number from 1 to 1e9", where=f"--{name}", seen=str(value))


def phase_graphs(model: Model, request: Request, formats: Formats) -> list[PhaseGraph]:
    """The phases of a request: prefill once, decode for every further token at the mean context (or forward once).

    Raises UnknownNameError for a phase that the model has not.
    """
    if request.phase and request.phase not in model.phases:
        raise unknown_name("phase", request.phase, model.phases, where="--phase")
    if "forward" in model.phases:
        return [PhaseGraph("forward", model.graph("forward", request.batch, request.prompt, 0, formats), 1.0)]
    steps = max(request.output - 1, 0)
    found = [
        PhaseGraph("prefill", _graph(model, "prefill", request, 0, formats), 1.0),
        PhaseGraph("decode", _graph(model, "decode", request, max(request.output / 2, 1) - 1, formats), float(steps)),
    ]
    if request.phase:
        return [PhaseGraph(p.name, p.graph, 1.0) for p in found if p.name == request.phase]
    return [p for p in found if p.count > 0]


def _graph(model: Model, phase: str, request: Request, generated: float, formats: Formats) -> WorkloadGraph:
    source = getattr(model, "prompt_is_source", False)  # the prompt feeds an encoder: the cache holds generated tokens
    if phase == "prefill":
        return model.graph(phase, request.batch, request.prompt, 0, formats, request.prompt if source else None)
    past = generated if source else request.prompt + generated
    past = int(past) if float(past).is_integer() else past
    return model.graph(phase, request.batch, 1, past, formats, request.prompt if source else None)


def cache_bytes(model: Model, request: Request, formats: Formats) -> dict[str, float]:
    """Bytes of cache and state by operator at the end of the request, one layer."""
    if "forward" in model.phases:
        return {}
    graph = _graph(model, "decode", request, request.output - 1, formats)
    return {o.name: sum(_cached(o)) for o in graph.operators}


def _cached(operator: Operator) -> list[float]:
    return [float(t.stored_bytes) for t in operator.inputs if t.role in ("kv_cache", "state")]


def activation_reserve(phases: list[PhaseGraph]) -> float:
    """Bytes to keep free on every device: the largest operator's activations, long prefills chunked as servers do."""
    most = 0.0
    for phase in phases:
        graph = phase.graph
        together = min(1.0, max(MAX_STEP_TOKENS / max(float(graph.tokens), 1.0), 1.0 / float(graph.batch)))
        peak = max(float(o.moved_bytes("activation")) for o in graph.operators)
        most = max(most, peak * together)
    return most


def output_of(operator: Operator, name: str) -> Tensor | None:
    """The output tensor called `name`."""
    return next((t for t in operator.outputs if t.name == name), None)


def is_carried(operator: Operator) -> bool:
    """Whether the operator takes what the layer before it hands on."""
    return any(t.name == f"{operator.segment}.carried" for t in operator.inputs)


def stored_weights(operator: Operator) -> dict[str, float]:
    """Bytes of the weights of one layer by name."""
    return {str(t.name): float(t.stored_bytes) for t in operator.weights}


def formats_of(names: dict[str, Any]) -> Formats:
    """Formats from names by role; absent ones follow the weights."""
    return Formats.of(names["weights"], names.get("activations"), names.get("kv_cache"))
