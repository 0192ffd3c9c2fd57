"""How requests leave a replica other than by finishing: preemption, swap, hand-over, migration, failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from hwsim.errors import LawViolation
from hwsim.serving.iteration_time import UNBOUNDED, iterations_until
from hwsim.serving.request import Request


def by_arrival(request: Request) -> float:
    """Sort key: first come first served."""
    return request.arrival_s


def lose_copies(waiting: Iterable[Request]) -> list[Request]:
    """Waiting requests of a replica that fails; those whose cache had come from elsewhere lose it."""
    lost = list(waiting)
    for request in lost:
        if request.kv_ready:
            request.restart(request.prefill + 1, keep_partial=False)
    return lost


class Movable:
    """The part of `Replica` that takes requests off it; relies on the attributes that `Replica` documents."""

    clock: Any
    kv: Any
    policy: Any
    gaps: Any
    waiting: Any
    keep_partial: bool
    swap_s_per_block: float | None
    index: int
    decodes: int
    context: int
    passed: int
    iterations: int
    in_system: int
    busy_s: float
    load_s: float
    area: float
    counted_s: float
    _ends: list[int]
    _next_end: int
    _order: dict[int, Request]
    _front: list[Request]
    _back: list[Request]
    _held: list[Request]
    _chunks: list[tuple[Request, int]]
    _actions: list[Callable[[float], None]]
    _stale: int
    _version: int
    _count: int
    _busy: bool
    _decoding: bool
    _evicted: bool
    _start_s: float
    _first_s: float
    _step_s: float

    def replan(self, now_s: float) -> None:
        raise NotImplementedError

    def processed(self, request: Request) -> int:
        raise NotImplementedError

    def _book_decodes(self, count: int, now_s: float) -> None:
        raise NotImplementedError

    def _leave(self, request: Request) -> None:
        raise NotImplementedError

    def _count_out(self, now_s: float) -> None:
        raise NotImplementedError

    def release_held(self) -> None:
        """Static batches: give back the memory of finished members when the batch has ended."""
        for request in self._held:
            self.kv.release(request)
        self._held.clear()

    def hand_over(self, request: Request, now_s: float) -> None:
        """A request whose prefill just ended leaves with its cache."""
        self.gaps.forget(request.emitted_s)
        self.kv.release(request)
        self._count_out(now_s)

    def stop(self, now_s: float) -> list[Request]:
        """Lose everything at once (failure): all requests, running ones first, without their cache."""
        self._settle(now_s)
        lost = [*self._front, *self._order.values(), *self._back]
        lost += [r for r, _ in self._chunks if r.index not in self._order and r not in lost and r.blocks]
        for request in lost:
            self.evict(request)
        lost += lose_copies(self.waiting)
        self.waiting.clear()
        for _ in lost:
            self._count_out(now_s)
        self._ends.clear()
        self._stale, self._next_end = 0, UNBOUNDED
        self._version += 1
        self._busy, self._count, self._chunks, self._decoding = False, 0, [], False
        return lost

    def _settle(self, now_s: float) -> None:
        """Book the whole iterations of the present run that have passed by now; the broken one is lost."""
        if not self._busy or not self._count:
            return
        if self._decoding and not self._chunks and self._count > 1:
            ahead = iterations_until(self._first_s, self._step_s, now_s - self._start_s)
            done = ahead - 1
            if done > 0:
                run_s = done * self._first_s + self._step_s * (done * (done - 1) // 2)
                self.iterations += done
                self._book_decodes(done, self._start_s + run_s)
        self.busy_s += now_s - self._start_s
        self._count = 0

    def movable(self) -> list[Request]:
        """Requests that decode here and could go on elsewhere."""
        return list(self._order.values())

    def decodes_here(self, request: Request) -> bool:
        """Whether the request still holds its cache here and decodes."""
        return self._order.get(request.index) is request

    def when_free(self, request: Request, action: Callable[[float], None], now_s: float) -> None:
        """Call `action(time_s)` as soon as the request is in no running iteration."""
        self.at_boundary(action, now_s)

    def at_boundary(self, action: Callable[[float], None], now_s: float) -> None:
        """Call `action(time_s)` at the first iteration boundary not before now."""
        if not self._busy:
            action(now_s)
            return
        self._actions.append(action)
        self.replan(now_s)

    def move_out(self, request: Request, now_s: float) -> None:
        """A decoding request leaves with its cache, to go on elsewhere (call at a boundary)."""
        processed = self.processed(request)
        self.context -= processed
        self._leave(request)
        self._stale += 1
        self.gaps.left(request, processed == request.prefill + 1)
        self.kv.release(request)
        request.prefill, request.processed, request.kv_ready = processed - 1, processed - 1, True
        self._count_out(now_s)

    def check_empty(self) -> None:
        """LAW-7 after a run: nothing waits, runs or holds memory. Raises LawViolation."""
        self.release_held()
        self.kv.check()
        if self.in_system or self.decodes or self.waiting or self.kv.holders:
            raise LawViolation(
                "LAW-7: a replica still holds requests", seen=f"{self.in_system} in replica {self.index}"
            )

    def _preempt(self) -> None:
        """vLLM's rule: walk the running requests in order; where no block is free, the last one loses its cache."""
        running = list(self._order.values())
        if self.policy.by_arrival:
            running.sort(key=by_arrival)
        queue = deque([*self._front, *running, *self._back])
        free = self.kv.total - self.kv.used(self.passed)
        while queue:
            request = queue.popleft()
            if request.index not in self._order:
                continue
            while free < 1:
                victim = queue.pop() if queue else request
                free += self.evict(victim)
                self.waiting.appendleft(victim)
                self._evicted = True
                if victim is request:
                    break
            else:
                free -= self.kv.grows(request, self.passed)

    def evict(self, victim: Request) -> int:
        """The victim loses its cache and leaves; blocks freed."""
        processed = victim.processed
        if victim.index in self._order:
            processed = self.processed(victim)
            self.context -= processed
            self._leave(victim)
            self._stale += 1
            self.gaps.left(victim, processed == victim.prefill + 1)
        else:
            self._front = [r for r in self._front if r is not victim]
            self._back = [r for r in self._back if r is not victim]
        held = self.kv.release(victim)
        if self.swap_s_per_block is not None and processed > victim.prefill:
            self.load_s += held * self.swap_s_per_block
            victim.prefill, victim.processed, victim.kv_ready, victim.cached = processed - 1, processed - 1, True, -1
        else:
            victim.restart(processed, keep_partial=self.keep_partial)
        return held
