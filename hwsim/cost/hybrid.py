"""A GPU that streams its weights from the host while cache and attention stay on the CPU (MoE-Lens, arXiv 2504.09345).

- one pass over the weights takes delta = weight bytes / link rate, whatever the number of tokens
- a pass lasts max(delta, GPU compute, (cache + weight bytes) / host bandwidth): the three run side by side
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

from hwsim.cost.bracketed import bracketed
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline
from hwsim.units import gib

BAND: Final = 1.25
COMPUTE_EFFICIENCY: Final = 0.8  # of the matrix peak on large batches: as in the generic model, rounded up


def plan(graph: MappedGraph) -> MappedGraph:
    """Find the resource that binds the pass; each task then pays for that one. Raises InfeasibleError."""
    device = graph.platform.device
    o = device.extra.get("offload")
    if o is None:
        raise InfeasibleError(f"{device.name} has no offload section", fix="add offload: to its file")
    _require_host(graph, device, o)
    totals: dict[str, Num] = {}
    for task in graph.tasks:
        for name, seconds in _queues(task, device, o).items():
            totals[name] = totals.get(name, 0.0) + seconds * task.count
    binding = _binding(totals)
    return replace(graph, tasks=tuple(replace(t, choice={**t.choice, "binding": binding}) for t in graph.tasks))


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
    """Bracketed time of one execution: its share of the queue that binds the pass."""
    device, o = platform.device, platform.device.extra["offload"]
    queues = _queues(task, device, o)
    binding = task.choice.get("binding", {"link": 1.0})
    # a task pays for its share of the queue that binds the pass; that queue at datasheet rates is its floor
    paid = {name: queues[name] * chosen for name, chosen in binding.items()}
    floors = {name: _at_peak(name, seconds, device, o) for name, seconds in paid.items()}
    value = plain(sum(paid.values(), 0.0))
    energy = dynamic_energy_j(task, platform)
    return bracketed(value, queues, floors, BAND, energy_j=energy, model="hybrid")


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
    on_gpu = _busy(timelines[0], "gpu") / timelines[0].graph.tokens  # of one token
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


def _at_peak(queue: str, seconds: Num, device: Device, o: Mapping[str, Any]) -> Num:
    """The time in a queue at the datasheet rate of its resource."""
    share = {
        "link": o["link"] / o["link_peak"],
        "gpu": COMPUTE_EFFICIENCY,
        "host": o["host_bandwidth"] / device.main_memory.read_bytes_per_s,
    }
    return seconds * share[queue]


def _busy(timeline: Timeline, name: str) -> Num:
    return timeline.busy_s.get(name, 0.0)


def _queues(task: Task, device: Device, o: Mapping[str, Any]) -> dict[str, Num]:
    """Seconds of one execution on the link, the GPU and the host memory."""
    weights = sum((w.stored_bytes for w in task.operator.weights if task.kind in ("gemm", "moe")), 0)
    cached = sum((c.moved_bytes for c in task.operator.inputs if c.role == "kv_cache"), 0)
    peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute if c.dtype in ("fp16", "bf16"))
    on_cpu = task.kind == "attention_decode"
    return {
        "link": weights / o["link"],
        "gpu": 0.0 if on_cpu else task.operator.flop / (peak * COMPUTE_EFFICIENCY),
        "host": ((cached if on_cpu else 0) + weights) / o["host_bandwidth"],  # both leave the same memory
    }
