"""Where groups lie: ranks of a tensor or expert group are neighbours, stages follow one another, then replicas."""

from __future__ import annotations

from hwsim.ir.mapped import Mapping


def stride(mapping: Mapping) -> int:
    """Devices between a rank and the same rank of the next stage: the widest group of one stage."""
    return max(mapping.tensor_parallel, mapping.expert_parallel)


def crossings(stages: int, width: int, node_size: int) -> int:
    """Of the `stages - 1` hand-overs, those whose busiest pair of ranks lies in two nodes."""
    node = max(node_size, 1)
    return sum((s * width) // node != ((s + 1) * width) // node for s in range(stages - 1))


def tiles_node(width: int, node_size: int) -> bool:
    """True where groups of `width` neighbours fill nodes without straddling: one divides the other."""
    node = max(node_size, 1)
    return node % width == 0 if width <= node else width % node == 0
