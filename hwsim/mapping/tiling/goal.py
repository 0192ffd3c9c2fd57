"""What a tiling is chosen for: energy, latency, their product or a weighted sum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from hwsim.errors import InputError, unknown_name

Objective = Literal["energy", "latency", "edp", "weighted"]
OBJECTIVES: Final = ("energy", "latency", "edp", "weighted")
# weights of pJ and of cycles
_NUMBER: Final = r"([+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))"
WEIGHTED: Final = re.compile(_NUMBER + r"\*energy\+" + _NUMBER + r"\*latency")
LARGEST_WEIGHT: Final = 1e100  # and its inverse the least: sums of weighted pJ and cycles stay numbers


@dataclass(frozen=True, slots=True)
class Goal:
    """Value of (energy, cycles), and the largest cycles at which `energy` still beats a value."""

    name: str
    value: Callable[[float, float], float]
    reach: Callable[[float, float], float]


def goal_of(objective: str, weights: tuple[float, float] = (0.5, 0.5)) -> Goal:
    """The goal called `objective`; `weights` are of a pJ and of a cycle for ``weighted``.

    ``0.7*energy+0.3*latency`` is short for ``weighted`` with these weights.
    Raises UnknownNameError; InputError: weights that are negative, not finite, or both zero.
    """
    if objective == "energy":
        return Goal("energy", lambda e, c: e, lambda e, best: math.inf if e < best else 0.0)
    if objective == "edp":
        return Goal("edp", lambda e, c: e * c, lambda e, best: best / e)
    if objective == "weighted":
        we, wc = _weights(*weights)
        return Goal("weighted", lambda e, c: we * e + wc * c, lambda e, best: (best - we * e) / max(wc, 1e-300))
    if objective == "latency":
        return Goal("latency", lambda e, c: c, lambda e, best: best)
    terms = WEIGHTED.fullmatch(objective)
    if terms:
        return goal_of("weighted", (float(terms[1]), float(terms[2])))
    raise unknown_name("objective", objective, (*OBJECTIVES, "0.7*energy+0.3*latency"))


def _weights(energy: float, latency: float) -> tuple[float, float]:
    """The weights themselves. Raises InputError where their sum is no goal."""
    for weight in (energy, latency):
        if not (weight == 0 or 1 / LARGEST_WEIGHT <= weight <= LARGEST_WEIGHT):
            raise InputError(
                f"a weight of an objective is 0 or from {1 / LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}",
                where="--objective",
                seen=f"{weight:g}",
                fix="0.7*energy+0.3*latency",
            )
    if energy == latency == 0:
        raise InputError(
            "an objective without weights prefers nothing",
            where="--objective",
            seen="0*energy+0*latency",
            fix="0.7*energy+0.3*latency",
        )
    return energy, latency
