"""Training step of a layout: memory, time and the search for the best layout.

Time. The forward pass of a micro-batch is priced by the ordinary engine; its backward pass is the forward pass by
kind of kernel times `BACKWARD`. A 1F1B pipeline takes (m + p - 1) slowest stages for m micro-batches of p stages
(Narayanan et al., arXiv 2104.04473), so the bubble is (p - 1) / (m + p - 1) of it. Gradients are reduced over the
replicas after it; the backward pass of the last micro-batch hides that much of it. Then the optimizer reads and
writes its state once.

Memory. Bytes a parameter in mixed precision with Adam: 2 weights + 2 gradients + 12 master copy and moments; ZeRO
stage 1, 2, 3 shares the last, the last two, all of them among the replicas (Rajbhandari et al., arXiv 1910.02054).
Activations: what the backward pass needs again, the inputs of every kernel, for the micro-batches in flight; full
recomputation keeps the input of each layer and pays one more forward pass (Korthikanti et al., arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import collectives
from hwsim.cost.peaks import compute_path
from hwsim.engine import analytic
from hwsim.engine.fit import device_weight_bytes
from hwsim.errors import InputError
from hwsim.ir.mapped import MappedGraph
from hwsim.ir.mapped import Mapping as Decision
from hwsim.ir.platform import Platform
from hwsim.ir.result import Timeline
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph
from hwsim.mapping.lower import lower
from hwsim.mapping.parallelism.layouts import Layout

Array = NDArray[np.float64]
# Backward over forward time: a multiply has two gradients of its own size; attention five multiplies after two
# (Dao, arXiv 2307.08691, sec. 3.1); a vector kernel reads the output's gradient too; collectives repeat
# (Megatron-LM's f and g are each other's gradient).
BACKWARD: Final[Mapping[str, float]] = {
    "gemm": 2.0, "moe": 2.0, "attention_prefill": 2.5, "vector": 2.0, "embedding": 1.0, "collective": 1.0,
}  # fmt: skip
# Mixed-precision Adam, bytes a parameter (Rajbhandari et al., arXiv 1910.02054, sec. 3.1).
WEIGHT_BYTES: Final = 2.0  # 16-bit copy
GRADIENT_BYTES: Final = 2.0  # 16-bit
STATE_BYTES: Final = 12.0  # 32-bit weights, momentum and variance
STEP_BYTES: Final = 30.0  # optimizer step: read gradient (2) and state (12), write state (12), weight (2), clear (2)
LOGIT_BYTES: Final = 6.0  # of one word score: 16 bits, and a 32-bit copy for the loss
ZERO: Final = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained: tokens a sequence, sequences an optimizer step, ZeRO stage, full recomputation or none."""

    seq: int
    global_batch: int
    zero: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        for name, value in (("seq", self.seq), ("global_batch", self.global_batch)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**7:
                raise InputError(f"{name} must be a whole number from 1 to 1e7", where=name, seen=str(value)[:40])
        if self.zero not in ZERO:
            raise InputError("ZeRO has the stages 0 (none), 1, 2 and 3", where="--zero", seen=str(self.zero))


@dataclass(frozen=True, slots=True)
class Pass:
    """One micro-batch through the whole model on one tensor group: seconds forward and backward, and sizes of a rank.

    `layer_bytes`: activations that one layer keeps; `input_bytes`: its input alone; `logit_bytes`: of the head.
    """

    forward_s: Array
    backward_s: Array
    layer_s: Array
    send_bytes: Array
    layer_bytes: Array
    input_bytes: Array
    logit_bytes: Array
    model_flop: Array
    layers: int
    graph: MappedGraph


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of a layout: seconds by part and bytes of one device."""

    layout: Layout
    micro_batch: int
    micro_batches: int
    pipeline_s: float
    bubble: float
    gradients_s: float
    optimizer_s: float
    state_bytes: float
    activation_bytes: float
    usable_bytes: float
    tokens: float
    model_flop: float
    peak_flop_per_s: float

    @property
    def time_s(self) -> float:
        return self.pipeline_s + self.gradients_s + self.optimizer_s

    @property
    def needed_bytes(self) -> float:
        return self.state_bytes + self.activation_bytes

    @property
    def flop_per_s_device(self) -> float:
        return self.model_flop / self.time_s / self.layout.devices


def training_graph(model: Any, micro_batch: Any, seq: int, formats: Any) -> WorkloadGraph:
    """The forward pass over whole sequences: as prefill, but no cache is written and every position has logits."""
    phase = "prefill" if "prefill" in model.phases else model.phases[0]
    graph = model.graph(phase, micro_batch, seq, 0, formats)
    operators = tuple(_all_positions(o, seq) if o.shard == "vocab" and o.kind == "gemm" else o for o in graph.operators)
    bare = tuple(replace(o, outputs=tuple(t for t in o.outputs if t.role != "kv_cache")) for o in operators)
    return replace(graph, operators=bare)


def _all_positions(operator: Operator, seq: int) -> Operator:
    """The output head for `seq` positions of every sequence instead of the last."""

    def longer(tensor: Tensor) -> Tensor:
        if tensor.role != "activation":
            return tensor
        return replace(tensor, shape=(tensor.shape[0] * seq, *tensor.shape[1:]))

    return replace(
        operator,
        dims={**operator.dims, "m": operator.dims["m"] * seq},
        flop=operator.flop * seq,
        inputs=tuple(longer(t) for t in operator.inputs),
        outputs=tuple(longer(t) for t in operator.outputs),
    )


def cost_pass(
    model: Any, platform: Platform, layout: Layout, micro_batch: Any, recipe: Recipe, formats: Any, efficiency: str
) -> Pass:
    """Price the passes of micro-batches (an array) on one tensor group. Raises InfeasibleError."""
    graph = training_graph(model, micro_batch, recipe.seq, formats)
    decision = Decision("roofline", layout.tp, 1, layout.ep, 1, layout.tp if layout.sp else 1)
    lowered = lower(graph, platform, decision)
    timeline = analytic.run(lowered, efficiency, check=False)
    forward, backward = _sums(timeline, lambda kind: 1.0), _sums(timeline, BACKWARD.__getitem__)
    block = forward["block"] + backward["block"] + (forward["block"] if recipe.recompute else 0.0)
    again = forward["block"] if recipe.recompute else 0.0
    residual = _residual(graph)
    size = residual.moved_bytes / (layout.tp if layout.sp else 1)
    logits = [o for o in graph.operators if o.shard == "vocab" and o.kind == "gemm"]
    scores = sum((o.dims["m"] * o.dims["n"] for o in logits), 0) * LOGIT_BYTES / layout.tp
    flop = 3 * sum((o.flop * o.repeat for o in graph.operators if o.unit == "tensor"), 0)

    def array(value: Any) -> Array:
        return np.asarray(value, dtype=float) + 0.0 * np.asarray(micro_batch, dtype=float)

    return Pass(
        array(forward["all"]),
        array(backward["all"] + again),
        array(block / lowered.layers),
        array(size),
        array(_kept_bytes(lowered, layout) / lowered.layers),
        array(size),
        array(scores),
        array(flop),
        lowered.layers,
        lowered,
    )


def _residual(graph: WorkloadGraph) -> Tensor:
    """The stream between layers: the last activation of the last block."""
    block = [o for o in graph.operators if o.segment not in ("embed", "head")]
    return next(t for t in block[-1].outputs if t.role == "activation")


def _kept_bytes(graph: MappedGraph, layout: Layout) -> Any:
    """Inputs of every kernel of the blocks on one rank, each tensor once.

    A fused residual sum and norm keeps the sum only. Rows that a sequence-parallel rank gathers are gathered again
    for the backward pass, so that it keeps its share.
    """
    gathered = {task.name.removesuffix(".all_gather") for task in graph.tasks if task.name.endswith(".all_gather")}
    kept: dict[str, Any] = {}
    for task in graph.tasks:
        operator = task.operator
        if operator.segment in ("embed", "head"):
            continue
        inputs = [t for t in operator.inputs if t.role == "activation"]
        for tensor in inputs[:1] if operator.op.endswith("_norm") else inputs:
            share = layout.tp if layout.sp and tensor.name in gathered else 1
            kept[tensor.name] = tensor.moved_bytes * task.count / share
    return sum(kept.values(), 0)


def _sums(timeline: Timeline, factor: Any) -> dict[str, Any]:
    """Seconds of all kernels and of those of blocks, each kind times its factor."""
    found: dict[str, Any] = {"all": 0.0, "block": 0.0}
    for interval in timeline.intervals:
        task = interval.task
        seconds = interval.cost.time_s * task.count * factor(task.kind)
        found["all"] = found["all"] + seconds
        if task.operator.segment not in ("embed", "head"):
            found["block"] = found["block"] + seconds
    return found


def step_of(one: Pass, at: int, layout: Layout, micro_batch: int, recipe: Recipe, platform: Platform) -> Step:
    """The optimizer step of a layout from the pass of its micro-batch (`at` in the arrays of `one`)."""
    count = recipe.global_batch // (layout.dp * micro_batch)
    whole = float(one.forward_s[at] + one.backward_s[at])
    per_stage = -(-one.layers // layout.pp)
    stage = max(whole / layout.pp, per_stage * float(one.layer_s[at]))
    send = 0.0
    if layout.pp > 1:
        spans = 2 if layout.tp * layout.pp <= platform.node_size else platform.node_size + 1
        send = 2 * float(collectives.time_s("send_recv", float(one.send_bytes[at]), spans, platform))
    parameters = _parameters(one.graph, layout.pp)
    last_backward = float(one.backward_s[at]) / layout.pp
    gradients = max(0.0, _gradient_s(parameters, layout, recipe, platform) - last_backward)
    shared = layout.dp if recipe.zero >= 1 else 1
    device = platform.device.main_memory
    optimizer = parameters / shared * STEP_BYTES / float(device.read_bytes_per_s)
    path = compute_path(platform.device, next(t.operator.dtype for t in one.graph.tasks if t.kind == "gemm"))
    return Step(
        layout,
        micro_batch,
        count,
        (count + layout.pp - 1) * (stage + send),
        (layout.pp - 1) / (count + layout.pp - 1),
        gradients,
        optimizer,
        parameters * bytes_per_parameter(recipe.zero, layout.dp),
        _activation_bytes(one, at, layout, count, recipe),
        float(device.size_bytes) * 0.95,
        float(recipe.global_batch) * recipe.seq,
        float(one.model_flop[at]) * count * layout.dp,
        float(path.peak_flop_per_s),
    )


def bytes_per_parameter(zero: int, replicas: int) -> float:
    """Bytes of weights, gradients and optimizer state of one parameter on one device of `replicas`."""
    parts = (STATE_BYTES, GRADIENT_BYTES, WEIGHT_BYTES)
    return sum(size / (replicas if zero >= stage else 1) for stage, size in enumerate(parts, start=1))


def _parameters(graph: MappedGraph, stages: int) -> float:
    """Parameters of the fullest device, from its stored 16-bit weights."""
    staged = replace(graph, mapping=replace(graph.mapping, pipeline_parallel=stages))
    return float(device_weight_bytes(staged)) / WEIGHT_BYTES


def _gradient_s(parameters: float, layout: Layout, recipe: Recipe, platform: Platform) -> float:
    """Reduce-scatter of gradients and all-gather of weights over the replicas; ZeRO 3 gathers once more."""
    if layout.dp == 1:
        return 0.0
    inside = layout.devices <= platform.node_size
    link = platform.scale_up if inside or platform.scale_out is None else platform.scale_out
    if link is None:
        return 0.0
    size = parameters * GRADIENT_BYTES
    once = float(collectives.link_time_s("reduce_scatter", size, layout.dp, link))
    return once * (3 if recipe.zero == 3 else 2)


def _activation_bytes(one: Pass, at: int, layout: Layout, count: int, recipe: Recipe) -> float:
    """The fuller of the first stage, with up to pp micro-batches in flight, and the last, with one and the scores."""
    layers = -(-one.layers // layout.pp)
    kept = float(one.input_bytes[at] if recipe.recompute else one.layer_bytes[at])
    working = float(one.layer_bytes[at]) if recipe.recompute else 0.0
    first = kept * layers * min(count, layout.pp) + working
    return max(first, kept * layers + working + float(one.logit_bytes[at]))
