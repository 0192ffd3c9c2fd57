"""What is tiled: one GEMM, or a batch of equal ones, and the decision about its loops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwsim.errors import InputError
from hwsim.mapping.machine import DIMS

LARGEST_COUNT = 2**53  # every access count stays exact in a float64, so energies and LP coefficients do too


@dataclass(frozen=True, slots=True)
class Gemm:
    """Z[b,m,n] = sum over k of A[b,m,k] x B[b,k,n]; `repeat` equal executions are costed once and scaled."""

    m: int
    n: int
    k: int
    batch: int = 1
    name: str = "gemm"

    def __post_init__(self) -> None:
        for label, value in (("m", self.m), ("n", self.n), ("k", self.k), ("batch", self.batch)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{label} of a GEMM is a positive integer", where=self.name, seen=repr(value))
        if self.macs * 4 > LARGEST_COUNT:
            raise InputError(
                "the GEMM has too many multiply-accumulates for exact counts",
                where=self.name,
                seen=f"{self.macs:.3g}",
                fix="split the batch",
            )

    @property
    def extents(self) -> tuple[int, int, int]:
        return (self.m, self.n, self.k)

    @property
    def macs(self) -> int:
        return self.m * self.n * self.k * self.batch

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Elements of A, B and Z of one member of the batch."""
        return (self.m * self.k, self.k * self.n, self.m * self.n)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Loop factors of every level, near to far; the product over a dimension covers its extent.

    Attributes
    ----------
    temporal: per level the factors of (M, N, K) looped at that level.
    spatial: per level but the last the factors spread over that level's fan-out.
    order: per level the dimensions from the OUTERMOST loop to the innermost, e.g. ``"NMK"``.
    keep: per level which tensors it holds, e.g. ``"ABZ"``.
    batch_spatial: members of a batch that run side by side on the farthest fan-out.

    An uneven tiling is one on a machine whose level was split in two of one group (`machine.split_level`): each
    tensor sits in one of the halves, so tensors of one memory are tiled at different depths of the loop nest.
    """

    temporal: tuple[tuple[int, int, int], ...]
    spatial: tuple[tuple[int, int, int], ...]
    order: tuple[str, ...]
    keep: tuple[str, ...]
    batch_spatial: int = 1

    def __post_init__(self) -> None:
        levels = len(self.temporal)
        if not (len(self.order) == len(self.keep) == levels and len(self.spatial) == levels - 1):
            raise InputError("a tiling gives factors, order and keep for every level", seen=repr(self)[:200])
        if any(sorted(o) != sorted(DIMS) for o in self.order):
            raise InputError("an order names M, N and K once each", seen=repr(self.order))

    def tile(self, level: int) -> tuple[int, int, int]:
        """Extents (M, N, K) of the tile that one instance of `level` works on."""
        out = []
        for d in range(3):
            inner = math.prod(self.temporal[i][d] for i in range(level + 1))
            out.append(inner * math.prod(self.spatial[i][d] for i in range(level)))
        return (out[0], out[1], out[2])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "temporal": [list(t) for t in self.temporal],
            "spatial": [list(s) for s in self.spatial],
            "order_outer_to_inner": list(self.order),
            "keep": list(self.keep),
            "batch_spatial": self.batch_spatial,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tiling:
        """The inverse of `to_dict`. Raises InputError for a malformed document."""
        try:
            return cls(
                temporal=tuple(_triple(t) for t in data["temporal"]),
                spatial=tuple(_triple(s) for s in data["spatial"]),
                order=tuple(data["order_outer_to_inner"]),
                keep=tuple(data["keep"]),
                batch_spatial=int(data.get("batch_spatial", 1)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "not a tiling document", seen=repr(data)[:200], fix="see docs/recipes/mapper.md"
            ) from error


Loops = Tiling  # for mapper files that call their own class Tiling


def _triple(values: Sequence[Any]) -> tuple[int, int, int]:
    m, n, k = (int(v) for v in values)
    if min(m, n, k) < 1:
        raise ValueError("factors are >= 1")
    return (m, n, k)


@dataclass(frozen=True, slots=True)
class Counts:
    """Words moved by one execution: per level and tensor reads, fills (from farther) and updates (from nearer).

    `reads[level][tensor]` and so on; `cycles_by` seconds-like parts in cycles: ``compute`` and each level by name.
    """

    reads: Any
    fills: Any
    updates: Any
    cycles_by: dict[str, Any] = field(default_factory=dict)
    energy_by: dict[str, Any] = field(default_factory=dict)
    utilization: Any = 1.0

    @property
    def energy(self) -> Any:
        """pJ of one execution."""
        total: Any = 0.0
        for part in self.energy_by.values():
            total = total + part
        return total

    @property
    def cycles(self) -> Any:
        """Clock cycles: the slowest of compute and every level, rounded up (perfect overlap)."""
        import numpy as np

        parts = list(self.cycles_by.values())
        worst = parts[0]
        for part in parts[1:]:
            worst = np.maximum(worst, part)
        return np.ceil(worst * (1 - 1e-13))
