"""Batching policies of one replica: which prefill chunks run in the next iteration, and whether decodes run too.

A policy is asked at every iteration boundary where something could change. It admits requests through
`Boundary.admit` and answers a `Plan`; the replica repeats a decode-only plan by itself up to the next event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hwsim.errors import unknown_name
from hwsim.serving.iteration_time import UNBOUNDED
from hwsim.serving.kv import BlockPool
from hwsim.serving.request import Request

Plan = tuple[list[tuple[Request, int]], bool]


class Boundary(Protocol):
    """A replica at an iteration boundary: all that a policy may read and do there.

    Attributes
    ----------
    waiting: admission queue. kv: memory. record: results of the run. now_s: time of the boundary.
    decodes: decoding requests. passed, reserved: decode iterations so far, and 1 once those of the next hold memory.
    prefilling: whether prompts have begun and are not complete.
    """

    waiting: Any
    kv: BlockPool
    record: Any
    now_s: float
    decodes: int
    passed: int
    reserved: int

    @property
    def prefilling(self) -> bool: ...

    def fits(self, request: Request) -> bool:
        """Whether the head of the queue could be admitted now."""

    def admit(self) -> Request | None:
        """Take the head of the queue and its memory; None if it starts decoding at once."""

    def take_partial(self) -> list[Request]:
        """Requests whose prefill is not complete, in the order in which they continue."""

    def put_back(self, skipped: list[Request]) -> None:
        """Requests that got no chunk; they come first next time."""

    def reserve_decode(self) -> None:
        """Take memory for the next token of every decoding request: preempt the last ones where it is short."""

    def release_held(self) -> None:
        """Give back the memory of finished members of a static batch."""

    def run_and_remaining(self) -> list[tuple[int, int]]:
        """(tokens in the cache, tokens still to generate after the next) of every decoding request."""


class Policy(Protocol):
    """What a batching policy must answer. Add one by writing a class with these members.

    Attributes
    ----------
    cap: most requests that hold KV memory at a time.
    by_arrival: preemption walks the running requests by arrival, not in the order in which they began to decode.
    """

    cap: int
    by_arrival: bool

    def plan(self, replica: Boundary) -> Plan:
        """Prefill chunks of the next iteration as (request, tokens), and whether decoding requests run in it."""

    def horizon(self, replica: Boundary) -> int:
        """Decode-only iterations after which the policy wants to be asked again though nothing happened."""

    def ran(self, iterations: int) -> None:
        """`iterations` decode-only iterations have passed."""


class Patient:
    """Defaults of policies that change their mind only at arrivals, finishes and memory events."""

    __slots__ = ()
    by_arrival = False

    def horizon(self, replica: Boundary) -> int:
        return UNBOUNDED

    def ran(self, iterations: int) -> None:
        return None


class Budgeted(Patient):
    """Policies with one token budget: decodes first, then prompts that have begun, then new ones.

    While the chunks of one prompt take the whole budget there is nothing to decide: the replica goes on with it.
    """

    __slots__ = ()
    chunk: int

    def went_on(self, asked_s: float, queued: int) -> None:
        """It did; it would have asked last at `asked_s`, with `queued` requests waiting."""


def admit_whole(replica: Boundary, cap: int) -> list[tuple[Request, int]]:
    """Admit while memory and `cap` allow; each request runs its whole prompt in the next iteration."""
    chunks: list[tuple[Request, int]] = []
    while replica.waiting and replica.kv.holders < cap and replica.fits(replica.waiting[0]):
        request = replica.admit()
        if request is not None:
            chunks.append((request, request.prefill - request.processed))
    return chunks


@dataclass(slots=True)
class Orca(Patient):
    """Iteration-level batching: every iteration runs all running requests and whole prompts of new ones.

    Memory for the longest sequence is reserved at admission (Yu et al., OSDI 2022, section 4.2).
    """

    cap: int = 256

    def plan(self, replica: Boundary) -> Plan:
        replica.reserve_decode()
        return admit_whole(replica, self.cap), replica.decodes > 0


@dataclass(slots=True)
class VLLM(Patient):
    """Prefill first: an iteration holds either whole prompts or all decodes; paged KV with a watermark.

    Prompts of one iteration are padded to the longest for the token limit (Kwon et al., SOSP 2023; vLLM 0.2).
    """

    cap: int = 256
    max_tokens: int = 4096
    by_arrival: bool = True

    def plan(self, replica: Boundary) -> Plan:
        if replica.waiting:
            chunks = self.admit(replica)
            if chunks:
                return chunks, False
        replica.reserve_decode()
        return [], replica.decodes > 0

    def admit(self, replica: Boundary) -> list[tuple[Request, int]]:
        """Requests whose prompts run next. One alone may exceed the token limit, else it would wait for ever."""
        chunks: list[tuple[Request, int]] = []
        longest = 0
        waiting, kv = replica.waiting, replica.kv
        while waiting:
            head = waiting[0]
            if kv.holders >= self.cap or not kv.fits(head, replica.passed):
                break
            padded = max(longest, head.prefill)
            if chunks and (len(chunks) + 1) * padded > self.max_tokens:
                break
            longest = padded
            request = replica.admit()
            if request is not None:
                chunks.append((request, request.prefill - request.processed))
        return chunks


@dataclass(slots=True)
class Sarathi(Budgeted):
    """Chunked prefill: decodes first, then prefill chunks up to a token budget (Agrawal et al., OSDI 2024)."""

    cap: int = 256
    chunk: int = 512

    def plan(self, replica: Boundary) -> Plan:
        replica.reserve_decode()
        budget = self.chunk - replica.decodes
        chunks: list[tuple[Request, int]] = []
        if replica.prefilling:
            budget = self.resume(replica, replica.take_partial(), budget, chunks)
        if budget > 0 and replica.waiting:
            self.admit(replica, budget, chunks)
        return chunks, replica.decodes > 0

    def resume(self, replica: Boundary, partial: list[Request], budget: int, chunks: list[tuple[Request, int]]) -> int:
        """Chunks of prompts that have begun; what they leave of the token budget."""
        skipped: list[Request] = []
        for request in partial:
            tokens = request.prefill - request.processed
            if tokens > budget:
                tokens = budget
            if tokens <= 0:
                skipped.append(request)
                continue
            budget -= tokens
            chunks.append((request, tokens))
        if skipped:
            replica.put_back(skipped)
        return budget

    def admit(self, replica: Boundary, budget: int, chunks: list[tuple[Request, int]]) -> None:
        """First chunks of new prompts while budget, batch cap and memory last."""
        waiting, kv, counter = replica.waiting, replica.kv, replica.passed + replica.reserved
        while waiting and budget > 0 and kv.holders < self.cap and kv.fits(waiting[0], counter):
            request = replica.admit()
            if request is not None:
                tokens = request.prefill - request.processed
                if tokens > budget:
                    tokens = budget
                budget -= tokens
                chunks.append((request, tokens))


@dataclass(slots=True)
class VLLM1(Sarathi):
    """vLLM's V1 engine: one token budget for prompts and decodes, scheduled one iteration ahead of the device.

    With asynchronous scheduling (the default since 0.14) iteration k+1 is put together while k runs, so that a
    request that arrives during k joins k+2; `ahead` = 0 switches that off. Use without a watermark.
    """

    cap: int = 256
    chunk: int = 2048
    ahead: int = 1
    noticed: int = 0
    overlooked: bool = False
    planned_s: float = -1.0

    def plan(self, replica: Boundary) -> Plan:
        waiting, begun, decodes = replica.waiting, replica.prefilling, replica.decodes
        answer: Plan = ([], True)
        if not (self.ahead and (decodes or begun)):  # idle
            self.noticed, self.planned_s = len(waiting), replica.now_s
        if self.noticed or begun or not decodes or replica.kv.committed >= replica.kv.total:
            answer = Sarathi.plan(self, replica)
        self.overlooked = self.noticed < len(waiting) and self.ahead > 0
        self.noticed, self.planned_s = len(waiting), replica.now_s
        return answer

    def admit(self, replica: Boundary, budget: int, chunks: list[tuple[Request, int]]) -> None:
        """New prompts that the scheduler has seen; the others wait for the iteration after the next."""
        if not self.ahead:
            Sarathi.admit(self, replica, budget, chunks)
            return
        waiting, kv = replica.waiting, replica.kv
        while self.noticed > 0 and waiting and budget > 0 and kv.holders < self.cap and replica.fits(waiting[0]):
            self.noticed -= 1
            request = replica.admit()
            if request is not None and not request.restarts:
                replica.record.scheduled_s[request.index] = self.planned_s
            if request is not None:
                tokens = min(request.prefill - request.processed, budget)
                budget -= tokens
                chunks.append((request, tokens))

    def horizon(self, replica: Boundary) -> int:
        return 1 if self.overlooked else UNBOUNDED

    def went_on(self, asked_s: float, queued: int) -> None:
        self.planned_s, self.noticed = asked_s, queued


@dataclass(slots=True)
class LightLLM:
    """Token-level memory with a forecast of the peak, and prefills only every `patience` decode iterations.

    The forecast sorts requests by remaining tokens: the peak of ``remaining x rank + cumulated run length`` must
    stay below the pool (ModelTC/lightllm router). Use with blocks of one token.
    A new request counts with its prompt and `counted` tokens run, and all of its output but `spared` to come.
    """

    cap: int = 256
    max_tokens: int = 4096
    patience: int = 10
    counted: int = 1
    spared: int = 2
    waited: int = 0
    by_arrival: bool = False

    def plan(self, replica: Boundary) -> Plan:
        if not replica.decodes or self.waited >= self.patience:
            idle = not replica.decodes
            chunks = self.admit(replica)
            if chunks or not idle:
                self.waited = 0
            if chunks:
                return chunks, False
            if idle:
                return [], replica.decodes > 0  # those whose cache came from elsewhere
        replica.reserve_decode()
        return [], replica.decodes > 0

    def admit(self, replica: Boundary) -> list[tuple[Request, int]]:
        forecast = replica.run_and_remaining()
        chunks: list[tuple[Request, int]] = []
        total = 0
        while replica.waiting:
            head = replica.waiting[0]
            if (chunks and total + head.prefill > self.max_tokens) or replica.kv.holders >= self.cap:
                break
            forecast.append((head.prefill + self.counted, max(0, head.total - head.prefill - self.spared)))
            if peak_tokens(forecast) >= replica.kv.total:
                break
            total += head.prefill
            request = replica.admit()
            if request is not None:
                chunks.append((request, request.prefill - request.processed))
        return chunks

    def horizon(self, replica: Boundary) -> int:
        return max(1, self.patience - self.waited) if replica.waiting else UNBOUNDED

    def ran(self, iterations: int) -> None:
        passed = self.waited + iterations
        self.waited = passed if passed <= self.patience else (passed - 1) % max(1, self.patience) + 1


def peak_tokens(forecast: list[tuple[int, int]]) -> int:
    """Largest number of tokens held at any future time if no more requests join (tokens run, tokens remaining)."""
    forecast.sort(key=lambda item: -item[1])
    peak = held = 0
    for rank, (run, remaining) in enumerate(forecast, start=1):
        held += run
        peak = max(peak, remaining * rank + held)
    return peak


@dataclass(slots=True)
class Static(Patient):
    """FasterTransformer: a batch is formed when the replica is empty and runs until its last request is done.

    Memory of the longest sequence is held for each member until the whole batch ends.
    """

    cap: int = 64
    hold_memory: bool = True

    def plan(self, replica: Boundary) -> Plan:
        if replica.decodes:
            replica.reserve_decode()
            return [], replica.decodes > 0
        replica.release_held()
        chunks = admit_whole(replica, self.cap)
        return chunks, not chunks and replica.decodes > 0  # those whose cache came from elsewhere


POLICIES: Final[dict[str, Callable[..., Policy]]] = {
    "orca": Orca,
    "vllm": VLLM,
    "sarathi": Sarathi,
    "vllm_v1": VLLM1,
    "lightllm": LightLLM,
    "faster_transformer": Static,
    "static": Static,
}


def make_policy(name: str, **options: int) -> Policy:
    """A fresh policy by name. Raises UnknownNameError with the nearest names."""
    if name not in POLICIES:
        raise unknown_name("batching policy", name, POLICIES)
    return POLICIES[name](**options)
