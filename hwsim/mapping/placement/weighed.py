"""Problems whose seconds are weighed sums of seconds and joules, so that what minimises time minimises the sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.mapping.placement.chain import Chain
from hwsim.mapping.placement.problem import GraphProblem


def weighed_graph(problem: GraphProblem, joules: float, seconds: float) -> GraphProblem:
    """Time of everything becomes `joules` x its energy + `seconds` x its time; energies stay."""
    columns = (replace(c, time_s=joules * c.energy_j + seconds * c.time_s) for c in problem.columns)
    return replace(problem, columns=tuple(columns), **_links(problem, joules, seconds))


def weighed_chain(chain: Chain, joules: float, seconds: float) -> Chain:
    """The same for a chain; what a site cannot run it still cannot."""
    runs = np.isfinite(chain.time_s) & np.isfinite(chain.energy_j)
    time_s = np.full(chain.time_s.shape, np.inf)
    time_s[runs] = joules * chain.energy_j[runs] + seconds * chain.time_s[runs]
    return replace(chain, time_s=time_s, **_links(chain, joules, seconds))


def _links(of: GraphProblem | Chain, joules: float, seconds: float) -> dict[str, Any]:
    return {
        "seconds_per_byte": joules * of.joules_per_byte + seconds * of.seconds_per_byte,
        "latency_s": seconds * of.latency_s,
    }
