"""The shortest path over stages: least sum or least maximum of what stages cost, with the stages themselves.

f[node, b]: least cost of stages over the first b operators, the last one run by the node's site. A stage over
operators a..b-1 costs what the site needs for them plus what it receives at cut a.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import SolverError
from hwsim.mapping.placement.chain import Chain
from hwsim.mapping.placement.stages.nodes import Nodes
from hwsim.mapping.placement.stages.segments import legal, prefix, within

Array = np.ndarray[Any, Any]
CELLS: Final = 2_000_000  # of one array: 16 MB


@dataclass(frozen=True, eq=False)
class Costs:
    """Time and energy of segments and hops, by kind of site, to be weighed.

    Attributes
    ----------
    legal: of each kind, (n + 1, n + 1). time_s, energy_j: (kinds, n + 1) prefix sums.
    hop_s, hop_j: (kinds + 1, kinds, n + 1), from a kind (last: the start) to a kind at a cut; 0 at both ends.
    """

    legal: tuple[Array, ...]
    time_s: Array
    energy_j: Array
    hop_s: Array
    hop_j: Array

    def stage(self, kind: int, seconds: float, joules: float) -> Array:
        """Weighed cost of a stage over a..b-1 without what it receives; inf where it is not legal."""
        cost = within(seconds * self.time_s[kind] + joules * self.energy_j[kind])
        return np.where(self.legal[kind], cost, np.inf)


def costs_of(chain: Chain, members: list[list[int]]) -> Costs:
    """Costs of a chain on kinds of sites; `members`: the sites of each kind."""
    n, kinds = len(chain.names), len(members)
    hops = np.zeros((2, kinds + 1, kinds, n + 1))
    for k, source in enumerate(members):
        for m, target in enumerate(members):
            pair = (source[0], target[-1])  # two different ones of a kind, where there are two
            hops[:, k, m, 1:n] = chain.hop_s(*pair), chain.hop_j(*pair)
    first = [own[0] for own in members]
    return Costs(
        tuple(legal(chain, s) for s in first),
        np.array([prefix(chain.time_s[:, s]) for s in first]),
        np.array([prefix(chain.energy_j[:, s]) for s in first]),
        hops[0],
        hops[1],
    )


@dataclass(frozen=True, slots=True)
class Path:
    """Least cost, and the boundaries of its stages: `ends[s]` operators lie in stages 0..s, run by `kinds[s]`."""

    cost: float
    kinds: list[int]
    ends: list[int]


def shortest_path(
    nodes: Nodes, costs: Costs, seconds: float, joules: float, *, busiest: bool = False, deadline: float = math.inf
) -> Path | None:
    """Least sum of weighed costs, or (`busiest`) least cost of the dearest stage; None where nothing is legal.

    Raises SolverError after the deadline (of `time.perf_counter`).
    """
    hops = seconds * costs.hop_s + joules * costs.hop_j
    n = costs.time_s.shape[1] - 1
    at = np.full((nodes.start + 2, n + 1), np.inf)  # the last row is what `NONE` points to
    at[nodes.start, 0] = 0.0
    own = [costs.stage(k, seconds, joules) for k in range(len(costs.legal))]
    for kind, batch in nodes.batches:
        if time.perf_counter() > deadline:
            raise SolverError(
                "the paths over stages did not finish", seen="time limit", fix="allow more time (--budget)"
            )
        at[batch] = _arrive(at, nodes.before[batch], hops[:, kind], own[kind], busiest)
    end = int(nodes.ends[np.argmin(at[nodes.ends, n])])
    return _trace(nodes, at, hops, own, end, busiest) if math.isfinite(at[end, n]) else None


def _arrive(at: Array, before: Array, hops: Array, own: Array, busiest: bool) -> Array:
    """Cost of one more stage, shape (batch, n + 1)."""
    if not busiest:
        ready = np.full((len(before), at.shape[1]), np.inf)
        for k in np.flatnonzero((before >= 0).any(axis=0)):
            np.minimum(ready, at[before[:, k]] + hops[k], out=ready)
        return _least(ready, own, np.add)
    out = np.full((len(before), at.shape[1]), np.inf)
    for row in np.unique(hops[(before >= 0).any(axis=0)], axis=0):
        alike = np.flatnonzero((hops == row).all(axis=1))
        np.minimum(out, _least(at[before[:, alike]].min(axis=1), own + row[:, None], np.maximum), out=out)
    return out


def _least(ready: Array, own: Array, join: Any) -> Array:
    """min over a of join(ready[., a], own[a, b]), in parts that stay small."""
    step = max(CELLS // own.size, 1)
    parts = [join(ready[i : i + step, :, None], own).min(axis=1) for i in range(0, len(ready), step)]
    return np.concatenate(parts)


def _trace(nodes: Nodes, at: Array, hops: Array, own: list[Array], node: int, busiest: bool) -> Path:
    end = at.shape[1] - 1
    cost, kinds, ends = float(at[node, end]), [], []
    while node != nodes.start:
        kind = int(nodes.kind[node])
        old = at[nodes.before[node]]
        if busiest:
            through = np.maximum(old, hops[:, kind] + own[kind][:, end])
        else:
            through = old + hops[:, kind] + own[kind][:, end]
        kinds.append(kind)
        ends.append(end)
        last, end = (int(i) for i in np.unravel_index(np.argmin(through), through.shape))
        node = int(nodes.before[node, last])
    return Path(cost, kinds[::-1], ends[::-1])
