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


def budget(
    capacity_bytes: Num,
    weights_bytes: Num,
    kv_bytes_per_sequence: Num,
    step_bytes_per_sequence: Num,
    batch: Num,
    *,
    step_tokens_per_sequence: Num = 1,
    fraction: float = DEFAULT_MEMORY_FRACTION,
    cache_room: Num | None = None,
) -> MemoryBudget:
    """Budget of `batch` sequences; linear in the batch, so the largest batch is a division.

    `cache_room`: bytes for caches on other devices; they then take no room here.
    """
    usable = capacity_bytes * fraction
    # sequences whose tokens share one step: the rest waits its turn and needs no activation memory
    together = MAX_STEP_TOKENS / np.maximum(step_tokens_per_sequence, 1)
    activations = step_bytes_per_sequence * np.minimum(batch, together)
    kv_cache = kv_bytes_per_sequence * batch
    here = kv_bytes_per_sequence if cache_room is None else 0
    needed = weights_bytes + here * batch + activations
    free = usable - weights_bytes
    small = np.floor(free / np.maximum(here + step_bytes_per_sequence, 1))
    large = np.floor((free - step_bytes_per_sequence * together) / np.maximum(here, 1))
    alone = (together >= 1) & (small <= together)  # all sequences of the largest batch share one step
    most = np.clip(np.where(alone, small, large), 0, 10**9)
    fits = needed <= usable
    if cache_room is not None:
        most = np.minimum(most, np.floor(cache_room / np.maximum(kv_bytes_per_sequence, 1)))
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
