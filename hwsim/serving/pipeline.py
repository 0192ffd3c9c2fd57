"""A replica whose layers are split over pipeline stages, with one micro-batch in flight a stage.

Micro-batches hold different requests, so decodes do not advance together and every iteration is one event. A
micro-batch is formed as soon as fewer are in flight than there are stages; stages serve them first come, first
served, so its end follows from the times at which the stages become free (the recurrence of a tandem queue).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hwsim.errors import InfeasibleError
from hwsim.serving.clock import BOUNDARY, Clock
from hwsim.serving.iteration_time import IterationTime
from hwsim.serving.kv import BlockPool
from hwsim.serving.prefix import PrefixCache
from hwsim.serving.queues import make_queue
from hwsim.serving.record import Occupancy
from hwsim.serving.request import Request
from hwsim.serving.staged import Batch, StagedPolicy
from hwsim.serving.staged_moves import Flight, StagedMoves


class PipelineReplica(StagedMoves):
    """Same duties as `Replica`; `stage_share` is the part of the iteration time that one stage takes.

    Attributes
    ----------
    ready: admitted requests that are in no micro-batch, in the order in which they ended their last one.
    flying: micro-batches on their way. A number that is missing there belongs to one that a failure broke.
    """

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
        self.waiting: Any = make_queue("fcfs")
        self.ready: list[Request] = []
        self.flying: dict[int, Flight] = {}
        self.in_system = self.iterations = 0
        self.keep_partial = False
        self.gaps = cluster.record.gaps
        self.samples = Occupancy()
        self.prefix: PrefixCache | None = None
        self.load_s = 0.0
        self.busy_s = self.area = self.counted_s = 0.0
        self._formed = 0
        self._free_s = [0.0] * stages
        self._woken = False
        self._actions: dict[int, Any] = {}

    def accept(self, request: Request, now_s: float) -> None:
        """Queue a request that arrives now. Raises InfeasibleError where it can never fit."""
        self.require_possible(request)
        self.waiting.append(request)
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system += 1
        self.wake(now_s)

    def wake(self, now_s: float) -> None:
        """Form micro-batches at `now_s` after all other events of that instant, if one may be formed."""
        if len(self.flying) < self.stages and not self._woken:
            self._woken = True
            self.clock.at(now_s, self._wake, None, BOUNDARY)

    def admit(self) -> Request:
        """Take the head of the queue and its memory; `processed` says what its cache holds already."""
        request: Request = self.waiting.popleft()
        self.kv.admit(request)
        if request.kv_ready:
            request.processed = request.prefill + 1
        elif self.prefix is not None and request.prefix and not request.restarts:
            request.processed, load_s = self.prefix.match(request.prefix, request.prefill)
            self.load_s += load_s
        return request

    def _wake(self, event: Any) -> None:
        self._woken = False
        self._form(self.clock.now)

    def _form(self, now_s: float) -> None:
        """Form micro-batches while a slot is free and there is work."""
        while len(self.flying) < self.stages:
            batch = self.policy.form(self)
            if not batch:
                break
            self._launch(batch, now_s)
        if not self.flying and (self.waiting or self.ready):
            stuck = next(iter(self.ready or self.waiting))
            raise InfeasibleError(f"{stuck!r} waits at an idle replica that cannot run it")

    def seconds(self, batch: Batch) -> float:
        """Time of an iteration with this batch, over all stages."""
        decoding = [r for r, _ in batch if r.decoding]
        chunks = [(tokens, r.processed) for r, tokens in batch if not r.decoding]
        return self.time.iteration_s(len(decoding), sum(r.processed for r in decoding), chunks)

    def _launch(self, batch: Batch, now_s: float) -> None:
        stage_s = self.seconds(batch) * self.share
        end_s, self.load_s, ends = now_s + self.load_s, 0.0, []
        for stage in range(self.stages):
            end_s = max(end_s, self._free_s[stage]) + stage_s
            self._free_s[stage] = end_s
            ends.append(end_s)
        self.busy_s += stage_s
        self.clock.at(end_s, self._batch_end, self.take_off(batch, stage_s, ends, now_s), BOUNDARY)

    def take_off(self, batch: Batch, stage_s: float, ends_s: list[float], now_s: float) -> int:
        """Note a micro-batch that starts now; its number."""
        for request, _ in batch:
            if not request.scheduled:
                request.scheduled = True
                if not request.restarts:
                    self.cluster.record.scheduled_s[request.index] = now_s
        self._formed += 1
        self.flying[self._formed] = Flight(batch, stage_s, ends_s)
        return self._formed

    def _batch_end(self, event: Any) -> None:
        if self.land(event.value, self.clock.now):
            self._form(self.clock.now)

    def land(self, number: int, now_s: float) -> bool:
        """Book the tokens of a micro-batch that ends now; False where a failure broke it."""
        flight = self.flying.pop(number, None)
        if flight is None:
            return False
        self.iterations += 1
        gaps: Counter[float] = Counter()
        for request, tokens in flight.batch:
            if request.decoding:
                gaps[now_s - request.emitted_s] += 1
                request.emitted_s = now_s
            request.processed += tokens
            self._book(request, now_s)
        for gap_s, count in gaps.items():
            self.gaps.add(gap_s, 0.0, 1, count)
        if now_s >= self.samples.due_s:
            self.samples.take(now_s, self)
        if self._actions:
            self._act([request for request, _ in flight.batch], now_s)
        return True

    def _book(self, request: Request, now_s: float) -> None:
        """A request has run in a micro-batch: its first token, its end, or its place among the ready ones."""
        begun = request.processed == request.prefill
        if begun:
            self._first_token(request, now_s)
        if request.processed >= request.total:
            self._finish(request, now_s)
        elif not (begun and self._handed_over(request, now_s)):
            self.ready.append(request)

    def _first_token(self, request: Request, now_s: float) -> None:
        request.processed += 1
        if self.prefix is not None and request.prefix:
            self.prefix.insert(request.prefix)
        if request.emitted_s >= 0:
            self.gaps.add(now_s - request.emitted_s, 0.0, 1, 1)
            request.emitted_s = now_s
            return
        request.emitted_s = now_s
        self.cluster.record.first_s[request.index] = now_s

    def _handed_over(self, request: Request, now_s: float) -> bool:
        after = self.cluster.after_prefill
        return after is not None and bool(after(request, self, now_s))

    def _finish(self, request: Request, now_s: float) -> None:
        if self.policy.holds:
            self.policy.ended(request)
        else:
            self.kv.release(request)
        self._count_out(now_s)
        self.cluster.on_finish(request, self, now_s)
