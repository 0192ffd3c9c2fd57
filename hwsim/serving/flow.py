"""Runs of iterations without an event each, where a replica knows all its arrivals ahead.

A replica whose arrivals come through an inbox depends on nothing outside, so iterations with prefill chunks and runs
of decodes follow each other in one loop. The arithmetic is that of the event-driven path, in the same order: results
are equal to the last bit.
"""

from __future__ import annotations

import math
from typing import Any, Final

from hwsim.serving.iteration_time import iterations_until
from hwsim.serving.request import Request

BURST: Final = 256  # iterations with chunks before the clock gets its turn again


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
    _heap: list[tuple[int, int, Request]]
    _front: list[Request]
    _back: list[Request]
    _stale: int
    _evicted: bool

    def _begin(self, chunks: list[tuple[Request, int]], decoding: bool, now_s: float) -> None:
        raise NotImplementedError

    def _start(self, now_s: float) -> None:
        raise NotImplementedError

    def _drop_stale(self) -> None:
        raise NotImplementedError

    def _finish_decodes(self, now_s: float) -> None:
        raise NotImplementedError

    def _complete_prefill(self, request: Request, now_s: float) -> None:
        raise NotImplementedError

    def _flow(self, now_s: float) -> None:
        """Iterations from `now_s` on, up to `BURST` with chunks; then back to the clock."""
        plan, mixed, waiting, kv = self.policy.plan, self._mixed, self.waiting, self.kv
        for _ in range(BURST):
            if self.decodes and not (waiting or self._back or self._front or kv.committed >= kv.total):
                now_s = self._decode_until(now_s)  # nothing to decide: every patient policy runs all decodes
            self.now_s = now_s
            chunks, decoding = plan(self)
            if not chunks:
                self._begin(chunks, decoding, now_s)
                return
            now_s = mixed(chunks, decoding, now_s)
        self._start(now_s)

    def _mixed(self, chunks: list[tuple[Request, int]], decoding: bool, start_s: float) -> float:
        """One iteration with prefill chunks, start to end; the time of its end."""
        self.reserved = 0
        decodes, context = (self.decodes, self.context) if decoding else (0, 0)
        span_s = self.time.iteration_s(decodes, context, [(n, r.processed) for r, n in chunks]) + self.load_s
        self._evicted, self.load_s = False, 0.0
        now_s = start_s + span_s
        self.iterations += 1
        self.busy_s += now_s - start_s
        if decoding:
            self.passed = passed = self.passed + 1
            self.context = context + decodes
            self.gaps.decoded(decodes, span_s, 0.0, 1, start_s, now_s)
            heap = self._heap
            if heap and heap[0][0] <= passed:
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

    def _decode_until(self, now_s: float) -> float:
        """Decode runs from finish to finish up to the next arrival, which is known; the time reached."""
        heap, rows = self._heap, self.gaps
        decode_line, next_s = self.time.decode_line, self.inbox.next_s
        decodes, context, passed, begin = self.decodes, self.context, self.passed, self.passed
        begin_s = now_s
        while decodes and now_s < next_s:
            if self._stale:
                self._drop_stale()
            count = heap[0][0] - passed
            first_s, step_s, valid = decode_line(decodes, context)
            if count > valid:
                count = valid
            run_s = count * first_s + step_s * (count * (count - 1) // 2)
            if now_s + run_s >= next_s and count > 1:
                count = iterations_until(first_s, step_s, next_s - now_s)
                run_s = count * first_s + step_s * (count * (count - 1) // 2)
            end_s = now_s + run_s
            if rows.newer or now_s != rows.older_s:
                rows.decoded(decodes, first_s, step_s, count, now_s, end_s)
            else:
                rows.add((first_s, step_s, count, decodes))
                rows.older_s = end_s
            now_s = end_s
            passed += count
            context += decodes * count
            if heap[0][0] <= passed:
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
