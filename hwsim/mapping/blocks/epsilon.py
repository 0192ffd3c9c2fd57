"""The epsilon constraint: the least product of two goals, by solves of one under falling caps on the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hwsim.errors import InfeasibleError, SolverError

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Point(Generic[Found]):
    """One solve: the answer, both goals, and a proved bound on the first goal under the cap."""

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


def least_product(
    solve: Callable[[float, float | None], Point[Found]],
    floor: float,
    *,
    budget_s: float | None = None,
    step: float = 1e-9,
) -> Product[Found]:
    """Minimise first x second.

    With b a bound on the first goal under a cap, nothing whose second goal lies between (best / b) and the cap can
    beat the incumbent, so the cap falls to that; when the solve under it finds nothing, the incumbent is proved.

    Parameters
    ----------
    solve: (cap on the second goal, seconds left) -> Point; raises InfeasibleError where nothing meets the cap.
    floor: a bound on the second goal. step: relative decrease of the cap at least made a solve.

    Raises
    ------
    InfeasibleError, SolverError: as `solve`, where the first call already fails.
    """
    begun, cap, solves = time.perf_counter(), math.inf, 0
    best: tuple[float, Found] | None = None
    bound = 0.0
    while True:
        left = None if budget_s is None else max(budget_s - (time.perf_counter() - begun), 0.1)
        try:
            point = solve(cap, left)
        except SolverError:  # out of time: what lies under the cap costs at least what was proved so far
            if best is None:
                raise
            return Product(best[1], best[0], min(bound * floor, best[0]), solves)
        except InfeasibleError:
            if best is None:
                raise
            return Product(best[1], best[0], best[0], solves)
        solves += 1
        value, bound = point.first * point.second, max(bound, point.bound)
        if best is None or value < best[0]:
            best = (value, point.found)
        lower = min(best[0] / bound if bound > 0 else cap, cap) * (1 - step)
        if lower < floor * (1 - step):
            return Product(best[1], best[0], best[0], solves)
        if lower >= cap * (1 - step):  # the solve under the cap left a gap: no cap can be excluded
            return Product(best[1], best[0], min(bound * floor, best[0]), solves)
        cap = lower
        if budget_s is not None and time.perf_counter() - begun > budget_s:
            return Product(best[1], best[0], min(bound * floor, best[0]), solves)
