"""The discrete-event engine: a MappedGraph on named resources with streams, contention and overlap, in SimPy.

Tasks carry the times of the analytic engine. The part of a task's time that a resource is busy is the fraction of
that resource it uses while it runs, so tasks on different streams share bandwidth and units as they would on the
device. With one stream nothing contends and the result equals the analytic engine to 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.engine import analytic
from hwsim.engine.des_fluid import Job, Schedule, execute
from hwsim.errors import InputError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.result import Interval, TaskCost, Timeline

StreamOf = Callable[[Task], str]
_PRIVATE: Final = ("launch",)  # host-side time of a stream: not a shared resource


def one_stream(task: Task) -> str:
    """All tasks of a device in turn, as the analytic engine lays them."""
    return task.resource


def run(
    graph: MappedGraph,
    efficiency: str = "calibrated",
    *,
    stream_of: StreamOf = one_stream,
    capacity: Mapping[str, float] | None = None,
    check: bool = True,
) -> Timeline:
    """Simulate a phase.

    Parameters
    ----------
    graph: tasks of scalar scenarios in topological order.
    stream_of: stream of a task; tasks of one stream keep their order.
    capacity: resource -> share left to this graph (1 = all; 0.5 = half the SMs or a link shared with another job).

    Raises
    ------
    InputError: arrays in the graph, or streams whose order contradicts the dependencies.
    """
    reference = analytic.run(graph, efficiency, check=check)
    schedule, costs = simulate(reference, stream_of=stream_of, capacity=capacity)
    intervals = tuple(
        Interval(costs[span.job.name][0], costs[span.job.name][1], span.start_s, span.end_s) for span in schedule.spans
    )
    alone = float(reference.time_s) - float(reference.overhead_s)
    factor = schedule.makespan_s / alone if alone else 1.0
    return replace(
        reference,
        intervals=intervals,
        time_s=schedule.makespan_s + reference.overhead_s,
        low_s=(reference.low_s - reference.overhead_s) * factor + reference.overhead_s,
        high_s=(reference.high_s - reference.overhead_s) * factor + reference.overhead_s,
        busy_s=dict(schedule.busy_s) or reference.busy_s,
    )


def simulate(
    timeline: Timeline, *, stream_of: StreamOf = one_stream, capacity: Mapping[str, float] | None = None
) -> tuple[Schedule, dict[str, tuple[Task, TaskCost]]]:
    """The schedule of an analytic timeline's tasks, and each job's task and cost."""
    jobs, costs = [], {}
    for interval in timeline.intervals:
        task = interval.task
        jobs.append(job_of(task, interval.cost, stream_of(task)))
        costs[task.name] = (task, interval.cost)
    return execute(jobs, capacity), costs


def job_of(task: Task, cost: TaskCost, stream: str, *, name: str = "", scale: float = 1.0) -> Job:
    """All executions of a task as one job; `scale` stretches its work (a part of the batch, of the layers)."""
    seconds = _scalar(cost.time_s, task.name)
    use = {}
    for resource, part in cost.parts_s.items():
        if resource not in _PRIVATE and seconds > 0:
            use[resource] = min(1.0, _scalar(part, task.name) / seconds)
    return Job(name or task.name, seconds * task.count * scale, stream, use, task.depends)


def _scalar(value: Any, name: str) -> float:
    if np.ndim(value):
        raise InputError("the discrete-event engine takes one scenario, not a grid", where=name)
    return float(value)


def document(schedule: Schedule, title: str = "timeline") -> dict[str, Any]:
    """Plain data of a schedule (``hwsim/timeline@1``) for trace export and Gantt charts."""
    resources = sorted(schedule.busy_s)
    return {
        "schema": "hwsim/timeline@1",
        "title": title,
        "makespan_s": schedule.makespan_s,
        "critical_path_s": schedule.critical_path_s,
        "serial_s": schedule.serial_s,
        "utilization": {name: schedule.utilization(name) for name in resources},
        "intervals": [
            {
                "name": span.job.name,
                "stream": span.job.stream,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "use": dict(span.job.use),
            }
            for span in schedule.spans
        ],
    }
