"""One serving engine on one device group: iterations, jumps over equal decode iterations, memory, preemption.

All decoding sequences advance together, so one counter of decode iterations replaces a loop over them: a sequence
that joins at counter j with r tokens to go finishes at counter j + r, kept in a heap. Runs of decode-only
iterations whose times form an arithmetic series are one SimPy event. An arrival in such a run finds its iteration
boundary by a quadratic; the older event is recognised by its version and ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Protocol

from hwsim.errors import InfeasibleError, LawViolation
from hwsim.serving.clock import BOUNDARY, Clock
from hwsim.serving.iteration_time import IterationTime, elapsed_s, iterations_until
from hwsim.serving.kv import BlockPool
from hwsim.serving.request import Request

if TYPE_CHECKING:
    from hwsim.serving.policies import Policy


class Observer(Protocol):
    """Whom a replica tells what happened (`hwsim.serving.cluster.Cluster`)."""

    def on_scheduled(self, request: Request, now_s: float) -> None: ...
    def on_first_token(self, request: Request, now_s: float) -> None: ...
    def on_finish(self, request: Request, replica: Replica, now_s: float) -> None: ...
    def on_prefilled(self, request: Request, replica: Replica, now_s: float) -> bool: ...


class Replica:
    """A serving engine. Times are seconds, `context` counts tokens over all decoding sequences.

    Attributes
    ----------
    waiting: admission queue (a deque, or a queue that keeps another order).
    decodes, context: number of decoding sequences and the tokens in their caches.
    passed: decode iterations so far.
    """

    def __init__(
        self, clock: Clock, time: IterationTime, policy: Policy, kv: BlockPool, observer: Observer, index: int = 0
    ) -> None:
        self.clock, self.time, self.policy, self.kv, self.observer, self.index = clock, time, policy, kv, observer, index
        self.waiting: Any = deque()
        self.decodes = self.context = self.passed = self.iterations = 0
        self.in_system = 0
        self.keep_partial = False
        self.holds = bool(getattr(policy, "hold_memory", False))
        self.gaps: Any = None
        self.samples: Any = None
        self.busy_s = 0.0
        self.alive = True
        self._heap: list[tuple[int, int, Request]] = []
        self._order: dict[int, Request] = {}
        self._front: list[Request] = []
        self._back: list[Request] = []
        self._held: list[tuple[Request, int]] = []
        self._version = 0
        self._busy = False
        self._chunks: list[tuple[Request, int]] = []
        self._start_s = self._first_s = self._step_s = 0.0
        self._count = 0
        self._decoding = self._evicted = False

    # ---- what routers and policies read ----

    @property
    def queued(self) -> int:
        return len(self.waiting)

    @property
    def running(self) -> int:
        return self.in_system - len(self.waiting)

    def fits(self, request: Request) -> bool:
        """Whether the head of the queue could be admitted now."""
        return self.kv.fits(request)

    def processed(self, request: Request) -> int:
        """Tokens of a decoding request after the last finished iteration."""
        return request.total - (request.finish_at - self.passed)

    def run_and_remaining(self) -> list[tuple[int, int]]:
        """(tokens in the cache, tokens still to generate after the next) of every decoding request."""
        passed = self.passed
        return [(r.total - r.finish_at + passed, max(0, r.finish_at - passed - 1)) for r in self._order.values()]

    # ---- arrivals ----

    def accept(self, request: Request, now_s: float) -> None:
        """Queue a request that arrives now. Raises InfeasibleError where it can never fit."""
        if not self.kv.possible(request):
            raise InfeasibleError(
                f"{request!r} can never run: it needs more KV cache than the replica has",
                seen=f"{self.kv.total} blocks of {self.kv.block_tokens} tokens, watermark {self.kv.watermark}",
                fix="give the replica more KV blocks, or drop or shorten the request",
                budget={"kv_tokens": float(self.kv.total * self.kv.block_tokens)},
            )
        blocked = bool(self.waiting)
        self.waiting.append(request)
        self.in_system += 1
        if not self._busy:
            self._wake(now_s)
        elif self._count > 1 and (not blocked or self.waiting[0] is request):
            self.replan(now_s)

    def _wake(self, now_s: float) -> None:
        """Start after all arrivals of this instant."""
        self._busy, self._decoding, self._chunks, self._start_s = True, False, [], now_s
        self._first_s = self._step_s = 0.0
        self._schedule(0)

    def replan(self, now_s: float) -> None:
        """End the current run of iterations at the first boundary not before now, so that the policy is asked again."""
        if not self._busy or self._count <= 1:
            return
        count = iterations_until(self._first_s, self._step_s, now_s - self._start_s)
        if count < self._count:
            self._schedule(count)

    # ---- what policies do ----

    def admit(self) -> Request | None:
        """Take the head of the queue and its memory; None if it starts decoding at once (KV from elsewhere)."""
        request: Request = self.waiting.popleft()
        self.kv.admit(request)
        if not request.scheduled:
            request.scheduled = True
            if not request.restarts:
                self.observer.on_scheduled(request, self.clock.now)
        if request.kv_ready:
            self.gaps.joined(request)
            self._join(request)
            return None
        return request

    def take_partial(self) -> list[Request]:
        """Requests whose prefill is not complete, in the order in which they continue."""
        partial = self._front + self._back
        self._front, self._back = [], []
        return partial

    def put_back(self, skipped: list[Request]) -> None:
        """Requests that got no chunk; they come first next time, by arrival."""
        self._front = sorted(skipped, key=_arrival)

    def reserve_decode(self) -> None:
        """Take memory for the next token of every decoding request: preempt the last ones where it is short."""
        if self.decodes:
            if self.kv.safe_iterations(self.passed, 1) < 1:
                self._preempt()
            self.kv.grow(self.passed, 1)

    def release_held(self) -> None:
        """Static batches: give back the memory of finished members when the batch has ended."""
        for request, held in self._held:
            self.kv.release(request, held)
        self._held.clear()

    # ---- iterations ----

    def _start(self, now_s: float) -> None:
        """Ask the policy and begin the next run of iterations at `now_s`, or go idle."""
        chunks, decoding = self.policy.plan(self)
        self._chunks, self._decoding, self._start_s = chunks, decoding, now_s
        self._busy = True
        if chunks:
            context, decodes = (self.context, self.decodes) if decoding else (0, 0)
            sizes = [(tokens, request.processed) for request, tokens in chunks]
            self._first_s, self._step_s = self.time.iteration_s(decodes, context, sizes), 0.0
            count = 1
        elif decoding:
            count = self._run_length()
        elif self._evicted and self.waiting:
            self._evicted = False
            self._start(now_s)
            return
        else:
            self._idle()
            return
        self._evicted = False
        self._schedule(count)

    def _idle(self) -> None:
        self._busy = False
        if self.waiting and not self._held and not self._chunks:
            head = self.waiting[0]
            raise InfeasibleError(
                f"{head!r} waits at an idle replica that cannot admit it",
                seen=f"{self.kv.free} of {self.kv.total} blocks free, watermark {self.kv.watermark}",
                fix="raise the KV blocks or the batch cap",
            )

    def _run_length(self) -> int:
        """Decode-only iterations until something must be decided: a finish, memory, the policy, the end of the line."""
        heap, order = self._heap, self._order
        while order.get(heap[0][1]) is not heap[0][2] or heap[0][2].finish_at != heap[0][0]:
            heappop(heap)
        self._first_s, self._step_s, valid = self.time.decode_line(self.decodes, self.context)
        count = min(heap[0][0] - self.passed, valid, self.policy.horizon(self))
        return max(1, self.kv.safe_iterations(self.passed, count)) if count > 1 else 1

    def _schedule(self, count: int) -> None:
        self._count = count
        self._version += 1
        end_s = self._start_s + elapsed_s(self._first_s, self._step_s, count)
        self.clock.at(end_s, self._boundary, self._version, BOUNDARY)

    def _boundary(self, event: Any) -> None:
        """A run of iterations ends: book it, then begin the next."""
        if event._value != self._version:
            return
        now_s = self.clock._now
        self._finish_run(now_s)
        self._start(now_s)

    def _finish_run(self, now_s: float) -> None:
        count = self._count
        self.iterations += count
        self.busy_s += now_s - self._start_s
        if self._decoding:
            self._book_decodes(count, now_s)
        for request, tokens in self._chunks:
            request.processed += tokens
            if request.processed < request.prefill:
                self._back.append(request)
            else:
                self._complete_prefill(request, now_s)
        if self.samples is not None and now_s >= self.samples.due_s:
            self.samples.take(now_s, self)

    def _book_decodes(self, count: int, now_s: float) -> None:
        decodes = self.decodes
        if count > 1:
            self.kv.grow(self.passed + 1, count - 1)
        self.passed += count
        self.context += decodes * count
        self.gaps.decoded(decodes, self._first_s, self._step_s, count, now_s)
        if not self._chunks:
            self.policy.ran(count)
        heap, passed = self._heap, self.passed
        while heap and heap[0][0] <= passed:
            finish_at, index, request = heappop(heap)
            if self._order.get(index) is request and request.finish_at == finish_at:
                self._finish_decoding(request, now_s)

    def _finish_decoding(self, request: Request, now_s: float) -> None:
        self.context -= request.total
        self._leave(request)
        self._finish(request, request.total - 1, now_s)

    def _complete_prefill(self, request: Request, now_s: float) -> None:
        """The last chunk yields the first token; a request with more to say joins the decodes."""
        self.gaps.first(request, now_s)
        self.observer.on_first_token(request, now_s)
        if request.prefill + 1 >= request.total:
            self.gaps.forget(now_s)
            self._finish(request, request.prefill, now_s)
        elif not self.observer.on_prefilled(request, self, now_s):
            self._join(request)

    def _join(self, request: Request) -> None:
        request.finish_at = self.passed + request.total - request.prefill - 1
        self.kv.join(request, self.passed)
        self.decodes += 1
        self.context += request.prefill + 1
        self._order[request.index] = request
        heappush(self._heap, (request.finish_at, request.index, request))

    def _leave(self, request: Request) -> None:
        del self._order[request.index]
        self.decodes -= 1
        self.kv.leave(request)

    def _finish(self, request: Request, cached_tokens: int, now_s: float) -> None:
        held = self.kv.held(request, cached_tokens)
        if self.holds:
            self._held.append((request, held))
        else:
            self.kv.release(request, held)
        self.in_system -= 1
        self.observer.on_finish(request, self, now_s)

    def check_empty(self) -> None:
        """LAW-7 after a run: nothing waits, runs or holds memory. Raises LawViolation."""
        self.release_held()
        self.kv.check()
        if self.in_system or self.decodes or self.waiting or self.kv.holders:
            raise LawViolation("LAW-7: a replica still holds requests", seen=f"{self.in_system} in replica {self.index}")

    # ---- preemption ----

    def _preempt(self) -> None:
        """vLLM's rule: walk the running requests in order; where no block is free, the last one loses its cache."""
        running = list(self._order.values())
        if self.policy.by_arrival:
            running.sort(key=_arrival)
        queue = deque([*self._front, *running, *self._back])
        survivors: list[Request] = []
        free = self.kv.free
        while queue:
            request = queue.popleft()
            if request.index not in self._order:
                survivors.append(request)
                continue
            while free < 1:
                victim = queue.pop() if queue else request
                free += self._evict(victim)
                if victim is request:
                    break
            else:
                free -= self._needs_block(request)
        self._front = [r for r in self._front if r in survivors]
        self._back = [r for r in self._back if r in survivors]

    def _needs_block(self, request: Request) -> int:
        return int(request.phase == self.passed % self.kv.block_tokens)

    def _evict(self, victim: Request) -> int:
        """Take the victim's memory and put it at the head of the queue; blocks freed."""
        processed = victim.processed
        if victim.index in self._order:
            processed = self.processed(victim)
            self.context -= processed
            self._leave(victim)
            self.gaps.left(victim, processed == victim.prefill + 1)
            held = self.kv.held(victim, processed - 1)
        else:
            held = victim.blocks
        self.kv.release(victim, held)
        self._evicted = True
        victim.restart(processed, keep_partial=self.keep_partial)
        self.waiting.appendleft(victim)
        return held


def _arrival(request: Request) -> float:
    return request.arrival_s


Hook = Callable[[Request, Replica, float], None]
