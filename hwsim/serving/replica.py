"""One serving engine on one device group: iterations, jumps over equal decode iterations, memory, preemption.

All decoding sequences advance together, so one counter of decode iterations replaces a loop over them: a sequence
that joins at counter j with r tokens to go finishes at counter j + r, kept in a sorted list of integers. Runs of
decode-only iterations whose times form an arithmetic series are one SimPy event. An arrival in such a run finds its
iteration boundary by a quadratic; the older event is recognised by its version and ignored. Where the router ignores
the replicas' state, arrivals are known ahead (`Inbox`) and need no events of their own.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hwsim.errors import InfeasibleError
from hwsim.serving.clock import Clock
from hwsim.serving.flow import Flowing
from hwsim.serving.iteration_time import UNBOUNDED, IterationTime, iterations_until
from hwsim.serving.kv import BlockPool
from hwsim.serving.moves import Movable, by_arrival
from hwsim.serving.policies import Budgeted, Patient, Policy
from hwsim.serving.prefix import PrefixCache
from hwsim.serving.queues import Inbox
from hwsim.serving.record import Occupancy, TokenGaps
from hwsim.serving.request import Request
from hwsim.serving.views import Visible

if TYPE_CHECKING:
    from hwsim.serving.cluster import Cluster

_NEVER: Final = math.inf
_ROW_BITS: Final = 40  # of an entry of the list of finishes: counter << bits | row of the request
_ROW_MASK: Final = (1 << _ROW_BITS) - 1
_NONE: Final[list[tuple[Request, int]]] = []


class Replica(Visible, Movable, Flowing):
    """A serving engine. Times are seconds, `context` counts tokens over all decoding sequences.

    Attributes
    ----------
    waiting: admission queue (a deque, or a queue that keeps another order: then `ordered`).
    decodes, context: number of decoding sequences and the tokens in their caches.
    passed: decode iterations so far.
    area: integral of the number of requests here over time (s), up to `counted_s`.
    foresees: all arrivals come through the inbox, so runs of iterations need no events.
    local: boundaries are kept in `due_s` instead of the clock, for a source that asks replicas to `catch_up`.
    until_s: nothing comes from outside before this time.
    reserved: 1 while the memory of the next decode iteration is taken already.
    """

    def __init__(
        self, clock: Clock, time: IterationTime, policy: Policy, kv: BlockPool, cluster: Cluster, index: int = 0
    ) -> None:
        self.clock, self.time, self.policy, self.kv, self.cluster, self.index = clock, time, policy, kv, cluster, index
        self.record = cluster.record
        self.waiting: Any = deque()
        self.ordered = False
        self.inbox: Any = Inbox()
        self.decodes = self.context = self.passed = self.iterations = self.in_system = self.reserved = 0
        self.keep_partial = False
        self.holds = bool(getattr(policy, "hold_memory", False))
        self.gaps = TokenGaps(cluster.record.gaps)
        self.samples = Occupancy()
        self.busy_s = self.area = self.counted_s = self.now_s = 0.0
        self.foresees = self.local = False
        self.due_s = self.until_s = _NEVER
        self.prefix: PrefixCache | None = None
        self.swap_s_per_block: float | None = None
        self.load_s = 0.0
        self._ends: list[int] = []
        self._next_end = UNBOUNDED
        self._order: dict[int, Request] = {}
        self._front: list[Request] = []
        self._back: list[Request] = []
        self._held: list[Request] = []
        self._actions: list[Callable[[float], None]] = []
        self._version = self._count = self._stale = 0
        self._patient = isinstance(policy, Patient)
        self._budget = policy.chunk if isinstance(policy, Budgeted) else 0
        self._told = isinstance(policy, Budgeted) and type(policy).went_on is not Budgeted.went_on
        self._asks = not self._patient or bool(getattr(policy, "ahead", 0))
        self._busy = self._decoding = self._evicted = False
        self._chunks: list[tuple[Request, int]] = []
        self._start_s = self._first_s = self._step_s = 0.0

    # ---- what routers and policies read ----

    def fits(self, request: Request) -> bool:
        """Whether the head of the queue could be admitted now."""
        return self.kv.fits(request, self.passed + self.reserved)

    # ---- arrivals ----

    def accept(self, request: Request, now_s: float) -> None:
        """Queue a request that arrives now. Raises InfeasibleError where it can never fit."""
        self.require_possible(request)
        blocked = bool(self.waiting)
        self.waiting.append(request)
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system += 1
        if not self._busy:
            self._wake(now_s)
        elif self._count > 1 and (not blocked or self.ordered):
            self.replan(now_s)

    def replan(self, now_s: float) -> None:
        """End the current run of iterations at the first boundary not before now, so that the policy is asked again."""
        if self._busy and self._count > 1:
            count = iterations_until(self._first_s, self._step_s, now_s - self._start_s)
            if count < self._count:
                self._schedule(count)

    def _wake(self, time_s: float) -> None:
        """Start at `time_s`, after all arrivals of that instant."""
        self._busy, self._decoding, self._chunks = True, False, []
        self._start_s, self._first_s, self._step_s = time_s, 0.0, 0.0
        self._schedule(0)

    # ---- what policies do ----

    def admit(self) -> Request | None:
        """Take the head of the queue and its memory; None if it starts decoding at once (KV from elsewhere)."""
        request: Request = self.waiting.popleft()
        self.kv.admit(request)
        if not request.scheduled:
            request.scheduled = True
            if not request.restarts:
                self.record.scheduled_s[request.index] = self.now_s
        if request.kv_ready:
            if self.swap_s_per_block and request.cached < 0:
                self.load_s += request.blocks * self.swap_s_per_block
            self.gaps.joined(request)
            self._join(request)
            return None
        if self.prefix is not None and request.prefix and not request.restarts:
            request.processed, load_s = self.prefix.match(request.prefix, request.prefill)
            self.load_s += load_s
        return request

    def take_partial(self) -> list[Request]:
        """Requests whose prefill is not complete, in the order in which they continue."""
        partial = self._back
        if self._front:
            partial = self._front + partial
            self._front = []
        if partial:
            self._back = []
        return partial

    def put_back(self, skipped: list[Request]) -> None:
        """Requests that got no chunk; they come first next time, by arrival."""
        self._front = sorted(skipped, key=by_arrival)

    def reserve_decode(self) -> None:
        """Take memory for the next token of every decoding request: preempt the last ones where it is short."""
        if self.decodes:
            if self.kv.committed >= self.kv.total and self.kv.safe_iterations(self.passed, 1) < 1:
                self._preempt()
            self.reserved = 1

    # ---- iterations ----

    def _start(self, now_s: float) -> None:
        """Ask the policy and begin the next run of iterations at `now_s`, or go idle."""
        self.now_s = now_s
        chunks, decoding = self.policy.plan(self)
        self._begin(chunks, decoding, now_s)

    def _begin(self, chunks: list[tuple[Request, int]], decoding: bool, now_s: float) -> None:
        """The next run of iterations as the policy wants it."""
        self._chunks, self._decoding, self._start_s = chunks, decoding, now_s
        self.reserved = 0
        self._busy = True
        if chunks:
            context, decodes = (self.context, self.decodes) if decoding else (0, 0)
            sizes = [(tokens, request.processed) for request, tokens in chunks]
            self._first_s, self._step_s = self.time.iteration_s(decodes, context, sizes) + self.load_s, 0.0
            self._evicted, self.load_s = False, 0.0
            self._schedule(1)
        elif decoding and self.load_s:
            self._evicted = False
            self._first_s = self.time.decode_line(self.decodes, self.context)[0] + self.load_s
            self._step_s = self.load_s = 0.0
            self._schedule(1)
        elif decoding:
            self._decode_run(now_s)
        elif self._evicted and self.waiting:
            self._evicted = False
            self._start(now_s)
        else:
            self._idle()

    def _idle(self) -> None:
        self._busy = False
        if self.inbox.next_s < _NEVER:
            self._wake(self.inbox.next_s)
        elif self.waiting:
            raise InfeasibleError(
                f"{self.waiting[0]!r} waits at an idle replica that cannot admit it",
                seen=f"{self.kv_used} of {self.kv.total} blocks used, watermark {self.kv.watermark}",
                fix="raise the KV blocks or the batch cap",
            )

    def _decode_run(self, now_s: float) -> None:
        """Schedule decode-only iterations."""
        self._count, run_s = self._run_length(now_s)
        if self.local:
            self.due_s = now_s + run_s
            return
        self._version = version = self._version + 1
        self.clock.at(now_s + run_s, self._boundary, version)

    def _run_length(self, now_s: float) -> tuple[int, float]:
        """Decode iterations until a finish, memory, policy or the next arrival asks for a decision, and seconds."""
        if self._stale:
            self._drop_stale()
        count = self._next_end - self.passed
        first_s, step_s, valid = self.time.decode_line(self.decodes, self.context)
        self._first_s, self._step_s = first_s, step_s
        if self._evicted:  # what the victims gave back may do for the head of the queue: the policy looks again
            self._evicted, count = False, 1
        if count > 1:
            if self._asks:
                count = min(count, self.policy.horizon(self))
            if count > valid:
                count = valid
            if self.kv.committed >= self.kv.total:
                count = self.kv.safe_iterations(self.passed, count) or 1
        run_s = count * first_s + step_s * (count * (count - 1) // 2)
        ahead_s = self.inbox.next_s - now_s
        if ahead_s < run_s and count > 1 and (self.ordered or not self.waiting):
            count = iterations_until(first_s, step_s, ahead_s)
            run_s = count * first_s + step_s * (count * (count - 1) // 2)
        return count, run_s

    def _drop_stale(self) -> None:
        """Forget the finishes of requests that lost their cache."""
        ends = self._ends
        while self._live(ends[0]) is None:
            del ends[0]
            self._stale -= 1
        self._next_end = ends[0] >> _ROW_BITS

    def _live(self, end: int) -> Request | None:
        """The decoding request of an entry of the list of finishes; None if it lost its cache since."""
        request = self._order.get(end & _ROW_MASK)
        return request if request is not None and request.finish_at == end >> _ROW_BITS else None

    def _schedule(self, count: int) -> None:
        self._count = count
        end_s = self._start_s + (count * self._first_s + self._step_s * (count * (count - 1) // 2))
        if self.local:
            self.due_s = end_s
            return
        self._version = version = self._version + 1
        self.clock.at(end_s, self._boundary, version)

    def catch_up(self, time_s: float) -> None:
        """Where nothing but arrivals comes from outside (`local`): all boundaries before `time_s`."""
        self.until_s = time_s
        while self.due_s < time_s:
            due_s, self.due_s = self.due_s, _NEVER
            self._advance(due_s)

    def _boundary(self, event: Any) -> None:
        """A run of iterations ends, unless a later decision made it end elsewhere."""
        if event._value == self._version:
            self._advance(self.clock._now)

    def _advance(self, now_s: float) -> None:
        """Book the run of iterations that ends at `now_s`, then begin the next."""
        count = self._count
        if count:
            self._count = 0
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
            if now_s >= self.samples.due_s:
                self.samples.take(now_s, self)
        while self._actions:
            self._actions.pop()(now_s)
        if self.inbox.next_s <= now_s:
            self.inbox.pull(now_s)
        if self._patient and (self.foresees or self.local):
            self._flow(now_s)
        elif self._undecided():
            self._start(now_s)
        else:  # nothing to decide: every patient policy runs all decodes
            self._chunks, self._decoding, self._start_s = _NONE, True, now_s
            self._decode_run(now_s)

    def _undecided(self) -> bool:
        """Whether the policy must be asked; with nothing waiting, every patient policy runs all decodes."""
        if self.waiting or self._back or self._front or not self.decodes or not self._patient:
            return True
        return self.kv.committed >= self.kv.total

    def _book_decodes(self, count: int, now_s: float) -> None:
        decodes = self.decodes
        self.passed = passed = self.passed + count
        self.context += decodes * count
        self.gaps.decoded(decodes, self._first_s, self._step_s, count, self._start_s, now_s)
        if not self._patient and not self._chunks:
            self.policy.ran(count)
        if self._next_end <= passed:
            self._finish_decodes(now_s)

    def _finish_decodes(self, now_s: float) -> None:
        """Requests whose last token has come out."""
        ends, order, passed, cluster = self._ends, self._order, self.passed, self.cluster
        while self._next_end <= passed:
            end = ends.pop(0)
            request = self._live(end) if self._stale else order[end & _ROW_MASK]
            self._next_end = ends[0] >> _ROW_BITS if ends else UNBOUNDED
            if request is None:
                self._stale -= 1
                continue
            self.context -= request.total
            self.decodes -= 1
            del order[request.index]
            if self.holds:
                self.kv.leave(request, passed)
                self._held.append(request)
            else:
                self.kv.finish(request)
            self.area += self.in_system * (now_s - self.counted_s)
            self.counted_s = now_s
            self.in_system -= 1
            cluster.on_finish(request, self, now_s)

    def _count_out(self, now_s: float) -> None:
        self.area += self.in_system * (now_s - self.counted_s)
        self.counted_s = now_s
        self.in_system -= 1

    def _complete_prefill(self, request: Request, now_s: float) -> None:
        """The last chunk yields the first token; a request with more to say joins the decodes."""
        if request.restarts:
            self.gaps.resumed(request, now_s)
        self.gaps.first(request, now_s)
        if not request.restarts or not self.record.first_s[request.index] >= 0:
            self.record.first_s[request.index] = now_s
        if request.prefill + 1 >= request.total:
            self.gaps.forget(now_s)
            self._count_out(now_s)
            if self.holds:
                self._held.append(request)
            else:
                self.kv.release(request)
            self.cluster.on_finish(request, self, now_s)
            return
        if self.prefix is not None and request.prefix:
            self.prefix.insert(request.prefix)
        if self.cluster.after_prefill is None or not self.cluster.after_prefill(request, self, now_s):
            self._join(request)

    def _join(self, request: Request) -> None:
        passed, prefill, index = self.passed, request.prefill, request.index
        request.finish_at = finish_at = passed + request.total - prefill - 1
        self.kv.join(request, passed)
        self.decodes += 1
        self.context += prefill + 1
        self._order[index] = request
        insort(self._ends, finish_at << _ROW_BITS | index)
        if finish_at < self._next_end:
            self._next_end = finish_at

    def _leave(self, request: Request) -> None:
        del self._order[request.index]
        self.decodes -= 1
        self.kv.leave(request, self.passed)
