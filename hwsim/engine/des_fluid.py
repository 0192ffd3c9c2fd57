"""Jobs on shared resources in SimPy: streams, dependencies, and bandwidth shared among what runs together.

A job alone takes `work_s` seconds and uses a fraction of each resource's capacity (bandwidth, SMs). Jobs that run
together progress at speeds x_i <= 1 such that no resource is used beyond its capacity; speeds are max-min fair
(progressive filling: all rise together until a resource is full, its users stop, the others rise on). As every
fraction is at most 1, the speeds of running jobs sum to at least 1, so the makespan never exceeds the serial sum,
and a job never runs faster than alone, so it never undercuts the critical path (LAW-8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import simpy

from hwsim import laws
from hwsim.errors import InputError, LawViolation

_EPSILON: Final = 1e-12  # relative: rounding of rates and work


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes
    ----------
    work_s: seconds alone on idle resources (>= 0).
    use: resource -> fraction of its capacity used while running alone, in [0, 1].
    stream: jobs of one stream run one after another in the order given.
    depends: names of jobs that must have ended.
    """

    name: str
    work_s: float
    stream: str = "device0"
    use: Mapping[str, float] = field(default_factory=dict)
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """When a job ran (seconds)."""

    job: Job
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Spans in order of completion; `busy_s` is capacity-seconds used by resource."""

    spans: tuple[Span, ...]
    makespan_s: float
    critical_path_s: float
    serial_s: float
    busy_s: Mapping[str, float]

    def utilization(self, resource: str) -> float:
        """Mean used share of a resource over the makespan."""
        return self.busy_s.get(resource, 0.0) / self.makespan_s if self.makespan_s else 0.0

    def span(self, name: str) -> Span:
        """The span of the job called `name`. Raises KeyError."""
        for item in self.spans:
            if item.job.name == name:
                return item
        raise KeyError(name)


def speeds(uses: Sequence[Mapping[str, float]], capacity: Mapping[str, float]) -> list[float]:
    """Max-min fair speeds of jobs with the given fractions; resources without a capacity have 1."""
    speed = [0.0] * len(uses)
    rising = set(range(len(uses)))
    left = {name: capacity.get(name, 1.0) for use in uses for name in use}
    while rising:
        demand = dict.fromkeys(left, 0.0)
        for i in rising:
            for name, share in uses[i].items():
                demand[name] += share
        step = min([1.0 - speed[i] for i in rising] + [left[n] / d for n, d in demand.items() if d > _EPSILON])
        step = max(step, 0.0)
        for i in rising:
            speed[i] += step
        full = set()
        for name, total in demand.items():
            left[name] -= step * total
            if total > _EPSILON and left[name] <= _EPSILON:
                full.add(name)
        rising = {
            i
            for i in rising
            if speed[i] < 1.0 - _EPSILON and not any(uses[i].get(name, 0.0) > _EPSILON for name in full)
        }
    return speed


class _System:
    """The running simulation: ready queues by stream, remaining work of what runs, one pending completion event."""

    def __init__(self, jobs: Sequence[Job], capacity: Mapping[str, float]) -> None:
        self.environment = simpy.Environment()
        self.capacity = capacity
        self.queues: dict[str, deque[Job]] = {}
        for job in jobs:
            self.queues.setdefault(job.stream, deque()).append(job)
        self.done: set[str] = set()
        self.running: dict[str, Job] = {}
        self.left: dict[str, float] = {}
        self.speed: dict[str, float] = {}
        self.start: dict[str, float] = {}
        self.spans: list[Span] = []
        self.busy: dict[str, float] = {}
        self.since_s = 0.0
        self.version = 0

    def run(self) -> None:
        self._dispatch()
        self.environment.run()

    def _dispatch(self) -> None:
        """Start the head of every idle stream whose dependencies are met, then plan the next completion."""
        active = {job.stream for job in self.running.values()}
        for stream, queue in self.queues.items():
            if stream not in active and queue and all(name in self.done for name in queue[0].depends):
                job = queue.popleft()
                self.running[job.name] = job
                self.left[job.name] = job.work_s
                self.start[job.name] = self.environment.now
        names = list(self.running)
        found = speeds([self.running[name].use for name in names], self.capacity)
        self.speed = dict(zip(names, found, strict=True))
        self._plan()

    def _plan(self) -> None:
        self.version += 1
        times = [self.left[name] / self.speed[name] for name in self.running if self.speed[name] > 0]
        if times:
            event = self.environment.timeout(min(times), value=self.version)
            event.callbacks.append(self._complete)

    def _complete(self, event: Any) -> None:
        if event.value != self.version:
            return
        now = self.environment.now
        elapsed = now - self.since_s
        ended = []
        for name, job in self.running.items():
            self.left[name] -= elapsed * self.speed[name]
            for resource, share in job.use.items():
                self.busy[resource] = self.busy.get(resource, 0.0) + share * elapsed * self.speed[name]
            if self.left[name] <= 1e-12 * max(job.work_s, now):
                ended.append(name)
        self.since_s = now
        for name in ended:
            job = self.running.pop(name)
            self.done.add(name)
            self.spans.append(Span(job, self.start[name], now))
        self._dispatch()


def execute(jobs: Iterable[Job], capacity: Mapping[str, float] | None = None) -> Schedule:
    """Run the jobs.

    Parameters
    ----------
    capacity: resource -> capacity, in units of what a job with fraction 1 uses (default 1: the whole device).

    Raises
    ------
    InputError: duplicate or unknown names, negative work, fractions outside [0, 1], a dependency cycle (also one
        made by the order of a stream). LawViolation: the makespan is outside its bracket (a bug).
    """
    work = list(jobs)
    _check(work)
    path, serial = critical_path_s(work), sum(job.work_s for job in work)
    system = _System(work, capacity or {})
    system.run()
    makespan = max((span.end_s for span in system.spans), default=0.0)
    if not capacity or min(capacity.values()) >= 1:
        laws.ordered("LAW-8", "the timeline", critical_path=path, makespan=makespan, serial_sum=serial)
    return Schedule(tuple(system.spans), makespan, path, serial, system.busy)


def critical_path_s(jobs: Sequence[Job]) -> float:
    """Longest chain of dependencies and stream order, each job at its time alone. Raises InputError for a cycle."""
    before: dict[str, list[str]] = {}
    last: dict[str, str] = {}
    for job in jobs:
        before[job.name] = [*job.depends, *([last[job.stream]] if job.stream in last else [])]
        last[job.stream] = job.name
    after: dict[str, list[str]] = {}
    for name, others in before.items():
        for other in others:
            after.setdefault(other, []).append(name)
    missing = {name: len(others) for name, others in before.items()}
    work = {job.name: job.work_s for job in jobs}
    ready = deque(name for name, count in missing.items() if not count)
    end: dict[str, float] = {}
    while ready:
        name = ready.popleft()
        end[name] = max((end[other] for other in before[name]), default=0.0) + work[name]
        for other in after.get(name, ()):
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)
    if len(end) < len(work):
        stuck = ", ".join(name for name in work if name not in end)
        raise InputError("jobs wait for each other", seen=stuck[:120], fix="remove the cycle of dependencies")
    return max(end.values(), default=0.0)


def _check(jobs: Sequence[Job]) -> None:
    names = {job.name for job in jobs}
    if len(names) != len(jobs):
        raise InputError("two jobs have one name", fix="give each job a name of its own")
    for job in jobs:
        missing = [name for name in job.depends if name not in names]
        if missing:
            raise InputError(f"job {job.name} depends on an unknown job", seen=missing[0])
        if not 0 <= job.work_s < float("inf"):
            raise InputError(f"job {job.name} needs a finite work of at least 0 s", seen=repr(job.work_s))
        if any(not 0 <= share <= 1 for share in job.use.values()):
            raise InputError(f"job {job.name} uses a fraction outside [0, 1]", seen=str(dict(job.use)))


def require_work_conserving(schedule: Schedule, tolerance: float = 1e-9) -> None:
    """LAW-8's other half: the makespan has no instant without a running job. Raises LawViolation."""
    clock = 0.0
    for span in sorted(schedule.spans, key=lambda s: s.start_s):
        if span.start_s > clock + tolerance * max(clock, 1e-12):
            raise LawViolation(
                "LAW-8: nothing runs although work is left", seen=f"idle from {clock} s to {span.start_s} s"
            )
        clock = max(clock, span.end_s)
