"""Ranks that step together: attention is data-parallel, the experts of each layer lie over all ranks (DP-EP).

Each rank schedules requests of its own in KV memory of its own, but every layer exchanges tokens between all ranks. So
a step begins on all of them at once and lasts as long as that of the slowest; a rank without work takes part with a
dummy batch of one token, as vLLM's does, and all rest only when none has work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwsim.errors import InfeasibleError
from hwsim.serving.clock import BOUNDARY, Clock
from hwsim.serving.pipeline import PipelineReplica


class Rank(PipelineReplica):
    """One rank: batches as a replica of one stage, in the steps of its group. `dummies` counts those without work."""

    group: LockStep
    dummies = 0

    def wake(self, now_s: float) -> None:
        self.group.wake(now_s)


class LockStep:
    """The steps of a group of ranks."""

    def __init__(self, clock: Clock, ranks: Sequence[Rank]) -> None:
        self.clock, self.ranks = clock, tuple(ranks)
        self._busy = self._woken = False
        for rank in self.ranks:
            rank.group = self

    def wake(self, now_s: float) -> None:
        """Begin a step at `now_s`, after all other events of that instant, unless one runs."""
        if not self._busy and not self._woken:
            self._woken = True
            self.clock.at(now_s, self._begin, None, BOUNDARY)

    def _begin(self, event: Any) -> None:
        self._woken = False
        if not self._busy:
            self._step(self.clock.now)

    def _step(self, now_s: float) -> None:
        """Form a batch on each rank and run them together; rest where all are empty."""
        batches = [(rank, rank.policy.form(rank)) for rank in self.ranks]
        if not any(batch for _, batch in batches):
            self._rest()
            return
        step_s = max(self._seconds(rank, batch) for rank, batch in batches)
        end_s = now_s + step_s
        started = []
        for rank, batch in batches:
            rank.busy_s += step_s
            if batch:
                started.append((rank, rank.take_off(batch, step_s, [end_s], now_s)))
            else:
                rank.dummies += 1
        self._busy = True
        self.clock.at(end_s, self._end, started, BOUNDARY)

    def _seconds(self, rank: Rank, batch: Any) -> float:
        load_s, rank.load_s = rank.load_s, 0.0
        return load_s + (rank.seconds(batch) if batch else rank.time.iteration_s(1, 1, []))

    def _end(self, event: Any) -> None:
        self._busy = False
        for rank, number in event.value:
            rank.land(number, self.clock.now)
        self._step(self.clock.now)

    def _rest(self) -> None:
        for rank in self.ranks:
            if rank.waiting or rank.ready:
                stuck = next(iter(rank.ready or rank.waiting))
                raise InfeasibleError(f"{stuck!r} waits at an idle rank that cannot run it")
