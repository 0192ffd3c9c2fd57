"""Metrics of a run: percentiles with half-widths, goodput, occupancy, energy, cost, and the per-request table."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from hwsim.serving.cluster import Cluster
from hwsim.serving.energy import PowerTrace, power_trace
from hwsim.serving.record import FINISHED, REJECTED
from hwsim.serving.slowdown import slowdowns
from hwsim.serving.spec import ServiceLevel

Array = np.ndarray[Any, Any]
PERCENTILES: Final = (50, 90, 95, 99)
BATCHES: Final = 20
ENOUGH: Final = 10  # requests from which a rate is worth showing
_T19: Final = 2.0930  # two-sided 95 % point of Student's t with 19 degrees of freedom


@dataclass(frozen=True, slots=True)
class ServingResult:
    """Everything that a run produced. Arrays have one entry a request (in arrival order); times in seconds.

    `finished` masks requests that completed. `to_dict` gives the result document.
    """

    cluster: Cluster
    level: ServiceLevel = field(default_factory=ServiceLevel)
    warmup: int = 0

    def column(self, name: str) -> Array:
        return self.cluster.record.column(name)

    @property
    def finished(self) -> Array:
        mask = np.isfinite(self.column("end_s"))
        mask[: self.warmup] = False
        return mask

    @property
    def ttft_s(self) -> Array:
        """Arrival to first token of finished requests."""
        done = self.finished
        return np.asarray(self.column("first_s")[done] - self.column("arrival_s")[done])

    @property
    def e2e_s(self) -> Array:
        """Arrival to last token of finished requests."""
        done = self.finished
        return np.asarray(self.column("end_s")[done] - self.column("arrival_s")[done])

    @property
    def tpot_s(self) -> Array:
        """Mean time of the tokens after the first, for finished requests; 0 where there is one token."""
        done = self.finished
        after = np.maximum(1, self.column("output")[done] - 1)
        return np.asarray((self.column("end_s")[done] - self.column("first_s")[done]) / after)

    @property
    def delay_s(self) -> Array:
        """Arrival to first admission of finished requests (the scheduling delay)."""
        done = self.finished
        return np.asarray(self.column("scheduled_s")[done] - self.column("arrival_s")[done])

    @property
    def makespan_s(self) -> float:
        """First arrival to last completion."""
        ends = self.column("end_s")
        ends = ends[np.isfinite(ends)]
        return float(ends.max() - self.column("arrival_s").min()) if len(ends) else 0.0

    def good(self) -> Array:
        """Which finished requests keep the service level."""
        keep = np.ones(int(self.finished.sum()), dtype=bool)
        for limit, values in (
            (self.level.ttft_s, self.ttft_s),
            (self.level.tpot_s, self.tpot_s),
            (self.level.e2e_s, self.e2e_s),
        ):
            if limit is not None:
                keep &= values <= limit
        return keep

    @property
    def attainment(self) -> float:
        """Share of all counted requests that finished within the service level; rejected ones count against it."""
        counted = len(self.column("end_s")) - self.warmup
        return float(self.good().sum() / counted) if counted else 0.0

    def metrics(self) -> dict[str, dict[str, float]]:
        """Name -> {value, low, high}: latency percentiles, throughput, goodput, energy, cost."""
        out: dict[str, dict[str, float]] = {}
        times = (("ttft_s", self.ttft_s), ("tpot_s", self.tpot_s), ("e2e_s", self.e2e_s), ("delay_s", self.delay_s))
        for name, values in times:
            out.update(summary(name, values))
        if self.cluster.reference is not None:
            for name, values in slowdowns(self, self.cluster.reference).items():
                out.update(summary(name, values))
        ends_s = getattr(self.cluster.source, "ends_s", None)
        if ends_s is not None:
            out.update(summary("application_s", np.asarray(ends_s) - np.asarray(self.cluster.source.starts_s)))
        out.update(weighted_summary("itl_s", *self.cluster.record.gaps.weighted()))
        done, span = self.finished, self.makespan_s
        tokens = float(self.column("output")[done].sum())
        out["throughput_requests_per_s"] = _plain(done.sum() / span if span else 0.0)
        out["throughput_tokens_per_s"] = _plain(tokens / span if span else 0.0)
        prompts = float(self.column("prompt")[done].sum())
        out["processed_tokens_per_s"] = _plain((tokens + prompts) / span if span else 0.0)
        out["goodput_requests_per_s"] = _plain(self.good().sum() / span if span else 0.0)
        out["slo_attainment"] = _plain(self.attainment)
        out.update(self._under_load())
        caches = [r.prefix for r in self.cluster.everyone if getattr(r, "prefix", None) is not None]
        if caches:
            asked = sum(cache.asked_tokens for cache in caches)
            out["prefix_hit_share"] = _plain(sum(cache.hit_tokens for cache in caches) / asked if asked else 0.0)
        out.update(self._bill(tokens))
        return out

    def _under_load(self) -> dict[str, dict[str, float]]:
        """Rates without warm-up and drain: what ended in the second half of the arrivals, over its length.

        Tokens count where they came out, evenly between the first and the last of a request. Empty where fewer than
        `ENOUGH` requests ended there: the requests were too few, or the replicas too slow.
        """
        end_s, arrival_s = self.column("end_s"), self.column("arrival_s")
        if not len(arrival_s):
            return {}
        last_s = float(arrival_s.max())
        half_s = (last_s - float(arrival_s.min())) / 2
        inside = (end_s > last_s - half_s) & (end_s <= last_s)
        if not half_s > 0 or int(inside.sum()) < ENOUGH:
            return {}
        first_s = self.column("first_s")
        part = (np.minimum(end_s, last_s) - np.maximum(first_s, last_s - half_s)) / np.maximum(end_s - first_s, 1e-12)
        tokens = np.nansum(self.column("output") * np.clip(part, 0.0, 1.0))
        whole = replace(self, warmup=0)
        good = np.zeros(len(end_s), dtype=bool)
        good[whole.finished] = whole.good()
        return {
            "under_load_requests_per_s": _plain(inside.sum() / half_s),
            "under_load_tokens_per_s": _plain(tokens / half_s),
            "under_load_goodput_requests_per_s": _plain((inside & good).sum() / half_s),
        }

    def _bill(self, tokens: float) -> dict[str, dict[str, float]]:
        energy = math.fsum(self.power(replica).energy_j for replica in self.cluster.everyone)
        cost = math.fsum(r.spec.usd_per_s * self.up_s(r) for r in self.cluster.everyone)
        return {
            "energy_j": _plain(energy),
            "energy_j_per_token": _plain(energy / tokens if tokens else 0.0),
            "cost_usd": _plain(cost),
            "cost_usd_per_mtok": _plain(cost / tokens * 1e6 if tokens else 0.0),
        }

    def up_s(self, replica: Any) -> float:
        """Seconds for which a replica is switched on, those in which it works off what it had included."""
        return max(float(replica.busy_s), alive_s(replica, self.makespan_s))

    def power(self, replica: Any) -> PowerTrace:
        """Power of a replica while it is switched on; its integral is the replica's energy."""
        arrival_s = self.column("arrival_s")
        start_s = float(getattr(replica, "paid_from_s", arrival_s.min() if len(arrival_s) else 0.0))
        cluster = self.cluster
        return power_trace(replica, cluster.record, cluster.prefilled_by, start_s, start_s + self.up_s(replica))

    def replicas(self) -> list[dict[str, Any]]:
        """Per replica: name, requests finished, prompts handed over to a decode pool, iterations, busy share,
        occupancy series and power trace."""
        rows, span = [], self.makespan_s
        handed = Counter(self.cluster.prefilled_by.values())
        for replica in self.cluster.everyone:
            mine = (self.column("replica") == replica.index) & self.finished
            samples, power = replica.samples, self.power(replica)
            rows.append(
                {
                    "name": f"{replica.spec.name} #{replica.index}",
                    "requests": int(mine.sum()),
                    "handed_over": handed[replica.index],
                    "iterations": replica.iterations,
                    "busy_share": replica.busy_s / span if span else 0.0,
                    "energy_j": power.energy_j,
                    "series": {
                        "time_s": list(samples.time_s),
                        "queued": list(samples.queued),
                        "running": list(samples.running),
                        "kv_share": list(samples.kv),
                        "power_time_s": power.time_s.tolist() if power.energy_j else [],
                        "power_w": [*power.power_w.tolist(), float(power.power_w[-1])] if power.energy_j else [],
                    },
                }
            )
        return rows

    def counts(self) -> dict[str, int]:
        state = self.column("state")
        total = len(state)
        done, rejected = int((state == FINISHED).sum()), int((state == REJECTED).sum())
        return {
            "requests": total,
            "finished": done,
            "rejected": rejected,
            "unfinished": total - done - rejected,
            "restarts": int(self.column("restarts").sum()),
            "warmup": self.warmup,
        }

    def table(self) -> dict[str, Array]:
        """The per-request table as columns: NaN where something never happened."""
        names = ("arrival_s", "prompt", "output", "scheduled_s", "first_s", "end_s", "restarts", "replica", "state")
        table = {name: self.column(name) for name in names}
        table["ttft_s"] = table["first_s"] - table["arrival_s"]
        table["e2e_s"] = table["end_s"] - table["arrival_s"]
        return table


