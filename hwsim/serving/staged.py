"""Batching policies on explicit request lists: one micro-batch at a time, for pipelined replicas.

These are also the slow references that the fast policies are tested against (one stage must give equal results).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from hwsim.errors import unknown_name
from hwsim.serving.kv import BlockPool
from hwsim.serving.policies import peak_tokens
from hwsim.serving.request import Request

Batch = list[tuple[Request, int]]


class Stages(Protocol):
    """A pipelined replica with room for one more micro-batch: all that a policy may read and do there.

    Attributes
    ----------
    waiting: admission queue. ready: admitted requests that are in no micro-batch. kv: memory. stages: of the pipeline.
    """

    waiting: Any
    ready: list[Request]
    kv: BlockPool
    stages: int

    def admit(self) -> Request:
        """Take the head of the queue and its memory; `processed` says what its cache holds already."""

    def preempt(self, victim: Request) -> None:
        """The victim loses its cache and waits again, first."""

    def run_and_remaining(self) -> list[tuple[int, int]]:
        """(tokens in the cache, tokens still to generate after the next) of every request here."""


class StagedPolicy(Protocol):
    """`form` moves requests from ``replica.ready`` and ``replica.waiting`` into the next micro-batch.

    Attributes
    ----------
    holds: memory of finished requests is given back by the policy (`ended`), not at once.
    """

    cap: int
    holds: bool

    def form(self, replica: Stages) -> Batch: ...

    def ended(self, request: Request) -> None:
        """A request has its last token."""

    def left(self, request: Request) -> None:
        """A request has gone elsewhere, or lost its cache."""

    def forget(self, replica: Stages) -> None:
        """The replica lost everything: give back what was held for finished requests."""


class Simple:
    """Defaults of policies that remember nothing of their micro-batches."""

    __slots__ = ()
    holds = False

    def ended(self, request: Request) -> None:
        return None

    def left(self, request: Request) -> None:
        return None

    def forget(self, replica: Stages) -> None:
        return None


def _arrival(request: Request) -> float:
    return request.arrival_s


def _grow(replica: Stages, request: Request) -> None:
    """One more block where the next token does not fit the held ones."""
    if request.processed > request.blocks * replica.kv.block_tokens:
        request.blocks += 1
        replica.kv.fixed += 1


def _room(replica: Stages, request: Request) -> bool:
    """Preempt from the end of the ready list until a block is free; False if the request itself had to go."""
    while replica.kv.fixed >= replica.kv.total:
        victim = replica.ready.pop() if replica.ready else request
        replica.preempt(victim)
        if victim is request:
            return False
    return True


def _decodes(replica: Stages, most: int) -> tuple[Batch, list[Request]]:
    """Up to `most` decodes in the order of the ready list, and the requests met whose prompts are not complete."""
    batch: Batch = []
    partial: list[Request] = []
    while replica.ready and len(batch) < most:
        request = replica.ready.pop(0)
        if not request.decoding:
            partial.append(request)
        elif _room(replica, request):
            _grow(replica, request)
            batch.append((request, 1))
    return batch, partial


def _left(request: Request) -> int:
    """Tokens of the next pass of a request without a budget: the rest of its prompt, or one."""
    return 1 if request.decoding else request.prefill - request.processed


@dataclass(slots=True)
class StagedOrca(Simple):
    """All ready requests, then whole prompts while the reservation fits."""

    cap: int = 256

    def form(self, replica: Stages) -> Batch:
        batch: Batch = []
        while replica.ready and len(batch) < self.cap:
            batch.append((replica.ready.pop(0), 1))
        while replica.waiting and len(batch) < self.cap and replica.kv.fits(replica.waiting[0], 0):
            request = replica.admit()
            batch.append((request, _left(request)))
        return batch


@dataclass(slots=True)
class StagedVLLM(Simple):
    """Prompts first (padded token limit), else decodes by arrival with preemption of the youngest."""

    cap: int = 256
    max_tokens: int = 4096

    def form(self, replica: Stages) -> Batch:
        micro = self.cap // replica.stages
        batch: Batch = []
        longest = 0
        while replica.waiting and replica.kv.holders < self.cap and len(batch) < micro:
            longest = max(longest, replica.waiting[0].prefill)
            if not replica.kv.fits(replica.waiting[0], 0) or (batch and (len(batch) + 1) * longest > self.max_tokens):
                break
            request = replica.admit()
            if request.decoding:  # its cache came from elsewhere
                replica.ready.append(request)
            else:
                batch.append((request, _left(request)))
        if batch:
            return batch
        replica.ready.sort(key=_arrival)
        return _decodes(replica, micro)[0]


@dataclass(slots=True)
class StagedSarathi(Simple):
    """Decodes, then running prefills, then new ones, within one token budget."""

    cap: int = 256
    chunk: int = 512

    def micro(self, replica: Stages) -> int:
        """Most requests of a micro-batch."""
        return self.cap // replica.stages

    def form(self, replica: Stages) -> Batch:
        micro = self.micro(replica)
        batch, partial = _decodes(replica, micro)
        budget = self.chunk - len(batch)
        skipped: list[Request] = []
        for request in partial:
            tokens = min(request.prefill - request.processed, budget)
            if tokens > 0:
                budget -= tokens
                batch.append((request, tokens))
            else:
                skipped.append(request)
        replica.ready = sorted(skipped + replica.ready, key=_arrival)
        while replica.waiting and replica.kv.holders < self.cap and len(batch) < micro and budget > 0:
            if not replica.kv.fits(replica.waiting[0], 0):
                break
            budget -= self._admit(replica, budget, batch)
        return batch

    def _admit(self, replica: Stages, budget: int, batch: Batch) -> int:
        """Add the head of the queue to the micro-batch; what it takes of the budget."""
        request = replica.admit()
        if request.decoding:
            _grow(replica, request)
            batch.append((request, 1))
            return 0
        tokens = min(_left(request), budget)
        batch.append((request, tokens))
        return tokens


@dataclass(slots=True)
class StagedVLLM1(StagedSarathi):
    """vLLM's V1 engine: a micro-batch takes every request that is in none; the cap is of all together."""

    def micro(self, replica: Stages) -> int:
        return self.cap


