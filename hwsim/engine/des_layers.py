"""From a priced phase to jobs of the event engine, layer by layer: the input of every overlap technique.

A timeline folds equal layers into one task with a count. Overlap happens between neighbours, so here the layers are
laid out again: layer l of a block waits for the last operators of layer l - 1, inside a layer the graph's own
dependencies hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Final

from hwsim.engine.des import job_of
from hwsim.engine.des_fluid import Job
from hwsim.engine.des_patterns import pipeline, prefetched
from hwsim.errors import InputError, unknown_name
from hwsim.ir.mapped import Task
from hwsim.ir.result import Interval, Timeline

HOST: Final = "host"
STREAMS: Final = ("device", "links", "kinds")
_SEND: Final = "pipeline.send"


@dataclass(frozen=True, slots=True)
class Layout:
    """How jobs are laid on streams; jobs of one stream run in turn, jobs of different streams share resources.

    Attributes
    ----------
    streams: ``device`` (one for everything), ``links`` (collectives apart) or ``kinds`` (collectives apart, and
        decode attention, which waits on memory, apart from the rest).
    unit_share: fraction of the compute units that a collective occupies while it runs (its kernels' share of the
        SMs), in [0, 1).

    Raises
    ------
    UnknownNameError, InputError.
    """

    streams: str = "links"
    unit_share: float = 0.0

    def __post_init__(self) -> None:
        if self.streams not in STREAMS:
            raise unknown_name("stream layout", self.streams, STREAMS)
        if not 0 <= self.unit_share < 1:
            raise InputError("the collectives' share of the units must lie in [0, 1)", seen=str(self.unit_share))

    def stream_of(self, task: Task) -> str:
        """Name of the stream that runs a task."""
        if self.streams == "device":
            return task.resource
        if task.kind == "collective":
            return f"{task.resource}:link"
        apart = self.streams == "kinds" and task.kind == "attention_decode"
        return f"{task.resource}:memory" if apart else f"{task.resource}:compute"


def blocks(timeline: Timeline) -> list[tuple[Interval, ...]]:
    """Consecutive tasks of one block: same name prefix, same count."""
    keyed = groupby(timeline.intervals, key=lambda i: (i.task.name.partition(".")[0], i.task.count))
    return [tuple(group) for _, group in keyed]


def unfold(timeline: Timeline, part: str = "", layout: Layout | None = None) -> list[Job]:
    """Every execution of every task of a phase as a job, in order.

    Parameters
    ----------
    part: prefix of names, so that several parts of a batch can run together.

    Raises
    ------
    InputError: arrays in the timeline.
    """
    layout = layout or Layout()
    jobs = [Job(f"{part}{HOST}", float(timeline.overhead_s), HOST)]
    final: dict[str, str] = {}  # task -> its job in the last layer laid out
    sinks = [jobs[0].name]
    for block in blocks(timeline):
        inside = {interval.task.name for interval in block}
        for layer in range(block[0].task.count):
            here = [_laid(item, layer, part, layout, inside, final if not layer else {}, sinks) for item in block]
            jobs += here
            used = {name for job in here for name in job.depends}
            sinks = [job.name for job in here if job.name not in used]
        final |= {item.task.name: _name(part, item.task.name, item.task.count, item.task.count - 1) for item in block}
    return jobs


def _name(part: str, task: str, count: int, layer: int) -> str:
    return f"{part}{task}" if count == 1 else f"{part}{task}#{layer}"


def _laid(
    interval: Interval,
    layer: int,
    part: str,
    layout: Layout,
    inside: set[str],
    before: dict[str, str],
    sinks: Sequence[str],
) -> Job:
    """One execution: it waits for its own inputs; what enters the layer waits for the end of the one before."""
    task = interval.task
    own = [_name(part, name, task.count, layer) for name in task.depends if name in inside]
    outer = [before[name] for name in task.depends if name in before]
    entering = not outer and (len(own) < len(task.depends) or not task.depends)
    depends = dict.fromkeys((*own, *outer, *(sinks if entering else ())))
    name = _name(part, task.name, task.count, layer)
    job = job_of(task, interval.cost, layout.stream_of(task), name=name, scale=1 / task.count)
    units = {"compute": layout.unit_share} if task.kind == "collective" and layout.unit_share else {}
    use = {**job.use, **units}
    return replace(job, depends=tuple(depends), use=use)


def together(parts: Sequence[Timeline], layout: Layout | None = None) -> list[Job]:
    """Equal parts of a batch on common streams, so that one computes while another communicates or reads its cache.

    Each run of operators on one stream is followed there by the same run of the next part (the order of TokenWeave's
    splits and of NanoFlow's nano-batches). Streams share resources as fluids (`des_fluid`) with no interference beyond
    that, so the makespan is what perfect co-scheduling would reach. Each part reads the weights for itself.
    """
    laid = [_runs(unfold(timeline, f"{chr(97 + index)}:", layout)) for index, timeline in enumerate(parts)]
    return [job for same in zip_longest(*laid, fillvalue=()) for run in same for job in run]


def _runs(jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    return [tuple(group) for _, group in groupby(jobs, key=lambda job: job.stream)]


def _seconds(intervals: Sequence[Interval]) -> float:
    return sum(float(i.cost.time_s) * i.task.count for i in intervals)


def staged(timeline: Timeline, stages: int, micro_batches: int) -> list[Job]:
    """Micro-batches through the stages of a pipeline; `timeline` is the pass of one micro-batch through all of them.

    Layers are spread evenly; the first stage adds what comes before them, the last what comes after, so stages are
    uneven where the vocabulary head is heavy and the makespan lies above the even (m + p - 1)/p passes.
    """
    found = blocks(timeline)
    many = [i for i, block in enumerate(found) if block[0].task.count > 1]
    if stages < 2 or micro_batches < 1 or not many:
        raise InputError("a pipeline needs two stages, a micro-batch and layers", seen=f"{stages}, {micro_batches}")
    times = [sum(_seconds(found[i]) for i in many) / stages] * stages
    times[0] += sum(_seconds(block) for block in found[: many[0]]) + float(timeline.overhead_s)
    tail = [item for block in found[many[-1] + 1 :] for item in block]
    times[-1] += _seconds([item for item in tail if item.task.name != _SEND])
    hop_s = _seconds([item for item in tail if item.task.name == _SEND]) / (stages - 1)
    return [replace(job, use={job.stream: 1.0}) for job in pipeline([times] * micro_batches, hop_s)]


def offloaded(timeline: Timeline, link_bytes_per_s: float, depth: int) -> list[Job]:
    """Layers whose weights come over a host link while earlier layers compute (`des_patterns.prefetched`).

    Every weight of a layer is loaded, all experts too: the load starts before the router has spoken. Weights of what
    runs once (embedding, head) stay on the device. Devices of a tensor group each load their share.
    """
    if not link_bytes_per_s > 0 or depth < 1:
        raise InputError("prefetch needs a link with bandwidth and a depth of at least 1", seen=f"depth {depth}")
    layers: list[tuple[float, float]] = []
    rate = link_bytes_per_s * timeline.graph.mapping.tensor_parallel
    for block in blocks(timeline):
        count = block[0].task.count
        if count == 1:
            layers.append((_seconds(block), 0.0))
            continue
        weights = sum(float(weight.stored_bytes) for item in block for weight in item.task.operator.weights)
        layers += [(_seconds(block) / count, weights / rate)] * count
    return prefetched([time for time, _ in layers], [load for _, load in layers], depth=depth)
