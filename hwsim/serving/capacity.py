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


def search_capacity(
    trace: Trace,
    spec: ClusterSpec,
    level: ServiceLevel,
    *,
    attainment: float = 0.9,
    limits: Mapping[str, float] | None = None,
    tolerance: float = 0.01,
    start_per_s: float | None = None,
    prepare: Any = None,
    note: Callable[[str], None] | None = None,
    max_runs: int = 60,
) -> Capacity:
    """Bisect the rate to a relative `tolerance`.

    Parameters
    ----------
    limits: metric of the run -> largest value allowed (``itl_s_p99`` 0.2: the 99th percentile of token gaps); a rate
        that breaks one counts as attainment 0. With limits, `level` may be empty.

    Raises
    ------
    InputError: no limits, an attainment outside (0, 1], or a trace without a time span.
    InfeasibleError: even a nearly idle system misses the level.
    """
    limits = limits or {}
    if level == ServiceLevel() and not limits:
        raise InputError("a capacity search needs a service level", fix="--slo ttft=1s,tpot=50ms")
    if not 0 < attainment <= 1 or not tolerance > 0:
        raise InputError(
            "attainment must lie in (0, 1] and the tolerance be above 0", seen=f"{attainment}, {tolerance}"
        )
    if len(trace) < 2 or trace.arrival_s[-1] <= 0:
        raise InputError("a capacity search needs a trace with a time span")
    runs = 0

    def share(rate: float) -> float:
        nonlocal runs
        runs += 1
        value = kept(simulate(trace.at_rate(rate), spec, level, prepare=prepare), limits)
        if note is not None:
            note(f"{rate:.4g} requests/s: {100 * value:.1f} % within the service level")
        return value

    low = start_per_s or (len(trace) - 1) / trace.arrival_s[-1]
    low, best, high = _bracket(share, low, attainment, max_runs)
    while high - low > tolerance * low and runs < max_runs:
        middle = (low + high) / 2
        value = share(middle)
        if value >= attainment:
            low, best = middle, value
        else:
            high = middle
    return Capacity(low, best, high, runs)


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
