"""States of the path over stages: which kinds of sites are used, and which one runs the stage that ends here.

One order of the sites is a line of nodes. All orders at once are one node for each (how many sites of each kind are
used, kind of the last one): equal sites are one kind, so 8 equal devices make 8 nodes and 8 different ones 1024,
where 8! orders would be 40,320 lines. A site that is passed empty still forwards; those at either end cost nothing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NONE = -1  # no such predecessor


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes in batches whose predecessors all come earlier.

    Attributes
    ----------
    kind: (nodes,) kind of the site that runs the last stage.
    before: (nodes, kinds + 1) node before this one, by the kind of its site; the last one is the start. `NONE`: none.
    batches: (kind, nodes of that kind), to be walked in this order. ends: nodes in which all operators may end.
    """

    kind: Array
    before: Array
    batches: tuple[tuple[int, Array], ...]
    ends: Array

    @property
    def start(self) -> int:
        """Row of the state before any stage."""
        return len(self.kind)


def in_line(order: list[int], kinds: int) -> Nodes:
    """One order of the sites, given by their kinds."""
    n = len(order)
    before = np.full((n, kinds + 1), NONE)
    before[0, kinds] = n
    for d in range(1, n):
        before[d, order[d - 1]] = d - 1
    batches = tuple((k, np.array([d])) for d, k in enumerate(order))
    return Nodes(np.array(order), before, batches, np.array([n - 1]))


def count_all(counts: list[int]) -> int:
    """How many nodes all orders of `counts` sites of each kind have."""
    every = math.prod(c + 1 for c in counts)
    return sum(every * c // (c + 1) for c in counts)


def in_any_order(counts: list[int]) -> Nodes:
    """Every order of `counts` sites of each kind."""
    kinds = len(counts)
    used = sorted(itertools.product(*(range(c + 1) for c in counts)), key=sum)
    keys = [(u, k) for u in used for k in range(kinds) if u[k]]
    index = {key: at for at, key in enumerate(keys)}
    before = np.full((len(keys), kinds + 1), NONE)
    batches: dict[tuple[int, int], list[int]] = {}
    for at, (u, k) in enumerate(keys):
        old = (*u[:k], u[k] - 1, *u[k + 1 :])
        for last in range(kinds):
            before[at, last] = index.get((old, last), NONE)
        if not any(old):
            before[at, kinds] = len(keys)
        batches.setdefault((sum(u), k), []).append(at)
    walked = tuple((k, np.array(own)) for (_, k), own in batches.items())
    return Nodes(np.array([k for _, k in keys]), before, walked, np.arange(len(keys)))
