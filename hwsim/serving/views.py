"""What routers and policies may ask of a replica beyond its plain attributes."""

from __future__ import annotations

from typing import Any

from hwsim.errors import InfeasibleError
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
    _order: dict[int, Request]
    _front: list[Request]
    _back: list[Request]

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
        return self.time.iteration_s(self.decodes, self.context, [(max(1, tokens), 0)])
