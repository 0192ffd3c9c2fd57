"""Which segments of a chain a site can run as one stage: all operators possible, all memory there.

A stage is operators a..b-1 of the chain, so what it holds is known from its ends alone, weights that far operators
share included: each is stored once where any of its readers lies in the segment.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.mapping.placement.chain import Chain
from hwsim.mapping.placement.problem import SLACK

Array = np.ndarray[Any, Any]


def prefix(values: Array) -> Array:
    """Sums of the first 0..n values, what is not finite left out, shape (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(np.where(np.isfinite(values), values, 0.0))])


def within(sums: Array) -> Array:
    """Sum of values a..b-1 from prefix sums, shape (n + 1, n + 1); negative below the diagonal."""
    out: Array = sums[None, :] - sums[:, None]
    return out


def legal(chain: Chain, site: int) -> Array:
    """Segments a..b-1 (a = b: an empty stage) that the site can run and hold, shape (n + 1, n + 1)."""
    n = len(chain.names)
    tables = (chain.time_s, chain.energy_j, chain.memory_bytes)
    banned = ~np.all([np.isfinite(t[:, site]) for t in tables], axis=0)
    held = within(prefix(chain.memory_bytes[:, site]))
    for size, positions in chain.shared:
        reads = np.zeros(n)
        reads[list(positions)] = 1.0
        held += size * (within(prefix(reads)) > 0.5)
    fits = held <= chain.sites[site].memory_bytes * (1 + SLACK)
    out: Array = np.triu(fits & (within(prefix(banned.astype(float))) < 0.5))
    return out
