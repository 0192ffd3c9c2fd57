"""KV-cache memory of one replica in blocks, with growth of all decoding sequences counted in O(1).

All decoding sequences advance together. One that joined at decode counter j with p tokens holds ceil((p + D - j)/B)
blocks of B tokens at counter D. With u = p - j the sum over sequences is (n D + sum(u) + sum((-(D + u)) mod B)) / B:
a count, a sum and a histogram of residues, no loop over sequences. A bound on the final need of all admitted requests
says in O(1) that memory cannot bind, which is the common case.
"""

from __future__ import annotations

from operator import mul

from hwsim.errors import InputError, LawViolation
from hwsim.serving.request import Request


class BlockPool:
    """Blocks of a paged cache (vLLM); ``reserve_tokens`` > 0 instead reserves that many tokens a request (Orca).

    Attributes
    ----------
    total: blocks. `watermark`: blocks that admission must leave free.
    holders: requests that hold blocks.
    committed: blocks that all holders would need at their ends; below `total`, memory cannot bind.
    fixed: blocks of holders that do not decode, and reservations.
    """

    __slots__ = (
        "_offsets",
        "_residues",
        "block_tokens",
        "committed",
        "extra",
        "fixed",
        "holders",
        "reserve_blocks",
        "sequences",
        "total",
        "watermark",
    )

    def __init__(
        self, total: int, block_tokens: int = 16, watermark_fraction: float = 0.01, reserve_tokens: int = 0
    ) -> None:
        if total < 1 or block_tokens < 1 or not 0 <= watermark_fraction < 1:
            raise InputError(
                "KV cache needs at least one block of at least one token and a watermark below 1",
                seen=f"blocks={total}, tokens={block_tokens}, watermark={watermark_fraction}",
            )
        self.total = total
        self.block_tokens = block_tokens
        self.watermark = 0 if reserve_tokens else int(watermark_fraction * total)
        self.reserve_blocks = reserve_tokens // block_tokens
        self.holders = self.sequences = self.committed = self.fixed = self.extra = 0
        self._offsets = 0
        self._residues = [0] * block_tokens

    def used(self, iteration: int) -> int:
        """Blocks in use when the decode counter stands at `iteration`."""
        if not self.sequences or self.reserve_blocks:
            return self.fixed
        size = self.block_tokens
        start = iteration % size
        slack = sum(map(mul, range(size), self._residues[start:] + self._residues[:start]))
        return self.fixed + (self.sequences * iteration + self._offsets + slack) // size

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens`; the whole reservation where requests reserve."""
        return self.reserve_blocks or -(-tokens // self.block_tokens)

    def fits(self, request: Request, iteration: int) -> bool:
        """Whether admission of the request's next prefill leaves the watermark free.

        A request whose cache is there already decodes at once: its next token counts.
        """
        tokens = request.prefill + request.kv_ready
        need = (self.reserve_blocks or -(-tokens // self.block_tokens)) + self.watermark
        return self.committed + need <= self.total or self.used(iteration) + need <= self.total

    def possible(self, request: Request) -> bool:
        """Whether the request could ever run alone: its prompt above the watermark, all its tokens in the pool."""
        if self.reserve_blocks:
            return request.total <= self.reserve_blocks * self.block_tokens and self.reserve_blocks <= self.total
        size = self.block_tokens
        return -(-request.prompt // size) <= self.total - self.watermark and request.total - 1 <= self.total * size

    def admit(self, request: Request) -> None:
        """Take the blocks of the request's next prefill."""
        size = self.block_tokens
        request.blocks = blocks = self.reserve_blocks or -(-request.prefill // size)
        self.fixed += blocks
        self.holders += 1
        self.committed += self.reserve_blocks or -(-(request.total - 1) // size)

    def join(self, request: Request, iteration: int) -> None:
        """The request decodes from decode iteration `iteration` on."""
        self.sequences += 1
        if not self.reserve_blocks:
            request.offset = offset = request.prefill - iteration
            self.fixed -= request.blocks
            self._offsets += offset
            self._residues[-offset % self.block_tokens] += 1

    def leave(self, request: Request, iteration: int) -> None:
        """The request stops decoding; its blocks count as fixed until released."""
        self.sequences -= 1
        if not self.reserve_blocks:
            offset = request.offset
            request.blocks = -(-(offset + iteration) // self.block_tokens)
            self.fixed += request.blocks
            self._offsets -= offset
            self._residues[-offset % self.block_tokens] -= 1

    def finish(self, request: Request) -> None:
        """A decoding request ends with all its tokens: `leave` and `release` in one."""
        self.sequences -= 1
        self.holders -= 1
        if self.reserve_blocks:
            self.fixed -= self.reserve_blocks
            self.committed -= self.reserve_blocks
        else:
            size, offset = self.block_tokens, request.offset
            self._offsets -= offset
            self._residues[-offset % size] -= 1
            self.committed -= -(-(request.total - 1) // size)

    def release(self, request: Request) -> int:
        """Give back all blocks of a request that does not decode; their number."""
        blocks = request.blocks
        self.fixed -= blocks
        self.holders -= 1
        self.committed -= self.reserve_blocks or -(-(request.total - 1) // self.block_tokens)
        return blocks

    def grows(self, request: Request, iteration: int) -> bool:
        """Whether a decoding request takes a block in iteration `iteration`."""
        return not self.reserve_blocks and (request.offset + iteration) % self.block_tokens == 0

    def safe_iterations(self, iteration: int, wanted: int) -> int:
        """How many of `wanted` iterations run with a block still free after each (vLLM asks for one a sequence)."""
        if self.committed < self.total or self.reserve_blocks:
            return wanted
        room = self.total - 1 - self.used(iteration)
        if self.sequences * (wanted // self.block_tokens + 1) <= room:
            return wanted
        if room < 0:
            return 0
        rounds = min(wanted // self.block_tokens, room // self.sequences)
        left, count = room - rounds * self.sequences, rounds * self.block_tokens
        while count < wanted:
            left -= self._residues[(iteration + count) % self.block_tokens]
            if left < 0:
                break
            count += 1
        return count

    def check(self) -> None:
        """LAW-7 when nothing runs: every block is free again. Raises LawViolation."""
        if self.fixed or self.holders or self.sequences or self.committed or self._offsets or any(self._residues):
            raise LawViolation("LAW-7: KV blocks are not conserved", seen=f"{self.fixed} of {self.total} still held")
