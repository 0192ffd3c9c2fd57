"""What a tiling is chosen for: energy, latency, their product or a weighted sum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from hwsim.errors import unknown_name

Objective = Literal["energy", "latency", "edp", "weighted"]
OBJECTIVES: Final = ("energy", "latency", "edp", "weighted")
# weights of pJ and of cycles
WEIGHTED: Final = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\*energy\+(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\*latency")


@dataclass(frozen=True, slots=True)
class Goal:
    """Value of (energy, cycles), and the largest cycles at which `energy` still beats a value."""

    name: str
    value: Callable[[float, float], float]
    reach: Callable[[float, float], float]


def goal_of(objective: str, weights: tuple[float, float] = (0.5, 0.5)) -> Goal:
    """The goal called `objective`; `weights` are of a pJ and of a cycle for ``weighted``.

    ``0.7*energy+0.3*latency`` is short for ``weighted`` with these weights. Raises UnknownNameError.
    """
    if objective == "energy":
        return Goal("energy", lambda e, c: e, lambda e, best: math.inf if e < best else 0.0)
    if objective == "edp":
        return Goal("edp", lambda e, c: e * c, lambda e, best: best / e)
    if objective == "weighted":
        we, wc = weights
        return Goal("weighted", lambda e, c: we * e + wc * c, lambda e, best: (best - we * e) / max(wc, 1e-300))
    if objective == "latency":
        return Goal("latency", lambda e, c: c, lambda e, best: best)
    terms = WEIGHTED.fullmatch(objective)
    if terms:
        return goal_of("weighted", (float(terms[1]), float(terms[2])))
    raise unknown_name("objective", objective, (*OBJECTIVES, "0.7*energy+0.3*latency"))