def alive_s(replica: Any, span_s: float) -> float:
    """Seconds for which a replica was switched on and is paid."""
    return float(max(0.0, getattr(replica, "retired_s", span_s) - getattr(replica, "paid_from_s", 0.0)))


def _plain(value: float) -> dict[str, float]:
    return {"value": float(value)}


def summary(name: str, values: Array) -> dict[str, dict[str, float]]:
    """Mean and percentiles of `values` (arrival order), each with a 95 % half-width from batch means.

    Successive requests are correlated, so the run is cut into 20 batches and the spread of the batch statistics
    gives the half-width (Law, Simulation Modeling and Analysis, section 9.5); with fewer than 400 values none.
    """
    if not len(values):
        return {}
    out = {f"{name}_mean": with_half_width(float(values.mean()), batch_half_width(values, None))}
    for percent in PERCENTILES:
        out[f"{name}_p{percent}"] = with_half_width(
            float(np.percentile(values, percent)), batch_half_width(values, percent)
        )
    return out


def with_half_width(value: float, half: float | None) -> dict[str, float]:
    """A metric of a document, with its confidence interval where there are values enough."""
    return {"value": value} if half is None else {"value": value, "low": value - half, "high": value + half}


def batch_half_width(values: Array, percent: float | None) -> float | None:
    """95 % half-width of the mean (`percent` None) or a percentile over 20 batches; None below 400 values."""
    if len(values) < BATCHES * 20:
        return None
    batches = np.array_split(values, BATCHES)
    points = [b.mean() if percent is None else np.percentile(b, percent) for b in batches]
    return float(_T19 * np.std(points, ddof=1) / math.sqrt(BATCHES))


def weighted_summary(name: str, values: Array, weights: Array) -> dict[str, dict[str, float]]:
    """Mean and percentiles of weighted samples (smallest value whose cumulated weight reaches the share)."""
    if not len(values):
        return {}
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    out = {f"{name}_mean": _plain(float(np.average(values, weights=weights)))}
    for percent in PERCENTILES:
        position = np.searchsorted(cumulated, percent / 100 * cumulated[-1])
        out[f"{name}_p{percent}"] = _plain(float(values[order][min(position, len(values) - 1)]))
    return out


def steady_start(values: Array) -> int:
    """First index of the steady state by MSER-5: the cut that minimises the standard error of the rest.

    White, ACM TOMACS 7 (1997); batches of five, at most half the run is cut.
    """
    size = len(values) // 5
    if size < 8:
        return 0
    means = values[: size * 5].reshape(size, 5).mean(axis=1)
    tails = np.arange(size, 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum((means**2)[::-1])[::-1]
    errors = (squares / tails - (sums / tails) ** 2) / tails
    return int(np.argmin(errors[: size // 2])) * 5