@dataclass(slots=True)
class StagedLightLLM(Simple):
    """Token-level memory with a forecast of its peak over all requests here, those in other micro-batches included.

    LightLLM itself has no pipeline stages; this is its rule with `patience` counted in micro-batches.
    """

    cap: int = 256
    max_tokens: int = 4096
    patience: int = 10
    waited: int = 0

    def form(self, replica: Stages) -> Batch:
        idle = not replica.ready
        if idle or self.waited >= self.patience:
            batch = self._prompts(replica)
            if batch or not idle:
                self.waited = 0
            if batch:
                return batch
        if not replica.ready:
            return []
        self.waited += 1
        return _decodes(replica, self.cap // replica.stages)[0]

    def _prompts(self, replica: Stages) -> Batch:
        forecast = replica.run_and_remaining()
        batch: Batch = []
        total = 0
        while replica.waiting and len(batch) < self.cap // replica.stages:
            head = replica.waiting[0]
            if (batch and total + head.prefill > self.max_tokens) or replica.kv.holders >= self.cap:
                break
            forecast.append((head.prefill + 1, max(0, head.total - head.prefill - 2)))
            if peak_tokens(forecast) >= replica.kv.total:
                break
            total += head.prefill
            request = replica.admit()
            if request.decoding:
                replica.ready.append(request)
            else:
                batch.append((request, _left(request)))
        return batch


@dataclass(slots=True)
class StagedStatic:
    """FasterTransformer: a batch is formed of waiting requests and runs until its last one is done.

    There are as many batches at a time as stages. Memory of each member is held until its whole batch has ended.
    """

    cap: int = 64
    holds: bool = True
    batches: list[list[Request]] = field(default_factory=list)

    def form(self, replica: Stages) -> Batch:
        self._release(replica)
        if not replica.ready:
            self._begin(replica)
        if not replica.ready:
            return []
        members = next(batch for batch in self.batches if any(replica.ready[0] is r for r in batch))
        mine = [r for r in members if any(r is other for other in replica.ready)]
        new = [r for r in mine if not r.decoding]
        run = new or mine
        replica.ready = [r for r in replica.ready if not any(r is other for other in run)]
        return [(request, _left(request)) for request in run]

    def _begin(self, replica: Stages) -> None:
        batch: list[Request] = []
        while replica.waiting and len(batch) < self.cap and replica.kv.holders < self.cap * replica.stages:
            if not replica.kv.fits(replica.waiting[0], 0):
                break
            batch.append(replica.admit())
        if batch:
            self.batches.append(batch)
            replica.ready.extend(batch)

    def _release(self, replica: Stages) -> None:
        over = [batch for batch in self.batches if all(r.processed >= r.total for r in batch)]
        self.batches = [batch for batch in self.batches if not any(batch is other for other in over)]
        for batch in over:
            for request in batch:
                replica.kv.release(request)

    def ended(self, request: Request) -> None:
        return None

    def left(self, request: Request) -> None:
        self.batches = [[other for other in batch if other is not request] for batch in self.batches]

    def forget(self, replica: Stages) -> None:
        for batch in self.batches:
            for request in batch:
                if request.processed >= request.total:
                    replica.kv.release(request)
        self.batches.clear()


STAGED: Final[dict[str, Callable[..., StagedPolicy]]] = {
    "orca": StagedOrca,
    "vllm": StagedVLLM,
    "sarathi": StagedSarathi,
    "vllm_v1": StagedVLLM1,
    "lightllm": StagedLightLLM,
    "faster_transformer": StagedStatic,
    "static": StagedStatic,
}


def make_staged_policy(name: str, **options: int) -> StagedPolicy:
    """A fresh policy for pipelined replicas by name. Raises UnknownNameError with the nearest names."""
    if name not in STAGED:
        raise unknown_name("batching policy for pipeline stages", name, STAGED)
    return STAGED[name](**options)
