"""Batching policies on explicit request lists: one micro-batch at a time, for pipelined replicas.

These are also the slow references that the fast policies are tested against (one stage must give equal results).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from hwsim.errors import unknown_name
from hwsim.serving.request import Request

if TYPE_CHECKING:
    from hwsim.serving.pipeline import PipelineReplica

Batch = list[tuple[Request, int]]


class StagedPolicy(Protocol):
    """`form` moves requests from ``replica.ready`` and ``replica.waiting`` into the next micro-batch."""

    cap: int

    def form(self, replica: PipelineReplica) -> Batch: ...


def _arrival(request: Request) -> float:
    return request.arrival_s


def _grow(replica: PipelineReplica, request: Request) -> None:
    """One more block where the next token does not fit the held ones."""
    if request.processed > request.blocks * replica.kv.block_tokens:
        request.blocks += 1
        replica.kv.fixed += 1


def _room(replica: PipelineReplica, request: Request) -> bool:
    """Preempt from the end of the ready list until a block is free; False if the request itself had to go."""
    while replica.kv.fixed >= replica.kv.total:
        victim = replica.ready.pop() if replica.ready else request
        replica.preempt(victim)
        if victim is request:
            return False
    return True


@dataclass(slots=True)
class StagedOrca:
    """All ready requests, then whole prompts while the reservation fits."""

    cap: int = 256

    def form(self, replica: PipelineReplica) -> Batch:
        batch: Batch = []
        while replica.ready and len(batch) < self.cap:
            batch.append((replica.ready.pop(0), 1))
        while replica.waiting and len(batch) < self.cap and replica.kv.fits(replica.waiting[0], 0):
            request = replica.admit()
            batch.append((request, request.prefill))
        return batch


@dataclass(slots=True)
class StagedVLLM:
    """Prompts first (padded token limit), else decodes by arrival with preemption of the youngest."""

    cap: int = 256
    max_tokens: int = 4096

    def form(self, replica: PipelineReplica) -> Batch:
        micro = self.cap // replica.stages
        batch: Batch = []
        longest = 0
        while replica.waiting and replica.kv.holders < self.cap and len(batch) < micro:
            longest = max(longest, replica.waiting[0].prefill)
            if not replica.kv.fits(replica.waiting[0], 0) or (batch and (len(batch) + 1) * longest > self.max_tokens):
                break
            request = replica.admit()
            batch.append((request, request.prefill))
        return batch or self._decodes(replica, micro)

    def _decodes(self, replica: PipelineReplica, micro: int) -> Batch:
        batch: Batch = []
        replica.ready.sort(key=_arrival)
        while replica.ready and len(batch) < micro:
            request = replica.ready.pop(0)
            if _room(replica, request):
                _grow(replica, request)
                batch.append((request, 1))
        return batch


@dataclass(slots=True)
class StagedSarathi:
    """Decodes, then running prefills, then new ones, within one token budget."""

    cap: int = 256
    chunk: int = 512

    def form(self, replica: PipelineReplica) -> Batch:
        micro = self.cap // replica.stages
        batch, partial = self._decodes(replica, micro)
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
            request = replica.admit()
            tokens = min(request.prefill, budget)
            budget -= tokens
            batch.append((request, tokens))
        return batch

    def _decodes(self, replica: PipelineReplica, micro: int) -> tuple[Batch, list[Request]]:
        batch: Batch = []
        partial: list[Request] = []
        while replica.ready and len(batch) < micro:
            request = replica.ready.pop(0)
            if not request.decoding:
                partial.append(request)
            elif _room(replica, request):
                _grow(replica, request)
                batch.append((request, 1))
        return batch, partial


STAGED: Final[dict[str, Callable[..., StagedPolicy]]] = {
    "orca": StagedOrca,
    "vllm": StagedVLLM,
    "sarathi": StagedSarathi,
    "vllm_v1": StagedSarathi,
}


def make_staged_policy(name: str, **options: int) -> StagedPolicy:
    """A fresh policy for pipelined replicas by name. Raises UnknownNameError with the nearest names."""
    if name not in STAGED:
        raise unknown_name("batching policy for pipeline stages", name, STAGED)
    return STAGED[name](**options)
