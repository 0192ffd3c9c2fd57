"""What routers and policies may ask of a replica beyond its plain attributes."""

from __future__ import annotations

from typing import Any

from hwsim.errors import InfeasibleError
from hwsim.serving.iteration_time import iterations_until
from hwsim.serving.request import Request


class Visible:
    """The questions that `Replica` answers; relies on the attributes that it documents."""

    kv: Any
    time: Any
    prefix: Any
    waiting: Any
    decodes: int
    context: int
    passed: int
    reserved: int
    clock: Any
    _count: int
    _decoding: bool
    _chunks: list[tuple[Request, int]]
    _start_s: float
    _first_s: float
    _step_s: float
    _order: dict[int, Request]
    _front: list[Request]
    _back: list[Request]

    def ended(self) -> int:
        """Decode iterations of the present run that have ended by now; `passed` counts those of earlier runs."""
        if not self._count or not self._decoding or self._chunks:
            return 0
        return min(self._count, iterations_until(self._first_s, self._step_s, self.clock.now - self._start_s)) - 1

    @property
    def kv_used(self) -> int:
        """Blocks in use now; a running iteration holds those of its next tokens."""
        running = self._count > 0 and self._decoding
        return int(self.kv.used(self.passed + (self.ended() + 1 if running else self.reserved)))

    def processed(self, request: Request) -> int:
        """Tokens of a decoding request after the last finished iteration."""
        return request.total - (request.finish_at - self.passed - self.ended())

    @property
    def prefilling(self) -> bool:
        """Whether prompts have begun and are not complete."""
        return bool(self._back or self._front)

    def run_and_remaining(self) -> list[tuple[int, int]]:
        """(tokens in the cache, tokens still to generate after the next) of every decoding request."""
        passed = self.passed
        return [(r.total - r.finish_at + passed, max(0, r.finish_at - passed - 1)) for r in self._order.values()]

    def require_possible(self, request: Request) -> None:
        """Raise InfeasibleError for a request that is larger than the whole KV cache."""
        if not self.kv.possible(request):
            raise InfeasibleError(
                f"{request!r} can never run: it needs more KV cache than the replica has",
                seen=f"{self.kv.total} blocks of {self.kv.block_tokens} tokens, watermark {self.kv.watermark}",
                fix="give the replica more KV blocks, or drop or shorten the request",
                budget={"kv_tokens": float(self.kv.total * self.kv.block_tokens)},
            )

    def cached_tokens(self, request: Request) -> int:
        """Tokens of the request's prompt that this replica's prefix cache holds."""
        return self.prefix.peek(request.prefix) if self.prefix is not None and request.prefix else 0

    def predicted_first_token_s(self, request: Request) -> float:
        """Seconds until this request's first token if prefills ran one after another from now on."""
        ahead = sum(r.prefill - r.processed for r in (*self._front, *self._back, *self.waiting))
        tokens = ahead + request.prompt - self.cached_tokens(request)
        context = self.context + self.decodes * self.ended()
        return self.time.iteration_s(self.decodes, context, [(max(1, tokens), 0)])
