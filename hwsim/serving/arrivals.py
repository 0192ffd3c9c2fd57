"""Generated workloads: arrival processes and length distributions, each from its own random stream.

Common random numbers: unit-rate gaps are drawn once per seed and divided by the rate, so runs at two rates see the
same requests in the same order and differ only in density.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.serving.bounds import MOST_TOKENS, check_lengths
from hwsim.serving.fields import fields_of
from hwsim.serving.traces import Trace

_P90: Final = 1.2815515655446004  # 90th percentile of the standard normal distribution
_ARRIVALS: Final = 1
_PROMPTS: Final = 2
_PLAIN: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*\Z")  # a number and nothing else
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
        if not 0.01 <= cv <= 100:
            raise InputError("gamma arrivals need a coefficient of variation from 0.01 to 100", seen=repr(cv))
        return draw.gamma(1 / cv**2, cv**2, count)
    if process == "bursty":
        hot = np.cumsum(draw.random(count) < 1 / 50) % 2 == 1
        gaps = draw.exponential(1.0, count) * np.where(hot, 0.25, 4.0)
        return gaps / max(float(gaps.mean()), 1e-300)
    raise unknown_name("arrival process", process, ("poisson", "gamma", "bursty", "constant"))


def lengths(kind: str, mean: float, count: int, seed: int, *, cv: float = 1.0, purpose: int = _PROMPTS) -> Array:
    """`count` token counts >= 1 of mean about `mean`: fixed, uniform (1 .. 2 mean), exponential, lognormal."""
    check_lengths(mean, cv, "--prompt" if purpose == _PROMPTS else "--output")
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
    return np.clip(makers[kind](), 1, MOST_TOKENS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: `mean`, coefficient of variation `cv` (lognormal only), at most `most`."""

    mean: float
    cv: float = 1.0
    most: int | None = None

    @classmethod
    def of(cls, given: Any, where: str) -> Lengths:
        """A number (the mean), or fields: mean or median, with cv, p90 or both mean and median; and max.

        A published median m and 90th percentile q give a lognormal with sigma = ln(q/m)/1.2816, its mean
        m exp(sigma^2/2) and cv^2 = exp(sigma^2) - 1; mean and median give sigma^2 = 2 ln(mean/median).
        Raises InputError, UnknownNameError.
        """
        if isinstance(given, int | float) and not isinstance(given, bool):
            return cls(float(given))
        if isinstance(given, str) and _PLAIN.match(given):
            return cls(float(given))
        known = dict.fromkeys(("mean", "median", "p90", "cv", "max"), "number")
        got = fields_of(given, known, where)
        most = int(got["max"]) if "max" in got else None
        median, mean = got.get("median"), got.get("mean")
        if median is None and mean is None:
            raise InputError(f"{where} needs a mean or a median", where=where, seen=str(given))
        if median is None:
            return cls(float(mean or 0), got.get("cv", 1.0), most)
        variance = _log_variance(median, mean, got, where)
        return cls(median * math.exp(variance / 2), math.sqrt(math.expm1(variance)), most)

    def draw(self, kind: str, count: int, seed: int, purpose: int) -> Array:
        """`count` token counts. Raises InputError, UnknownNameError."""
        drawn = lengths(kind, self.mean, count, seed, cv=self.cv, purpose=purpose)
        return drawn if self.most is None else np.minimum(drawn, max(1, self.most))


def _log_variance(median: float, mean: float | None, got: Mapping[str, float], where: str) -> float:
    """Variance of the logarithm from the median and one more statistic."""
    if mean is not None and mean > median > 0:
        return 2 * math.log(mean / median)
    if mean is None and got.get("p90", 0.0) > median > 0:
        return (math.log(got["p90"] / median) / _P90) ** 2
    if mean is None and "cv" in got and median > 0:
        return math.log1p(got["cv"] ** 2)
    raise InputError(f"{where}: a median needs a larger mean or p90, or a cv", where=where, seen=str(dict(got)))


def generate(
    rate_per_s: float,
    count: int,
    *,
    process: str = "poisson",
    prompt: tuple[str, float | Lengths] = ("lognormal", 1024.0),
    output: tuple[str, float | Lengths] = ("lognormal", 256.0),
    seed: int = 0,
    cv: float = 1.0,
) -> Trace:
    """A trace of `count` requests at `rate_per_s`; lengths as (distribution, mean tokens or `Lengths`).

    Raises InputError, UnknownNameError.
    """
    if not (math.isfinite(rate_per_s) and rate_per_s > 0) or count < 1:
        raise InputError("a workload needs a rate above 0 and at least one request", seen=f"{rate_per_s}, {count}")
    times = np.cumsum(unit_gaps(process, count, seed, cv)) / rate_per_s
    prompts = _drawn(prompt, count, seed, cv, _PROMPTS)
    outputs = _drawn(output, count, seed, cv, _OUTPUTS)
    return Trace(process, array("d", times - times[0]), array("l", prompts.tolist()), array("l", outputs.tolist()))


def _drawn(asked: tuple[str, float | Lengths], count: int, seed: int, cv: float, purpose: int) -> Array:
    kind, size = asked
    return (size if isinstance(size, Lengths) else Lengths(size, cv)).draw(kind, count, seed, purpose)
