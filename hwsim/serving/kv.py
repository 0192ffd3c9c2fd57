"""KV-cache memory of one replica in blocks, with growth of all decoding sequences counted in O(1).

Every decoding sequence takes one more block each `block_tokens` iterations. Counting sequences by the iteration
number (modulo the block size) in which they do so gives the demand of any run of iterations without touching them.
"""

from __future__ import annotations

from hwsim.errors import InputError, LawViolation
from hwsim.serving.request import Request


class BlockPool:
    """Blocks of a paged cache (vLLM); ``reserve_tokens`` > 0 instead reserves that many tokens a request (Orca).

    Attributes
    ----------
    total, free: blocks.
    watermark: blocks that admission must leave free.
    holders: requests that hold blocks.
    """

    __slots__ = ("_growth", "block_tokens", "free", "holders", "reserve_blocks", "sequences", "total", "watermark")

    def __init__(
        self, total: int, block_tokens: int = 16, watermark_fraction: float = 0.01, reserve_tokens: int = 0
    ) -> None:
        if total < 1 or block_tokens < 1 or not 0 <= watermark_fraction < 1:
            raise InputError(
                "KV cache needs at least one block of at least one token and a watermark below 1",
                seen=f"blocks={total}, tokens={block_tokens}, watermark={watermark_fraction}",
            )
        self.total = self.free = total
        self.block_tokens = block_tokens
        self.watermark = int(watermark_fraction * total)
        self.reserve_blocks = reserve_tokens // block_tokens
        self.holders = 0
        self.sequences = 0
        self._growth = [0] * block_tokens

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens`; the whole reservation where requests reserve."""
        return self.reserve_blocks or -(-tokens // self.block_tokens)

    def fits(self, request: Request) -> bool:
        """Whether admission of the request's next prefill leaves the watermark free."""
        need = self.reserve_blocks or -(-request.prefill // self.block_tokens)
        return self.free - need >= (0 if self.reserve_blocks else self.watermark)

    def possible(self, request: Request) -> bool:
        """Whether the request could ever run alone: its prompt above the watermark, all its tokens in the pool."""
        if self.reserve_blocks:
            return request.total <= self.reserve_blocks * self.block_tokens and self.reserve_blocks <= self.total
        last = -(-(request.total - 1) // self.block_tokens)
        return -(-request.prompt // self.block_tokens) <= self.total - self.watermark and last <= self.total

    def admit(self, request: Request) -> None:
        """Take the blocks of the request's next prefill."""
        request.blocks = self.blocks_for(request.prefill)
        self.free -= request.blocks
        self.holders += 1

    def join(self, request: Request, iteration: int) -> None:
        """The request decodes from decode iteration `iteration` on."""
        self.sequences += 1
        request.phase = (iteration - request.prefill) % self.block_tokens
        self._growth[request.phase] += 1

    def leave(self, request: Request) -> None:
        """The request no longer decodes (finished, preempted, moved)."""
        self.sequences -= 1
        self._growth[request.phase] -= 1

    def release(self, request: Request, held: int) -> None:
        """Give back the `held` blocks of a request."""
        self.free += held
        self.holders -= 1

    def held(self, request: Request, cached_tokens: int) -> int:
        """Blocks of a request whose last iteration saw `cached_tokens` in its cache."""
        grown = -(-cached_tokens // self.block_tokens)
        return request.blocks if self.reserve_blocks or grown < request.blocks else grown

    def demand(self, iteration: int, count: int) -> int:
        """Blocks that all decoding sequences take in iterations ``iteration .. iteration + count - 1``."""
        if self.reserve_blocks or not count:
            return 0
        size, growth = self.block_tokens, self._growth
        if count == 1:
            return growth[iteration % size]
        rounds, rest = divmod(count, size)
        start = iteration % size
        end = start + rest
        partial = sum(growth[start:end]) if end <= size else sum(growth[start:]) + sum(growth[: end - size])
        return rounds * self.sequences + partial

    def grow(self, iteration: int, count: int) -> None:
        """Take the blocks of `count` decode iterations."""
        if not self.reserve_blocks:
            self.free -= self.demand(iteration, count)

    def safe_iterations(self, iteration: int, wanted: int, spare: int = 0) -> int:
        """How many of `wanted` iterations run with a block still free after each (vLLM asks for one a sequence).

        `spare` counts blocks that could be freed on demand (evictable prefix cache).
        """
        room = self.free + spare - 1
        if self.reserve_blocks or self.sequences * (wanted // self.block_tokens + 1) <= room:
            return wanted
        if room < 0:
            return 0
        rounds = min(wanted // self.block_tokens, room // self.sequences)
        left, count = room - rounds * self.sequences, rounds * self.block_tokens
        while count < wanted:
            left -= self._growth[(iteration + count) % self.block_tokens]
            if left < 0:
                break
            count += 1
        return count

    def check(self) -> None:
        """LAW-7: used + free = total, and both within bounds. Raises LawViolation."""
        if not 0 <= self.free <= self.total or (self.holders == 0 and self.free != self.total):
            raise LawViolation("LAW-7: KV blocks are not conserved", seen=f"{self.free} of {self.total} free")
