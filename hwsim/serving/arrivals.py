"""Generated workloads: arrival processes and length distributions, each from its own random stream.

Common random numbers: unit-rate gaps are drawn once per seed and divided by the rate, so runs at two rates see the
same requests in the same order and differ only in density.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.serving.traces import Trace

_ARRIVALS: Final = 1
_PROMPTS: Final = 2
_OUTPUTS: Final = 3

Array = np.ndarray[Any, Any]


def stream(seed: int, purpose: int) -> np.random.Generator:
    """A generator of its own for each purpose: one more draw elsewhere changes nothing here."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(purpose,)))


def unit_gaps(process: str, count: int, seed: int, cv: float = 1.0) -> Array:
    """`count` gaps of mean 1: ``poisson``, ``gamma`` (coefficient of variation `cv`), ``bursty`` or ``constant``.

    ``bursty`` alternates calm and hot minutes (two-state Markov-modulated Poisson: rates 0.25 and 4 times the mean of
    a phase, geometric phases of 50 arrivals), normalised to mean 1.
    """
    draw = stream(seed, _ARRIVALS)
    if process == "constant":
        return np.ones(count)
    if process == "poisson":
        return draw.exponential(1.0, count)
    if process == "gamma":
        if not cv > 0:
            raise InputError("gamma arrivals need a coefficient of variation above 0", seen=repr(cv))
        return draw.gamma(1 / cv**2, cv**2, count)
    if process == "bursty":
        hot = np.cumsum(draw.random(count) < 1 / 50) % 2 == 1
        gaps = draw.exponential(1.0, count) * np.where(hot, 0.25, 4.0)
        return gaps / max(float(gaps.mean()), 1e-300)
    raise unknown_name("arrival process", process, ("poisson", "gamma", "bursty", "constant"))


def lengths(kind: str, mean: float, count: int, seed: int, *, cv: float = 1.0, purpose: int = _PROMPTS) -> Array:
    """`count` token counts >= 1 of mean about `mean`: fixed, uniform (1 .. 2 mean), exponential, lognormal."""
    if not (math.isfinite(mean) and mean >= 1):
        raise InputError("the mean length must be at least one token", seen=repr(mean))
    draw = stream(seed, purpose)
    makers: dict[str, Callable[[], Array]] = {
        "fixed": lambda: np.full(count, round(mean)),
        "uniform": lambda: draw.integers(1, max(2, round(2 * mean)), count),
        "exponential": lambda: np.ceil(draw.exponential(mean, count)),
        "lognormal": lambda: np.ceil(
            draw.lognormal(math.log(mean) - math.log1p(cv**2) / 2, math.sqrt(math.log1p(cv**2)), count)
        ),
    }
    if kind not in makers:
        raise unknown_name("length distribution", kind, makers)
    return np.maximum(1, makers[kind]()).astype(np.int64)


def generate(
    rate_per_s: float,
    count: int,
    *,
    process: str = "poisson",
    prompt: tuple[str, float] = ("lognormal", 1024.0),
    output: tuple[str, float] = ("lognormal", 256.0),
    seed: int = 0,
    cv: float = 1.0,
) -> Trace:
    """A trace of `count` requests at `rate_per_s`; lengths as (distribution, mean tokens). Raises InputError."""
    if not (math.isfinite(rate_per_s) and rate_per_s > 0) or count < 1:
        raise InputError("a workload needs a rate above 0 and at least one request", seen=f"{rate_per_s}, {count}")
    times = np.cumsum(unit_gaps(process, count, seed, cv)) / rate_per_s
    prompts = lengths(prompt[0], prompt[1], count, seed, cv=cv, purpose=_PROMPTS)
    outputs = lengths(output[0], output[1], count, seed, cv=cv, purpose=_OUTPUTS)
    return Trace(process, array("d", times - times[0]), array("l", prompts.tolist()), array("l", outputs.tolist()))
