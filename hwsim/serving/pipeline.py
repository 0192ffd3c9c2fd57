"""A replica whose layers are split over pipeline stages, with one micro-batch in flight a stage.

Micro-batches hold different requests, so decodes do not advance together and every iteration is one event. A
micro-batch is formed as soon as fewer are in flight than there are stages; stages serve them first come, first
served, so its end follows from the times at which the stages become free (the recurrence of a tandem queue).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hwsim.errors import InfeasibleError, LawViolation
from hwsim.serving.clock import BOUNDARY, Clock
from hwsim.serving.iteration_time import IterationTime
from hwsim.serving.kv import BlockPool
from hwsim.serving.record import Occupancy
from hwsim.serving.request import Request
from hwsim.serving.staged import Batch, StagedPolicy


class PipelineReplica:
    """Same duties as `Replica`; `stage_share` is the part of the iteration time that one stage takes."""

    def __init__(
        self,
        clock: Clock,
        time: IterationTime,
        policy: StagedPolicy,
        kv: BlockPool,
        cluster: Any,
        stages: int,
        stage_share: float | None = None,
    ) -> None:
        self.clock, self.time, self.policy, self.kv, self.cluster = clock, time, policy, kv, cluster
        self.index = 0
        self.share = 1 / stages if stage_share is None else stage_share
        self.stages = stages
        self.waiting: deque[Request] = deque()
        self.ready: list[Request] = []
        self.in_system = self.iterations = 0
        self.keep_partial = False
        self.gaps = cluster.record.gaps
        self.samples = Occupancy()
        self.busy_s = self.area = self.counted_s = 0.0
        self._in_flight = 0
        self._free_s = [0.0] * stages
        self._woken = False

    @property
    def kv_used(self) -> int:
        """Blocks in use."""
        return self.kv.fixed

    @property
    def decodes(self) -> int:
        return self.in_system - len(self.waiting)

    def accept(self, request: Request, now_s: float) -> None:
        """Queue a request that arrives now. Raises InfeasibleError where it can never fit."""
        if not self.kv.possible(request):
            raise InfeasibleError(f"{request!r} can never run: it needs more KV cache than the replica has")
        self.waiting.append(request)
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system += 1
        if self._in_flight < self.stages and not self._woken:
            self._woken = True
            self.clock.at(now_s, self._wake, None, BOUNDARY)

    def preempt(self, victim: Request) -> None:
        """The victim loses its cache and goes to the head of the queue."""
        self.kv.release(victim)
        victim.restart(victim.processed, keep_partial=self.keep_partial)
        self.waiting.appendleft(victim)

    def admit(self) -> Request:
        """Take the head of the queue and its memory."""
        request = self.waiting.popleft()
        self.kv.admit(request)
        return request

    def _wake(self, event: Any) -> None:
        self._woken = False
        self._form(self.clock.now)

    def _form(self, now_s: float) -> None:
        """Form micro-batches while a slot is free and there is work."""
        while self._in_flight < self.stages:
            batch = self.policy.form(self)
            if not batch:
                break
            self._launch(batch, now_s)
        if not self._in_flight and (self.waiting or self.ready):
            raise InfeasibleError(f"{(self.ready or self.waiting)[0]!r} waits at an idle replica that cannot run it")

    def _launch(self, batch: Batch, now_s: float) -> None:
        self._in_flight += 1
        decoding = [r for r, _ in batch if r.decoding]
        chunks = [(tokens, r.processed) for r, tokens in batch if not r.decoding]
        context = sum(r.processed for r in decoding)
        stage_s = self.time.iteration_s(len(decoding), context, chunks) * self.share
        end_s = now_s
        for stage in range(self.stages):
            end_s = max(end_s, self._free_s[stage]) + stage_s
            self._free_s[stage] = end_s
        self.busy_s += stage_s
        for request, _ in batch:
            if not request.scheduled:
                request.scheduled = True
                if not request.restarts:
                    self.cluster.record.scheduled_s[request.index] = now_s
        self.clock.at(end_s, self._batch_end, batch, BOUNDARY)

    def _batch_end(self, event: Any) -> None:
        now_s = self.clock.now
        self._in_flight -= 1
        self.iterations += 1
        gaps: Counter[float] = Counter()
        for request, tokens in event.value:
            if request.decoding:
                gaps[now_s - request.emitted_s] += 1
                request.emitted_s = now_s
            request.processed += tokens
            if request.processed == request.prefill:
                self._first_token(request, now_s)
            if request.processed >= request.total:
                self._finish(request, now_s)
            else:
                self.ready.append(request)
        for gap_s, count in gaps.items():
            self.gaps.add(gap_s, 0.0, 1, count)
        if now_s >= self.samples.due_s:
            self.samples.take(now_s, self)
        self._form(now_s)

    def _first_token(self, request: Request, now_s: float) -> None:
        request.processed += 1
        if request.emitted_s >= 0:
            self.gaps.add(now_s - request.emitted_s, 0.0, 1, 1)
            request.emitted_s = now_s
            return
        request.emitted_s = now_s
        self.cluster.record.first_s[request.index] = now_s

    def _finish(self, request: Request, now_s: float) -> None:
        self.kv.release(request)
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system -= 1
        self.cluster.on_finish(request, self, now_s)

    def check_empty(self) -> None:
        """LAW-7 after a run: nothing waits, runs or holds memory. Raises LawViolation."""
        self.kv.check()
        if self.in_system or self.waiting or self.ready or self.kv.holders:
            raise LawViolation(
                "LAW-7: a replica still holds requests", seen=f"{self.in_system} in replica {self.index}"
            )
