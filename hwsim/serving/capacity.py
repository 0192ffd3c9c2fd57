"""Largest request rate that keeps a service level: bisection with common random numbers.

Every rate replays the same requests in the same order, only denser, so attainment falls nearly monotonically with
the rate and the search does not chase noise. Rates are steps of (1 + tolerance) from the trace's own, so that a search
which begins elsewhere ends at the same rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsim.errors import InfeasibleError, InputError, unknown_name
from hwsim.serving.result import ServingResult
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from hwsim.serving.traces import Trace

_DOWN: Final = 12  # quarters of the rate tried before a level counts as impossible
_UP, _NEAR = 2.0, 1.15  # first factor between rates, without and with a guess of the answer


@dataclass(frozen=True, slots=True)
class Capacity:
    """The rate found (requests/s), the attainment there, the smallest rate that failed, the runs made, and the run at
    the rate found."""

    rate_per_s: float
    attainment: float
    failed_rate_per_s: float
    runs: int
    result: ServingResult

    def to_dict(self) -> dict[str, Any]:
        """The figures."""
        names = ("rate_per_s", "attainment", "failed_rate_per_s", "runs")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Search:
    """What a capacity search demands of a rate, and how long it looks.

    Attributes
    ----------
    attainment: share of requests that must keep the service level.
    limits: metric of the run -> largest value allowed (``itl_s_p99`` 0.2: the 99th percentile of token gaps); a rate
        that breaks one counts as attainment 0. With limits, the level may be empty.
    tolerance: relative width at which the bisection ends.
    start_per_s: a guess of the answer: a good one halves the runs, none changes what is found.
    """

    attainment: float = 0.9
    limits: Mapping[str, float] | None = None
    tolerance: float = 0.01
    start_per_s: float | None = None
    max_runs: int = 60


def search_capacity(
    trace: Trace,
    spec: ClusterSpec,
    level: ServiceLevel,
    *,
    prepare: Any = None,
    note: Callable[[str], None] | None = None,
    **search: Any,
) -> Capacity:
    """Bisect the rate; `search` are fields of `Search`.

    Raises
    ------
    InputError: no limits, an attainment outside (0, 1], or a trace without a time span.
    InfeasibleError: even a nearly idle system misses the level.
    """
    wanted = Search(**search)
    _check(trace, level, wanted)
    runs = _Runs(trace, spec, level, wanted, prepare, note)
    low, high = _bracket(runs, wanted)
    while high - low > 1 and runs.made < wanted.max_runs:
        middle = (low + high) // 2
        low, high = (middle, high) if runs.good(middle) else (low, middle)
    value, result = runs.best[low]
    return Capacity(runs.rate(low), value, runs.rate(high), runs.made, result)


class _Runs:
    """Runs at rates numbered in steps of (1 + tolerance); keeps that of the highest good one."""

    def __init__(
        self, trace: Trace, spec: ClusterSpec, level: ServiceLevel, wanted: Search, prepare: Any, note: Any
    ) -> None:
        self._trace, self._spec, self._level, self._prepare, self._note = trace, spec, level, prepare, note
        self._wanted, self._own = wanted, (len(trace) - 1) / trace.arrival_s[-1]
        self.made, self.last = 0, 0.0
        self.best: dict[int, tuple[float, ServingResult]] = {}

    def rate(self, number: int) -> float:
        return float(self._own * (1 + self._wanted.tolerance) ** number)

    def number(self, factor: float) -> int:
        """Steps that make up a factor."""
        return round(math.log(factor) / math.log1p(self._wanted.tolerance))

    def start(self) -> int:
        """Number of the first rate."""
        guess = self._wanted.start_per_s
        return 0 if guess is None else self.number(guess / self._own)

    def good(self, number: int) -> bool:
        """Whether the rate keeps the level."""
        rate, self.made = self.rate(number), self.made + 1
        result = simulate(self._trace.at_rate(rate), self._spec, self._level, prepare=self._prepare)
        self.last = kept(result, self._wanted.limits or {})
        if self._note is not None:
            self._note(f"{rate:.4g} requests/s: {100 * self.last:.1f} % within the service level")
        good = self.last >= self._wanted.attainment
        if good:
            self.best = {number: (self.last, result)}
        return good


def _check(trace: Trace, level: ServiceLevel, wanted: Search) -> None:
    if level == ServiceLevel() and not wanted.limits:
        raise InputError("a capacity search needs a service level", fix="--slo ttft=1s,tpot=50ms")
    if not 0 < wanted.attainment <= 1 or not wanted.tolerance > 0:
        raise InputError(
            "attainment must lie in (0, 1] and the tolerance be above 0",
            seen=f"{wanted.attainment}, {wanted.tolerance}",
        )
    if len(trace) < 2 or trace.arrival_s[-1] <= 0:
        raise InputError("a capacity search needs a trace with a time span")


def kept(result: ServingResult, limits: Mapping[str, float]) -> float:
    """Attainment of a run, 0 where one of the limits is broken. Raises UnknownNameError for a metric it lacks."""
    if not limits:
        return result.attainment
    metrics = result.metrics()
    for name, limit in limits.items():
        if name not in metrics:
            raise unknown_name("metric", name, metrics, where="--limits")
        if metrics[name]["value"] > limit:
            return 0.0
    return result.attainment


def _bracket(runs: _Runs, wanted: Search) -> tuple[int, int]:
    """(number of a rate that keeps the level, of one that does not); steps double as they go."""
    number, guessed = runs.start(), wanted.start_per_s is not None
    step = max(1, runs.number(_NEAR if guessed else _UP))
    if runs.good(number):
        while runs.made < wanted.max_runs and runs.good(number + step):
            number, step = number + step, 2 * step if guessed else step
        return number, number + step
    step, last = step if guessed else 2 * step, runs.start() - runs.number(4.0) * _DOWN
    while number > last:
        number, high = max(number - step, last), number
        if runs.good(number):
            return number, high
        step = 2 * step if guessed else step
    raise InfeasibleError(
        "the service level is missed even by a nearly idle system",
        seen=f"{100 * runs.last:.1f} % of requests at {runs.rate(number):.3g} requests/s, "
        f"{100 * wanted.attainment:.0f} % wanted",
        fix="relax --slo, or use faster or more devices",
        budget={"attainment": runs.last, "wanted": wanted.attainment},
    )
