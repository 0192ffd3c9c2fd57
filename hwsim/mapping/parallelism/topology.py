"""Where groups lie: ranks of a tensor or expert group are neighbours, stages follow one another, then replicas."""

from __future__ import annotations

import numpy as np

from hwsim.ir.mapped import Mapping
from hwsim.ir.numbers import Num


def stride(mapping: Mapping) -> int:
    """Devices between a rank and the same rank of the next stage: the widest group of one stage."""
    return max(mapping.tensor_parallel, mapping.expert_parallel)


def crossings(stages: Num, width: int, node_size: int) -> Num:
    """Of the `stages - 1` hand-overs, those whose busiest pair of ranks lies in two nodes."""
    node = max(node_size, 1)
    first = np.arange(int(np.max(stages))) * width // node  # node of each stage's first rank
    crossed = np.concatenate([[0], np.cumsum(first[1:] != first[:-1])])
    found = crossed[np.asarray(stages) - 1]
    return int(found) if np.ndim(found) == 0 else found


def tiles_node(width: int, node_size: int) -> bool:
    """True where groups of `width` neighbours fill nodes without straddling: one divides the other."""
    node = max(node_size, 1)
    return node % width == 0 if width <= node else width % node == 0
