"""How many tile pairs a fused attention visits, exactly: ragged last tiles and the causal staircase included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.mapping.fused.problem import Attention

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """For one tile of `queries` rows and an array of key tiles (shape (n,)); of one problem of the batch.

    pairs: (query class, key class, n) numbers of visited tile pairs; class 0 is any tile but the last, 1 the last.
    heights: rows of both query classes; widths: keys of both key classes, (2, n).
    cover: keys fetched with queries outside: every query tile fetches what it sees, but a tile still in hand stays.
    row_visits: rows fetched with keys outside, likewise. scores: elements of the visited pairs; row_pairs: rows x key
    tiles that they visit. reach: keys that any query sees, in whole tiles.
    """

    query_tiles: int
    pairs: Array
    heights: tuple[int, int]
    widths: Array
    cover: Array
    row_visits: Array
    scores: Array
    row_pairs: Array
    reach: Array


def geometry(a: Attention, queries: int, keys: Array) -> Geometry:
    """The visited pairs for a query tile of `queries` rows and key tiles `keys` (shape (n,))."""
    tiles = -(-a.rows // queries)
    start = np.arange(tiles, dtype=np.int64) * queries
    rows = np.minimum(queries, a.rows - start)
    last = np.minimum(a.prefix + (start + rows - 1) // a.group, a.keys - 1) if a.causal else np.full(tiles, a.keys - 1)
    size = np.asarray(keys, dtype=np.int64)[:, None]
    key_tiles = -(-a.keys // size)
    visits = last // size + 1  # (n, tiles)
    seen = np.minimum(visits * size, a.keys)
    at_end = (visits == key_tiles).astype(np.int64)
    before = visits - at_end
    pairs = np.stack(
        [
            np.stack([before[:, :-1].sum(axis=1), at_end[:, :-1].sum(axis=1)]),
            np.stack([before[:, -1], at_end[:, -1]]),
        ]
    )
    flat = size[:, 0]
    # a query tile that sees the first key tile only leaves it for the next one; the last query tile stays while the
    # key tiles that only it sees pass
    in_hand = seen[:, 0] * (visits[:, :-1] == 1).sum(axis=1)
    others = visits[:, -2] if tiles > 1 else np.zeros_like(flat)
    alone = visits[:, -1] - np.maximum(others, 1)
    row_pairs = (rows * visits).sum(axis=1)
    return Geometry(
        query_tiles=tiles,
        pairs=pairs,
        heights=(queries, int(rows[-1])),
        widths=np.stack([flat, a.keys - (key_tiles[:, 0] - 1) * flat]),
        cover=seen.sum(axis=1) - in_hand,
        row_visits=row_pairs - rows[-1] * alone,
        scores=(rows * seen).sum(axis=1),
        row_pairs=row_pairs,
        reach=seen.max(axis=1),
    )
