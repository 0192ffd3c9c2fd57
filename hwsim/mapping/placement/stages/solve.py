"""Proved contiguous stages by shortest paths: sums and the busiest stage in one walk, the product in a few."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import numpy as np

from hwsim.errors import InfeasibleError, SolverError
from hwsim.mapping.blocks.hull import Corner, least_product_on_hull
from hwsim.mapping.placement.answer import Staging, judged
from hwsim.mapping.placement.chain import Chain, cost_of_stages, kinds
from hwsim.mapping.placement.stages.nodes import Nodes, count_all, in_any_order, in_line
from hwsim.mapping.placement.stages.walk import Path, costs_of, shortest_path
from hwsim.mapping.placement.verify import chain_floor

Array = np.ndarray[Any, Any]
Found = tuple[Array, tuple[int, ...]]  # stages, order of the sites
NAME: Final = "stages"
VERSION: Final = "shortest paths"
MOST_STEPS: Final = 3e9  # additions of all walks over all orders, about 5 s; beyond, the given order alone
WALKS: Final = 8  # that a product takes, about
WEIGHTS: Final = {"latency": (1.0, 0.0), "throughput": (1.0, 0.0), "energy": (0.0, 1.0)}  # of seconds, of joules


def best_stages(chain: Chain, objective: str, *, any_order: bool = True, budget_s: float | None = None) -> Staging:
    """The least contiguous stages over all orders of the sites (`any_order`) or in the given one, proved.

    Where all orders are too many steps, the given order is answered; where they do not end within the budget, too,
    with the cheapest site of every operator as the bound.

    Raises InfeasibleError (without details) where no stages are legal.
    """
    begun = time.perf_counter()
    walker = _Walker(chain, objective, any_order)
    how = f"{VERSION}, {'given order' if walker.given else 'all orders'}"
    try:
        (stages, order), bound = walker.best(math.inf if budget_s is None else begun + budget_s)
    except SolverError:
        (stages, order), _ = _Walker(chain, objective, any_order=False).best(math.inf)
        bound = chain_floor(chain, objective)
    value = cost_of_stages(chain, stages, order).value(objective)
    return Staging(stages, order, judged(NAME, how, value, bound, time.perf_counter() - begun))


class _Walker:
    """One chain, its nodes and costs, and what is minimised."""

    def __init__(self, chain: Chain, objective: str, any_order: bool) -> None:
        kind = kinds(chain)
        names = sorted(set(kind))
        self.chain, self.objective = chain, objective
        self.members = [[s for s, k in enumerate(kind) if k == name] for name in names]
        self.costs = costs_of(chain, self.members)
        counts = [len(own) for own in self.members]
        walks = {"throughput": len(names), "edp": WALKS}.get(objective, 1)
        steps = walks * count_all(counts) * (len(chain.names) + 1) ** 2
        self.given = len(names) > 1 and (not any_order or steps > MOST_STEPS)  # else all orders, of one kind just one
        self.nodes: Nodes = in_line([names.index(k) for k in kind], len(names)) if self.given else in_any_order(counts)

    def best(self, deadline: float) -> tuple[Found, float]:
        """Stages with their order, and the bound. Raises SolverError after the deadline."""
        if self.objective != "edp":
            path = self._path(*WEIGHTS[self.objective], deadline)
            return self._read(path), path.cost

        def weighed(joules: float, seconds: float, left_s: float | None) -> Corner[Found]:
            path = self._path(seconds, joules, deadline)
            found = self._read(path)
            cost = cost_of_stages(self.chain, *found)
            return Corner(found, cost.energy_j, cost.time_s, path.cost)

        best = least_product_on_hull(weighed)
        return best.found, best.bound

    def _path(self, seconds: float, joules: float, deadline: float) -> Path:
        busiest = self.objective == "throughput"
        path = shortest_path(self.nodes, self.costs, seconds, joules, busiest=busiest, deadline=deadline)
        if path is None:
            raise InfeasibleError(f"no contiguous stages of {self.chain.name} fit")
        return path

    def _read(self, path: Path) -> Found:
        """Stages, and the sites in their order; those that no stage was given to come last."""
        free = [list(own) for own in self.members]
        used = list(range(len(self.chain.sites))) if self.given else [free[k].pop(0) for k in path.kinds]
        rest = [] if self.given else sorted(s for own in free for s in own)
        stages = np.searchsorted(np.array(path.ends), np.arange(len(self.chain.names)), side="right")
        return stages, (*used, *rest)
