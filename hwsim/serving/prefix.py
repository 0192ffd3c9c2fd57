"""Prefix cache of one replica: blocks of shared prompts in tiers of memory, least recently used blocks move down.

A block id stands for a whole prefix (equal ids mean equal tokens up to and including the block), so the tree of
prefixes is walked by looking ids up in order. Blocks found below the first tier are loaded before the prefill runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Tier:
    """One memory: how many blocks it holds and how fast they load into the device (tokens/s; inf for HBM)."""

    name: str
    blocks: int
    tokens_per_s: float = float("inf")


class PrefixCache:
    """LRU over tiers. `hit_tokens` and `asked_tokens` count what lookups found and wanted."""

    def __init__(self, block_tokens: int, tiers: Sequence[Tier]) -> None:
        if block_tokens < 1 or not tiers or any(t.blocks < 1 or not t.tokens_per_s > 0 for t in tiers):
            raise InputError("a prefix cache needs blocks of at least a token and tiers that hold and load blocks")
        self.block_tokens, self.tiers = block_tokens, tuple(tiers)
        self._held: list[OrderedDict[int, None]] = [OrderedDict() for _ in tiers]
        self.hit_tokens = self.asked_tokens = 0

    def peek(self, blocks: Sequence[int]) -> int:
        """Tokens of the longest cached prefix; changes nothing."""
        count = 0
        while count < len(blocks) and any(blocks[count] in tier for tier in self._held):
            count += 1
        return count * self.block_tokens

    def match(self, blocks: Sequence[int], prompt: int) -> tuple[int, float]:
        """(cached tokens, seconds to load them) of a prompt; its blocks become the most recently used.

        At least one token is left to compute, since the first output needs it.
        """
        tokens = min(self.peek(blocks), prompt - 1)
        load_s = 0.0
        found = blocks[: -(-tokens // self.block_tokens)]
        for block in found:  # take all out first: putting one back may push the next one down
            for level, tier in enumerate(self._held):
                if block in tier:
                    load_s += self.block_tokens / self.tiers[level].tokens_per_s
                    del tier[block]
                    break
        for block in found:
            self._put(block)
        self.hit_tokens += tokens
        self.asked_tokens += prompt
        return tokens, load_s

    def insert(self, blocks: Sequence[int]) -> None:
        """Remember the blocks of a finished prefill."""
        for block in blocks:
            for tier in self._held:
                tier.pop(block, None)
            self._put(block)

    def _put(self, block: int) -> None:
        """Into the first tier; what overflows a tier moves to the next, and out of the last."""
        for level, tier in enumerate(self._held):
            tier[block] = None
            if len(tier) <= self.tiers[level].blocks:
                return
            block, _ = tier.popitem(last=False)

    def check(self) -> bool:
        """Every tier within its size and no block in two tiers."""
        every = [block for tier in self._held for block in tier]
        sized = all(len(tier) <= spec.blocks for tier, spec in zip(self._held, self.tiers, strict=True))
        return sized and len(every) == len(set(every))
