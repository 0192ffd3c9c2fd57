"""From timed phases to what people ask for: TTFT, TPOT, throughput, energy, cost, utilization - each a bracket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwsim import laws
from hwsim.cost import money
from hwsim.cost.peaks import compute_path
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.result import Bracket, Timeline
from hwsim.ir.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Phase:
    """One timed phase.

    `timeline` is the pass of one micro-batch; `span` what users wait, stages and micro-batches included;
    `energy_j` is of all devices over the span, static power included; `tokens` are those of the whole batch.
    """

    name: str
    timeline: Timeline
    span: Bracket
    energy_j: Num
    tokens: Num

    @property
    def passes(self) -> Num:
        """Micro-batches of the phase, of all replicas."""
        return self.tokens / self.timeline.graph.tokens


def summarize(
    phases: tuple[Phase, ...], platform: Platform, scenario: Scenario, *, check: bool = True
) -> dict[str, Bracket]:
    """All metrics of a scenario. `check` asserts LAW-1 on each (raises LawViolation)."""
    devices = scenario.devices
    if phases[0].name == "forward":
        metrics, tokens, energy = {"latency_s": phases[0].span}, phases[0].tokens, phases[0].energy_j
    else:
        metrics, tokens, energy = _generation(phases, scenario)
    latency = metrics["latency_s"]
    metrics["throughput_tokens_per_s"] = rate(tokens, latency)
    metrics["energy_j_per_token"] = Bracket(energy / tokens)
    metrics["average_power_w"] = Bracket(energy / latency.value)
    price = platform.price
    if price is not None:
        bill = mapped(lambda time: money.bill_usd(price, devices, time, energy), latency)
        metrics["cost_usd_per_mtok"] = mapped(lambda usd: money.usd_per_mtok(usd, tokens), bill)
    metrics["mfu"] = _flop_utilization(phases[0], platform, scenario)
    metrics["mbu"] = _bandwidth_utilization(phases[-1], platform, scenario)
    if check:
        for name, metric in metrics.items():
            _check(name, metric)
    return metrics


def _generation(phases: tuple[Phase, ...], scenario: Scenario) -> tuple[dict[str, Bracket], Num, Num]:
    first, step = phases[0].span, phases[1].span
    steps = scenario.output_tokens - 1
    metrics = {
        "ttft_s": first,
        "tpot_s": step,
        "latency_s": combined(lambda a, b: a + steps * b, first, step),
        "decode_throughput_tokens_per_s": rate(scenario.batch, step),
    }
    energy = phases[0].energy_j + phases[1].energy_j * steps
    return metrics, scenario.batch * scenario.output_tokens, energy


def _flop_utilization(phase: Phase, platform: Platform, scenario: Scenario) -> Bracket:
    """Share of the time that the matrix work would take at the peak of each operator's own dtype (at most 1)."""
    at_peak_s: Num = 0.0
    for interval in phase.timeline.intervals:
        task = interval.task
        if task.operator.unit == "tensor":
            for dtype, flop in task.flop.items():
                if "/" not in dtype:
                    at_peak_s = at_peak_s + task.count * flop / compute_path(platform.device, dtype).peak_flop_per_s
    return rate(at_peak_s * phase.passes / (scenario.pp * scenario.dp), phase.span)


def _bandwidth_utilization(phase: Phase, platform: Platform, scenario: Scenario) -> Bracket:
    """Main-memory bytes per second over the datasheet bandwidth."""
    main = platform.device.main_memory
    moved: Num = 0.0
    for interval in phase.timeline.intervals:
        moved = moved + interval.task.traffic_bytes.get(main.name, 0) * interval.task.count
    return rate(moved * phase.passes / (main.read_bytes_per_s * scenario.pp * scenario.dp), phase.span)


def mapped(function: Callable[[Num], Num], bracket: Bracket) -> Bracket:
    """A growing function of every end."""
    ends = (bracket.low, bracket.high, bracket.floor, bracket.ceiling)
    return Bracket(function(bracket.value), *(None if end is None else function(end) for end in ends))


def combined(function: Callable[[Num, Num], Num], a: Bracket, b: Bracket) -> Bracket:
    """A function that grows in both of two brackets, end by end."""
    pairs = zip((a.low, a.high, a.floor, a.ceiling), (b.low, b.high, b.floor, b.ceiling), strict=True)
    return Bracket(function(a.value, b.value), *(None if x is None or y is None else function(x, y) for x, y in pairs))


def rate(amount: Num, time: Bracket) -> Bracket:
    """amount / time: the slow end of the time is the low end of the rate."""
    ends = (time.high, time.low, time.ceiling, time.floor)
    return Bracket(amount / time.value, *(None if end is None else amount / end for end in ends))


def _check(name: str, metric: Bracket) -> None:
    laws.finite("LAW-1", name, metric.value)
    ends = {
        "floor": metric.floor,
        "low": metric.low,
        "value": metric.value,
        "high": metric.high,
        "ceiling": metric.ceiling,
    }
    laws.ordered("LAW-1", name, **{key: value for key, value in ends.items() if value is not None})


def scalar(value: Num) -> float:
    """A finite Python float of a scalar result."""
    return float(np.asarray(value))
