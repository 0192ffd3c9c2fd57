"""Largest request rate that keeps a service level: bisection with common random numbers.

Every rate replays the same requests in the same order, only denser, so attainment falls nearly monotonically with
the rate and the search does not chase noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from hwsim.errors import InfeasibleError, InputError, unknown_name
from hwsim.serving.result import ServingResult
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from hwsim.serving.traces import Trace

_DOWN: Final = 12  # quarters of the rate tried before a level counts as impossible


@dataclass(frozen=True, slots=True)
class Capacity:
    """The rate found (requests/s), the attainment there, the smallest rate that failed, and the runs made."""

    rate_per_s: float
    attainment: float
    failed_rate_per_s: float
    runs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Search:
    """What a capacity search demands of a rate, and how long it looks.

    Attributes
    ----------
    attainment: share of requests that must keep the service level.
    limits: metric of the run -> largest value allowed (``itl_s_p99`` 0.2: the 99th percentile of token gaps); a rate
        that breaks one counts as attainment 0. With limits, the level may be empty.
    tolerance: relative width at which the bisection ends. `start_per_s`: first rate [that of the trace].
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
    limits, attainment = wanted.limits or {}, wanted.attainment
    _check(trace, level, wanted)
    runs = 0

    def share(rate: float) -> float:
        nonlocal runs
        runs += 1
        value = kept(simulate(trace.at_rate(rate), spec, level, prepare=prepare), limits)
        if note is not None:
            note(f"{rate:.4g} requests/s: {100 * value:.1f} % within the service level")
        return value

    low = wanted.start_per_s or (len(trace) - 1) / trace.arrival_s[-1]
    low, best, high = _bracket(share, low, attainment, wanted.max_runs)
    while high - low > wanted.tolerance * low and runs < wanted.max_runs:
        middle = (low + high) / 2
        value = share(middle)
        if value >= attainment:
            low, best = middle, value
        else:
            high = middle
    return Capacity(low, best, high, runs)


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


def _bracket(share: Callable[[float], float], rate: float, wanted: float, most: int) -> tuple[float, float, float]:
    """(rate that keeps the level, its attainment, rate that does not), by factors from `rate`."""
    value = share(rate)
    if value < wanted:
        for _ in range(_DOWN):
            rate, high = rate / 4, rate
            value = share(rate)
            if value >= wanted:
                return rate, value, high
        raise InfeasibleError(
            "the service level is missed even by a nearly idle system",
            seen=f"{100 * value:.1f} % of requests at {rate:.3g} requests/s, {100 * wanted:.0f} % wanted",
            fix="relax --slo, or use faster or more devices",
            budget={"attainment": value, "wanted": wanted},
        )
    for _ in range(most):
        following = share(rate * 2)
        if following < wanted:
            break
        rate, value = rate * 2, following
    return rate, value, rate * 2
