"""The least product of two goals, by solves of weighed sums: it always lies on the convex hull.

For the least product (e, t) and any other answer (e', t'), t e' + e t' >= 2 sqrt(e t e' t') >= 2 e t: the least
product is itself an answer of least t e' + e t'. So sums suffice, and no cap on either goal is needed. Between two
answers with their supporting lines, nothing lies below the corner of the lines; the product is quasi-concave, so over
that triangle it is least at a corner.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from hwsim.errors import SolverError

Found = TypeVar("Found")
Line = tuple[float, float, float]  # a first + b second >= c holds for every answer
EVEN: Final = 1e-12  # relative: answers nearer to a line than this lie on it


@dataclass(frozen=True, slots=True)
class Corner(Generic[Found]):
    """One solve: the answer, both goals, and a proved bound on the weighed sum."""

    found: Found
    first: float
    second: float
    bound: float


@dataclass(frozen=True, slots=True)
class Product(Generic[Found]):
    """The best product, what was proved of it, and how many solves it took."""

    found: Found
    value: float
    bound: float
    solves: int


@dataclass(frozen=True, slots=True)
class _Gap(Generic[Found]):
    """What may lie between two answers; `floor` bounds the product there."""

    left: Corner[Found]
    right: Corner[Found]
    lines: tuple[Line, Line]
    floor: float


def least_product_on_hull(
    solve: Callable[[float, float, float | None], Corner[Found]], *, budget_s: float | None = None
) -> Product[Found]:
    """Minimise first x second, both >= 0.

    Parameters
    ----------
    solve: (weight of the first goal, weight of the second, seconds left) -> answer of least weighed sum.

    Raises
    ------
    InfeasibleError, SolverError: as `solve`, where one of the first two calls (each goal alone) already fails.
    """
    begun, ties = time.perf_counter(), itertools.count()

    def left_s() -> float | None:
        return None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.05)

    ends = solve(1.0, 0.0, left_s()), solve(0.0, 1.0, left_s())
    best, solves, closed = min(ends, key=_product), 2, math.inf
    gaps = [_entry(*ends, ((1.0, 0.0, ends[0].bound), (0.0, 1.0, ends[1].bound)), ties)]
    while gaps and gaps[0][0] < min(_product(best), closed) * (1 - EVEN):
        gap = heapq.heappop(gaps)[2]
        a, b = gap.left.second - gap.right.second, gap.right.first - gap.left.first
        unit = a * gap.left.first + b * gap.left.second
        if min(a, b) <= 0 or (budget_s is not None and time.perf_counter() - begun > budget_s):
            closed = min(closed, gap.floor)
            continue
        try:
            new = solve(a / unit, b / unit, left_s())
        except SolverError:  # out of time: the corner of the lines still bounds what lies here
            closed = min(closed, gap.floor)
            continue
        solves += 1
        best = min(best, new, key=_product)
        line = (a / unit, b / unit, new.bound)
        if (a * new.first + b * new.second) / unit < 1 - EVEN:
            heapq.heappush(gaps, _entry(gap.left, new, (gap.lines[0], line), ties))
            heapq.heappush(gaps, _entry(new, gap.right, (line, gap.lines[1]), ties))
        else:
            closed = min(closed, *(max(_corner(line, old), gap.floor) for old in gap.lines))
    value = _product(best)
    bound = min(value, closed, gaps[0][0] if gaps else math.inf)
    return Product(best.found, value, value if bound >= value * (1 - 1e-9) else bound, solves)


def _product(of: Corner[Found]) -> float:
    return of.first * of.second


def _entry(
    left: Corner[Found], right: Corner[Found], lines: tuple[Line, Line], ties: itertools.count[int]
) -> tuple[float, int, _Gap[Found]]:
    floor = _corner(*lines)
    return floor, next(ties), _Gap(left, right, lines, floor)


def _corner(one: Line, other: Line) -> float:
    """Product where two lines meet; 0 where they do not (nothing is known then)."""
    (a, b, c), (d, e, f) = one, other
    det = a * e - b * d
    if abs(det) <= EVEN * max(abs(a * e), abs(b * d)):
        return 0.0
    return max((c * e - b * f) / det, 0.0) * max((a * f - c * d) / det, 0.0)
