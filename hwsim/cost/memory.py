"""Memory budget of one device: weights, KV cache, activations, headroom, and the largest batch that fits.

usable = capacity x fraction (default 0.9, the `gpu_memory_utilization` default of vLLM). Activations are those of
one step of at most `MAX_STEP_TOKENS` tokens: engines chunk longer prefills, so a budget without chunking would
refuse batches that run in practice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsim.ir.numbers import Num

DEFAULT_MEMORY_FRACTION: Final = 0.9  # vLLM's default gpu_memory_utilization
MAX_STEP_TOKENS: Final = 8192  # vLLM's default max_num_batched_tokens for throughput serving


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes on one device. `max_batch` is 0 where not even one sequence fits; `fits` may be an array."""

    capacity_bytes: Num
    usable_bytes: Num
    weights_bytes: Num
    kv_cache_bytes: Num
    activations_bytes: Num
    headroom_bytes: Num
    fits: bool | np.ndarray
    max_batch: Num
    cache_room_bytes: Num | None = None  # where caches lie on other devices: what those hold for this one

    @property
    def needed_bytes(self) -> Num:
        cache = self.kv_cache_bytes if self.cache_room_bytes is None else 0
        return self.weights_bytes + cache + self.activations_bytes


@dataclass(frozen=True, slots=True)
class PerSequence:
    """What one sequence takes: cache bytes, and bytes and tokens of one step."""

    kv_bytes: Num
    step_bytes: Num
    step_tokens: Num = 1


def budget(
    capacity_bytes: Num,
    weights_bytes: Num,
    sequence: PerSequence,
    batch: Num,
    *,
    fraction: float = DEFAULT_MEMORY_FRACTION,
    cache_room: Num | None = None,
) -> MemoryBudget:
    """Budget of `batch` sequences; linear in the batch, so the largest batch is a division.

    `fraction`: share of the capacity that may be used. `cache_room`: bytes for caches on other devices; they then take
    no room here.
    """
    usable = capacity_bytes * fraction
    # sequences whose tokens share one step: the rest waits its turn and needs no activation memory
    together = MAX_STEP_TOKENS / np.maximum(sequence.step_tokens, 1)
    activations = sequence.step_bytes * np.minimum(batch, together)
    kv_cache = sequence.kv_bytes * batch
    here = sequence.kv_bytes if cache_room is None else 0
    needed = weights_bytes + here * batch + activations
    free = usable - weights_bytes
    small = np.floor(free / np.maximum(here + sequence.step_bytes, 1))
    large = np.floor((free - sequence.step_bytes * together) / np.maximum(here, 1))
    alone = (together >= 1) & (small <= together)  # all sequences of the largest batch share one step
    most = np.clip(np.where(alone, small, large), 0, 10**9)
    fits = needed <= usable
    if cache_room is not None:
        most = np.minimum(most, np.floor(cache_room / np.maximum(sequence.kv_bytes, 1)))
        fits = fits & (kv_cache <= cache_room)
    return MemoryBudget(
        capacity_bytes,
        usable,
        weights_bytes,
        kv_cache,
        _plain(activations),
        _plain(usable - needed),
        bool(fits) if np.ndim(fits) == 0 else fits,
        int(most) if np.ndim(most) == 0 else most,
        cache_room,
    )


def _plain(value: Num) -> Num:
    return value.item() if isinstance(value, np.generic) else value
