"""A GPU that streams its weights from the host while cache and attention stay on the CPU (MoE-Lens, arXiv 2504.09345).

- one pass over the weights takes delta = weight bytes / link rate, whatever the number of tokens
- a pass lasts max(delta, GPU work, (cache + weight bytes) / host bandwidth): the three run side by side
- GPU work of an operator = max(operations / peak of its unit, bytes / GPU memory); operators of the GPU follow one
  another, and what the pass waits beyond them is charged by their shares of the queue that binds it
- the GPU is busy once n >= (C_GPU / link) (experts / picked) tokens share a pass
- steady rate of a host full of requests: pages, with prompts and tokens in every pass, against the baseline that
  reserves for the longest request and takes prompts first (MoE-Lightning)

Formulas: docs/formulas/hybrid.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost.bracketed import Floors, bracketed, held
from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline
from hwsim.units import gib

BAND: Final = 1.25
COMPUTE_EFFICIENCY: Final = 0.8  # of the matrix peak on large batches: as in the generic model, rounded up
_AHEAD: Final = (
    "weights come over the link while earlier operators run: the whole pass waits for them, not this operator"
)
_HOST: Final = "the host works on caches and weights beside the GPU: the whole pass waits for it, not this operator"
_ON_CPU: Final = "decode attention runs on the CPU at the rate of the host memory, not on the GPU"


def plan(graph: MappedGraph) -> MappedGraph:
    """Find the resource that binds the pass and what the GPU waits for it. Raises InfeasibleError."""
    device = graph.platform.device
    o = device.extra.get("offload")
    if o is None:
        raise InfeasibleError(f"{device.name} has no offload section", fix="add offload: to its file")
    _require_host(graph, device, o)
    totals: dict[str, Num] = {}
    for task in graph.tasks:
        for name, seconds in _queues(task, graph.platform, o).items():
            totals[name] = totals.get(name, 0.0) + seconds * task.count
    idle = 1 - totals["gpu"] / np.maximum(largest(totals), 1e-300)  # share of the pass in which the GPU waits
    waits = {name: plain(chosen * idle) for name, chosen in _binding(totals).items() if name != "gpu"}
    return replace(graph, tasks=tuple(replace(t, choice={**t.choice, "waits": waits}) for t in graph.tasks))


def _binding(totals: Mapping[str, Num]) -> dict[str, Num]:
    """1 for the queue that binds the pass, 0 for the others; of a grid, point by point."""
    longest = np.argmax(np.stack(np.broadcast_arrays(*totals.values())), axis=0)
    return {name: plain(np.where(longest == index, 1.0, 0.0)) for index, name in enumerate(totals)}


def _require_host(graph: MappedGraph, device: Device, o: Mapping[str, Any]) -> None:
    """The host holds all weights. Raises InfeasibleError."""
    stored = {w.name: w.stored_bytes * t.count for t in graph.tasks for w in t.operator.weights}
    short = float(np.max(sum(stored.values(), 0))) - o["host_memory"]
    if short > 0:
        raise InfeasibleError(
            f"{graph.workload} needs {gib(short)} more than the host of {device.name} has",
            where="offload.host_memory",
            seen=f"weights {gib(short + o['host_memory'])} of {gib(o['host_memory'])}",
            fix="a smaller --weights format, or more offload.host_memory",
            budget={"short_bytes": short},
        )


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution: its work on the GPU and its share of what the pass waits beyond that."""
    o = platform.device.extra["offload"]
    queues = _queues(task, platform, o)
    waits = task.choice.get("waits", {"link": 1.0})
    value = plain(queues["gpu"] + sum((queues[name] * share for name, share in waits.items()), 0.0))
    energy = dynamic_energy_j(task, platform)
    return bracketed(value, queues, _floors(task, platform, o), BAND, energy_j=energy, model="hybrid")


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Figures of the performance model: tokens that saturate the GPU, pass time, capacity gain of paging."""
    first, last = timelines[0].graph, timelines[-1].graph
    device, o = last.platform.device, last.platform.device.extra["offload"]
    experts = next((t.operator.dims for t in last.tasks if t.kind == "moe"), {"experts": 1, "topk": 1})
    peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute if c.dtype in ("fp16", "bf16"))
    # an FMA counts as two operations and a weight has two bytes, so FLOP/s over B/s is tokens a pass
    tokens = peak / o["link_peak"] * experts["experts"] / experts["topk"]
    prompt = first.tokens / first.batch
    context = next((t.operator.dims["context"] for t in last.tasks if t.kind == "attention_decode"), prompt)
    cache = (
        sum((c.stored_bytes * t.count for t in last.tasks for c in t.operator.inputs if c.role == "kv_cache"), 0)
        / last.batch
    )
    output = np.maximum(2 * (context - prompt), 1)  # a sliding window shorter than the prompt hides the reply
    steady = _steady(timelines, prompt, output, cache / context) if np.all(np.asarray(cache) > 0) else {}
    return {
        "saturation_tokens": Bracket(plain(tokens)),
        "saturation_kv_bytes": Bracket(plain(tokens * cache)),
        "capacity_factor": Bracket(plain((prompt + output) / np.maximum(prompt + output / 2, 1))),
        "link_bytes_per_s": Bracket(o["link"]),
        "pass_time_s": Bracket(timelines[-1].time_s),
        "gpu_utilisation": Bracket(plain(_busy(timelines[-1], "gpu") / timelines[-1].time_s)),
        **{name: Bracket(plain(value)) for name, value in steady.items()},
    }


def _steady(timelines: Sequence[Timeline], prompt: Num, output: Num, token_bytes: Num) -> dict[str, Num]:
    """Requests that the host holds, share of the held cache in use, and generated tokens a second.

    lens: a request holds prompt + output/2 tokens on average; each pass brings a token of all of them and the prompts
    of those that took the place of finished ones. lightning: longest prompt + output is reserved, prompts run first.
    A pass lasts max(weights over the link, tokens on the GPU, cache on the host).
    """
    graph = timelines[-1].graph
    o = graph.platform.device.extra["offload"]
    stored = sum((w.stored_bytes * t.count for t in graph.tasks for w in t.operator.weights), 0)
    left = np.maximum(o["host_memory"] - stored, 0.0)
    room = np.minimum(left, o["kv_memory"] or np.inf) / token_bytes
    used, lens = prompt + output / 2, o["policy"] == "lens"
    held = used if lens else o["longest"] * prompt + output
    requests = room / held
    on_gpu = sum((_shared_s(t, graph.platform) * t.count for t in timelines[0].graph.tasks), 0.0)
    on_gpu = on_gpu / timelines[0].graph.tokens  # of one token
    sweep, host = _busy(timelines[-1], "link"), (requests * used * token_bytes + stored) / o["host_bandwidth"]
    fresh = requests * prompt / output if lens else 0.0
    step = np.maximum(np.maximum(sweep, (requests + fresh) * on_gpu), host)
    ahead = 0.0 if lens else np.maximum(sweep, requests * prompt * on_gpu)
    return {
        "host_requests": requests,
        "memory_utilisation": 1.0 if lens else (prompt + output) / held,
        "host_gpu_utilisation": (requests + fresh) * on_gpu / step,
        "host_tokens_per_s": requests * output / (ahead + output * step),
    }


def _floors(task: Task, platform: Platform, o: Mapping[str, Any]) -> Floors:
    """The datasheet of the GPU; the link and the host memory count in the floor of the whole pass."""
    main = platform.device.main_memory.name
    link = {"link": _streamed(task) / o["link_peak"]}
    beside = {"link": _AHEAD, main: _HOST}
    if not _on_cpu(task):
        return held(task, platform, link, beside=beside)
    on_gpu = [name for name in floor_parts(task, platform) if name != main]
    return held(task, platform, link, instead=dict.fromkeys(on_gpu, _ON_CPU), beside=beside)


def _shared_s(task: Task, platform: Platform) -> Num:
    """Work on the GPU that grows with the tokens of a pass: without reading the weights, which the pass does once."""
    if _on_cpu(task):
        return 0.0
    main, near = platform.device.main_memory.name, platform.device.last_level_cache
    parts = {name: s for name, s in floor_parts(task, platform).items() if name not in ("link", main)}
    if near is not None and near.name in parts:
        parts[near.name] = np.maximum(parts[near.name] - _streamed(task) / near.read_bytes_per_s, 0.0)
    return largest(parts) / COMPUTE_EFFICIENCY


def _busy(timeline: Timeline, name: str) -> Num:
    return timeline.busy_s.get(name, 0.0)


def _on_cpu(task: Task) -> bool:
    return task.kind == "attention_decode"


def _streamed(task: Task) -> Num:
    """Weight bytes that cross the link."""
    return sum((w.stored_bytes for w in task.operator.weights if task.kind in ("gemm", "moe")), 0)


def _queues(task: Task, platform: Platform, o: Mapping[str, Any]) -> dict[str, Num]:
    """Seconds of one execution on the link, the GPU and the host memory."""
    weights = _streamed(task)
    cached = sum((c.moved_bytes for c in task.operator.inputs if c.role == "kv_cache"), 0)
    beside = ("link", platform.device.main_memory.name)
    on_gpu = {name: s for name, s in floor_parts(task, platform).items() if name not in beside}
    return {
        "link": weights / o["link"],
        "gpu": 0.0 if _on_cpu(task) else largest(on_gpu) / COMPUTE_EFFICIENCY,
        "host": ((cached if _on_cpu(task) else 0) + weights) / o["host_bandwidth"],  # both leave the same memory
    }
