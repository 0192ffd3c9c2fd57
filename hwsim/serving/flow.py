"""Runs of iterations without an event each, where a replica knows all that happens before a certain time.

A replica whose arrivals come through an inbox depends on nothing outside; one that only arrivals couple to others
depends on nothing before the next of them (`until_s`). So iterations with prefill chunks and runs of decodes follow
each other in one loop. The arithmetic is that of the event-driven path, in the same order: results are equal to the
last bit.
"""

from __future__ import annotations

import math
from typing import Any, Final

from hwsim.serving.iteration_time import iterations_until
from hwsim.serving.request import Request

BURST: Final = 1024  # decisions before the clock gets its turn again
_NONE: Final[list[tuple[Request, int]]] = []


class Flowing:
    """The part of `Replica` that runs ahead; relies on the attributes that `Replica` documents."""

    time: Any
    policy: Any
    kv: Any
    gaps: Any
    inbox: Any
    samples: Any
    waiting: Any
    decodes: int
    context: int
    passed: int
    iterations: int
    reserved: int
    busy_s: float
    load_s: float
    now_s: float
    due_s: float
    until_s: float
    _next_end: int
    _front: list[Request]
    _back: list[Request]
    _chunks: list[tuple[Request, int]]
    _decoding: bool
    _start_s: float
    _first_s: float
    _step_s: float
    _count: int
    _stale: int
    _evicted: bool
    _budget: int
    _told: bool

    def _begin(self, chunks: list[tuple[Request, int]], decoding: bool, now_s: float) -> None:
        raise NotImplementedError

    def _start(self, now_s: float) -> None:
        raise NotImplementedError

    def _book_decodes(self, count: int, now_s: float) -> None:
        raise NotImplementedError

    def _run_length(self, now_s: float) -> tuple[int, float]:
        raise NotImplementedError

    def _drop_stale(self) -> None:
        raise NotImplementedError

    def _finish_decodes(self, now_s: float) -> None:
        raise NotImplementedError

    def _complete_prefill(self, request: Request, now_s: float) -> None:
        raise NotImplementedError

    def _flow(self, now_s: float) -> None:
        """Decisions and iterations from `now_s` on, at most `BURST` decisions; then back to the clock."""
        plan, waiting, kv, inbox = self.policy.plan, self.waiting, self.kv, self.inbox
        for _ in range(BURST):
            if self.decodes and not (waiting or self._back or self._front) and kv.committed < kv.total:
                now_s = self._decode_until(now_s)  # nothing to decide: every patient policy runs all decodes
                if self._count:
                    return
            self.now_s = now_s
            chunks, decoding = plan(self)
            if len(chunks) == 1:
                request, tokens = chunks[0]
                now_s = self._alone(request, tokens, decoding, now_s)
            elif chunks:
                now_s = self._mixed(chunks, decoding, now_s)
            elif decoding and not self.load_s:
                now_s = self._decode_once(now_s)
            elif not (decoding or self._evicted) and inbox.next_s < math.inf:  # idle up to the next arrival
                now_s = inbox.next_s
                inbox.pull(now_s)
            else:
                self._begin(chunks, decoding, now_s)
                return
            if self._count:
                return
        self._start(now_s)

    def _leave_open(self, first_s: float, step_s: float, count: int, start_s: float, end_s: float) -> None:
        """The run of iterations that reaches `until_s` or beyond: what arrives may end it earlier."""
        self._first_s, self._step_s, self._count, self._start_s, self.due_s = first_s, step_s, count, start_s, end_s

    def _mixed(self, chunks: list[tuple[Request, int]], decoding: bool, start_s: float) -> float:
        """One iteration with prefill chunks, start to end; the time of its end."""
        self.reserved = 0
        decodes, context = (self.decodes, self.context) if decoding else (0, 0)
        span_s = self.time.iteration_s(decodes, context, [(n, r.processed) for r, n in chunks]) + self.load_s
        self._evicted, self.load_s = False, 0.0
        now_s = start_s + span_s
        if now_s >= self.until_s:
            self._chunks, self._decoding = chunks, decoding
            self._leave_open(span_s, 0.0, 1, start_s, now_s)
            return now_s
        self.iterations += 1
        self.busy_s += now_s - start_s
        if decoding:
            self.passed = passed = self.passed + 1
            self.context = context + decodes
            self.gaps.decoded(decodes, span_s, 0.0, 1, start_s, now_s)
            if self._next_end <= passed:
                self._finish_decodes(now_s)
        for request, tokens in chunks:
            request.processed = done = request.processed + tokens
            if done < request.prefill:
                self._back.append(request)
            else:
                self._complete_prefill(request, now_s)
        if now_s >= self.samples.due_s:
            self.samples.take(now_s, self)
        if self.inbox.next_s <= now_s:
            self.inbox.pull(now_s)
        return now_s

    def _alone(self, request: Request, tokens: int, decoding: bool, now_s: float) -> float:
        """Iterations whose one chunk is `tokens` of `request`, as long as the policy has no choice; the time reached.

        With one token budget a prompt takes all that the decodes leave. So nothing can be admitted before its last
        chunk, which runs here too if nothing waits. Where memory could bind, the policy is asked.
        """
        gaps, waiting, inbox, samples, prefill = self.gaps, self.waiting, self.inbox, self.samples, request.prefill
        chunk_s, until_s, done, rounds = self.time.chunk_s, self.until_s, request.processed, 0
        first_s = begin_s = now_s
        decodes, context = (self.decodes, self.context) if decoding else (0, 0)
        budget = 0 if self._back or self._front or self.kv.committed >= self.kv.total else self._budget
        load_s, self.load_s, self.reserved, self._evicted = self.load_s, 0.0, 0, False
        while True:
            asked_s, queued = now_s, len(waiting)
            span_s = chunk_s(decodes, context, tokens, done) + load_s
            end_s = now_s + span_s
            if end_s >= until_s:
                self._chunks, self._decoding = [(request, tokens)], decoding
                self._leave_open(span_s, 0.0, 1, now_s, end_s)
                break
            load_s, rounds, done = 0.0, rounds + 1, done + tokens
            if decodes:
                self.passed = passed = self.passed + 1
                self.context = context = context + decodes
                if gaps.newer or now_s != gaps.older_s:
                    gaps.decoded(decodes, span_s, 0.0, 1, now_s, end_s)
                else:
                    gaps.single((span_s, decodes))
                    gaps.older_s = end_s
                if self._next_end <= passed:
                    self._finish_decodes(end_s)
                    decodes, context = self.decodes, self.context
            now_s = end_s
            if done >= prefill:
                self._complete_prefill(request, now_s)
            if now_s >= samples.due_s:
                self.busy_s, begin_s = self.busy_s + (now_s - begin_s), now_s
                samples.take(now_s, self)
            if inbox.next_s <= now_s:
                inbox.pull(now_s)
            if done >= prefill:
                break
            tokens = budget - decodes
            if tokens <= 0 or (waiting and prefill - done <= tokens):
                self._back.append(request)
                break
            if prefill - done < tokens:
                tokens = prefill - done
        request.processed = done
        self.iterations += rounds
        self.busy_s += now_s - begin_s
        if self._told and asked_s > first_s:
            self.policy.went_on(asked_s, queued)
        return now_s

    def _decode_once(self, now_s: float) -> float:
        """One run of decodes up to the next decision of the policy; the time of its end."""
        self.reserved = 0
        self._chunks, self._decoding, self._start_s = _NONE, True, now_s
        count, run_s = self._run_length(now_s)
        end_s = now_s + run_s
        if end_s >= self.until_s:
            self._count, self.due_s = count, end_s
            return end_s
        self.iterations += count
        self.busy_s += end_s - now_s
        self._book_decodes(count, end_s)
        if end_s >= self.samples.due_s:
            self.samples.take(end_s, self)
        if self.inbox.next_s <= end_s:
            self.inbox.pull(end_s)
        return end_s

    def _decode_until(self, now_s: float) -> float:
        """Decode runs from finish to finish up to the next arrival, if it is known; the time reached."""
        rows, until_s = self.gaps, self.until_s
        decode_line, next_s = self.time.decode_line, self.inbox.next_s
        decodes, context, passed, begin = self.decodes, self.context, self.passed, self.passed
        begin_s = now_s
        while decodes and now_s < next_s:
            if self._stale:
                self._drop_stale()
            count = self._next_end - passed
            first_s, step_s, valid = decode_line(decodes, context)
            if count > valid:
                count = valid
            run_s = count * first_s + step_s * (count * (count - 1) // 2)
            end_s = now_s + run_s
            if end_s >= next_s and count > 1:
                count = iterations_until(first_s, step_s, next_s - now_s)
                end_s = now_s + (count * first_s + step_s * (count * (count - 1) // 2))
            elif end_s >= until_s:
                self._chunks, self._decoding = _NONE, True
                self._leave_open(first_s, step_s, count, now_s, end_s)
                break
            if rows.newer or now_s != rows.older_s:
                rows.decoded(decodes, first_s, step_s, count, now_s, end_s)
            else:
                rows.run((first_s, step_s, count, decodes))
                rows.older_s = end_s
            now_s = end_s
            passed += count
            context += decodes * count
            if self._next_end <= passed:
                self.passed, self.context, self.decodes = passed, context, decodes
                self._finish_decodes(now_s)
                context, decodes = self.context, self.decodes
            if now_s >= self.samples.due_s:
                self.passed = passed
                self.busy_s, begin_s = self.busy_s + (now_s - begin_s), now_s
                self.samples.take(now_s, self)
        self.passed, self.context = passed, context
        self.iterations += passed - begin
        self.busy_s += now_s - begin_s
        if next_s <= now_s < math.inf:
            self.inbox.pull(now_s)
        return now_s
