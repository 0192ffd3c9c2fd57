"""How requests leave a pipelined replica other than by finishing, and what routers may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwsim.errors import LawViolation
from hwsim.serving.moves import lose_copies
from hwsim.serving.request import Request
from hwsim.serving.views import Visible

Batch = list[tuple[Request, int]]


@dataclass(frozen=True, slots=True)
class Flight:
    """A micro-batch on its way: time a stage takes for it (s), and when each stage is done with it."""

    batch: Batch
    stage_s: float
    ends_s: list[float]

    def undone_s(self, now_s: float) -> float:
        """Work that is left at `now_s`, as the mean over the stages."""
        left = sum(min(self.stage_s, max(0.0, end_s - now_s)) for end_s in self.ends_s)
        return left / len(self.ends_s)


class StagedMoves(Visible):
    """The part of `PipelineReplica` that takes requests off it; relies on the attributes that it documents."""

    policy: Any
    flying: dict[int, Flight]
    ready: list[Request]
    keep_partial: bool
    stages: int
    share: float
    index: int
    in_system: int
    busy_s: float
    area: float
    counted_s: float
    load_s: float
    gaps: Any
    _free_s: list[float]
    _actions: dict[int, Callable[[float], None]]

    def wake(self, now_s: float) -> None:
        raise NotImplementedError

    # ---- what routers read ----

    @property
    def kv_used(self) -> int:
        """Blocks in use."""
        return int(self.kv.fixed)

    @property
    def decodes(self) -> int:  # type: ignore[override]
        return self.in_system - len(self.waiting)

    @property
    def prefilling(self) -> bool:
        """Whether prompts have begun and are not complete."""
        return any(not request.decoding for request in self.held())

    def held(self) -> list[Request]:
        """Requests that hold memory here: ready ones, then those of each micro-batch."""
        return [*self.ready, *(request for flight in self.flying.values() for request, _ in flight.batch)]

    def processed(self, request: Request) -> int:
        """Tokens in the cache of a request after its last finished micro-batch."""
        return request.processed

    def run_and_remaining(self) -> list[tuple[int, int]]:
        """(tokens in the cache, tokens still to generate after the next) of every admitted request."""
        return [(r.processed, r.total - r.processed - 1) for r in self.held()]

    def predicted_first_token_s(self, request: Request) -> float:
        """Seconds until this request's first token if prefills ran one after another from now on.

        Prompts ahead pass at the pace of one stage; the request's own goes through all of them.
        """
        begun = [r for r in self.held() if not r.decoding]
        ahead = sum(r.prefill - r.processed for r in (*begun, *self.waiting))
        own = max(1, request.prompt - self.cached_tokens(request))
        running = [r.processed for r in self.held() if r.decoding]
        pace_s = self.time.iteration_s(len(running), sum(running), [(ahead + own, 0)]) * self.share
        return float(pace_s + self.time.iteration_s(0, 0, [(own, 0)]) * self.share * (self.stages - 1))

    # ---- leaving ----

    def preempt(self, victim: Request) -> None:
        """The victim loses its cache and goes to the head of the queue."""
        self._lose(victim)
        self.waiting.appendleft(victim)

    def _lose(self, victim: Request) -> None:
        self.policy.left(victim)
        self.kv.release(victim)
        victim.restart(victim.processed, keep_partial=self.keep_partial)

    def _count_out(self, now_s: float) -> None:
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system -= 1

    def hand_over(self, request: Request, now_s: float) -> None:
        """A request whose prefill just ended leaves with its cache."""
        self.policy.left(request)
        self.kv.release(request)
        self._count_out(now_s)

    def stop(self, now_s: float) -> list[Request]:
        """Lose everything at once (failure): all requests, running ones first, without their cache.

        Micro-batches on their way are lost, with the work that their stages had not done by now given back.
        """
        lost = self.held()
        self.policy.forget(self)
        self.busy_s -= sum(flight.undone_s(now_s) for flight in self.flying.values())
        self.flying.clear()
        self.ready.clear()
        self._actions.clear()
        for request in lost:
            self._lose(request)
        lost += lose_copies(self.waiting)
        self.waiting.clear()
        for _ in lost:
            self._count_out(now_s)
        self._free_s = [0.0] * self.stages
        self.load_s = 0.0
        return lost

    def movable(self) -> list[Request]:
        """Requests that decode here and could go on elsewhere."""
        return [request for request in self.held() if request.decoding]

    def decodes_here(self, request: Request) -> bool:
        """Whether the request still holds its cache here and decodes."""
        return request.decoding and any(request is other for other in self.held())

    def when_free(self, request: Request, action: Callable[[float], None], now_s: float) -> None:
        """Call `action(time_s)` as soon as no micro-batch holds the request."""
        if any(request is other for flight in self.flying.values() for other, _ in flight.batch):
            self._actions[request.index] = action
        else:
            action(now_s)
            self.wake(now_s)

    def _act(self, ended: list[Request], now_s: float) -> None:
        for request in ended:
            action = self._actions.pop(request.index, None)
            if action is not None:
                action(now_s)

    def move_out(self, request: Request, now_s: float) -> None:
        """A decoding request leaves with its cache, to go on elsewhere (call when it is free)."""
        self.ready = [other for other in self.ready if other is not request]
        self.policy.left(request)
        self.kv.release(request)
        request.prefill, request.processed, request.kv_ready = request.processed - 1, request.processed - 1, True
        self._count_out(now_s)

    def check_empty(self) -> None:
        """LAW-7 after a run: nothing waits, runs or holds memory. Raises LawViolation."""
        self.policy.forget(self)
        self.kv.check()
        if self.in_system or self.waiting or self.ready or self.flying or self.kv.holders:
            raise LawViolation(
                "LAW-7: a replica still holds requests", seen=f"{self.in_system} in replica {self.index}"
            )
