"""A pipeline whose stages are different devices: which layers go where, and what that buys over equal shares.

Every stage is a tensor group of one kind of device. Its seconds a layer come from the ordinary engine at the batch of
one micro-batch; the layers are put on stages by `hwsim.mapping.parallelism.stages.balance` under each device's memory.
Stages are joined by a network of `NETWORK`, once a boundary and micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsim.cost.collectives import link_time_s
from hwsim.engine.estimate import Estimate, estimate
from hwsim.errors import InputError
from hwsim.explore.layout_stages import Array, Pass, held_bytes, layer_labels, pass_of
from hwsim.frontends.formats import Formats
from hwsim.ir.platform import Link, Platform
from hwsim.ir.scenario import Scenario, share_of
from hwsim.mapping.parallelism.stages import Loads, Partition, balance, stage_bytes, stage_loads

# Between stages: 400 Gbit/s InfiniBand NDR and its same-leaf latency (arXiv 2505.09343, table 5).
NETWORK: Final = Link("ib-ndr", 50e9, 2.8e-6)
MOST_STAGES: Final = 128


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what the user called it, its tensor group and its platform."""

    name: str
    tp: int
    platform: Platform


@dataclass(frozen=True, slots=True)
class _Costed:
    """Estimates of every stage as if it held the whole model, and the layers' seconds of each phase."""

    stages: tuple[Stage, ...]
    results: tuple[Estimate, ...]
    passes: tuple[tuple[Pass, ...], ...]
    labels: tuple[str, ...]
    micro: int


def parse_stage(text: str) -> tuple[str, int]:
    """``h100-sxm:4`` as a hardware name and its tensor ranks (1 where none are given). Raises InputError."""
    name, colon, ranks = str(text).strip().rpartition(":")
    if not colon:
        return str(text).strip(), 1
    if not name or not ranks.isdecimal() or not 1 <= int(ranks) <= 1024:
        raise InputError("a stage is NAME:RANKS", where="--stage", seen=str(text)[:60], fix="--stage h100-sxm:4")
    return name, int(ranks)


def split_stages(
    model: Any, stages: Sequence[Stage], scenario: Scenario, formats: Formats, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The `hwsim/stages@1` document.

    Raises
    ------
    InputError: no stages, or too many. InfeasibleError: fewer layers than stages, degrees that do not divide, or no
    partition that fits; names the stage and the bytes missing.
    """
    if not 1 <= len(stages) <= MOST_STAGES:
        raise InputError(f"a pipeline has 1 to {MOST_STAGES} stages", where="--stage", seen=str(len(stages)))
    costed = _cost(model, stages, scenario, formats)
    steps = float(scenario.output_tokens) - 1.0 if len(costed.passes[0]) > 1 else 0.0
    handover = _handover_s(costed, scenario)
    partition = balance(_loads(costed, steps, handover))
    layers, count = len(costed.labels), len(stages)
    even = tuple(round(i * layers / count) for i in range(count + 1))
    found, naive = (_spans(costed, cuts, steps, handover) for cuts in (partition.cuts, even))
    held = stage_bytes(_loads(costed, steps, handover), partition.cuts)
    fits_even = bool(np.all(stage_bytes(_loads(costed, steps, handover), even) <= _room(costed) * (1 + 1e-12)))
    return {
        "schema": "hwsim/stages@1",
        **about,
        "scenario": {
            "batch": scenario.batch,
            "prompt_tokens": scenario.prompt_tokens,
            "output_tokens": scenario.output_tokens,
            "weights": formats.weights.name,
            "activations": formats.activations.name,
            "kv_cache": formats.kv_cache.name,
            "efficiency": scenario.efficiency,
        },
        "micro_batches": costed.micro,
        "stages": [_stage(costed, s, partition, found, float(held[s])) for s in range(count)],
        "metrics": _metrics(costed, scenario, found, steps),
        "equal_shares": {"fits": fits_even, **_metrics(costed, scenario, naive, steps)},
        "solver": {"solver": partition.report.solver, "status": partition.report.status, "gap": partition.report.gap},
    }


def _cost(model: Any, stages: Sequence[Stage], scenario: Scenario, formats: Formats) -> _Costed:
    micro_batch = share_of(scenario.batch, len(stages))
    known: dict[tuple[str, int], Estimate] = {}
    for stage in stages:
        if (stage.name, stage.tp) not in known:
            alone = replace(scenario, batch=micro_batch, tp=stage.tp, pp=1, dp=1)
            known[stage.name, stage.tp] = estimate(model, stage.platform, alone, formats)
    results = tuple(known[stage.name, stage.tp] for stage in stages)
    labels = layer_labels(model, results[0])
    passes = tuple(tuple(pass_of(phase.timeline, labels, 1) for phase in result.phases) for result in results)
    return _Costed(tuple(stages), results, passes, labels, int(np.ceil(scenario.batch / micro_batch)))


def _handover_s(costed: _Costed, scenario: Scenario) -> tuple[float, ...]:
    """Seconds of one send in each phase: the residual stream of a micro-batch."""
    found = []
    for phase in costed.results[0].phases:
        graph = phase.timeline.graph
        block = next(
            t for t in reversed(graph.tasks) if t.operator.segment not in ("embed", "head") and t.operator.outputs
        )
        message = max(float(t.moved_bytes) for t in block.operator.outputs)
        found.append(float(link_time_s("send_recv", message, 2, NETWORK)) if len(costed.stages) > 1 else 0.0)
    return tuple(found)


def _loads(costed: _Costed, steps: float, handover: tuple[float, ...]) -> Loads:
    """What users wait for: each phase by how often its slowest stage is waited for."""
    weights = (float(max(costed.micro - 1, 1)), max(steps * costed.micro, 1.0))[: len(handover)]

    def mixed(stage: int, name: str) -> Any:
        return sum(w * getattr(one, name) for w, one in zip(weights, costed.passes[stage], strict=True))

    load = np.stack([mixed(s, "layers") for s in range(len(costed.stages))])
    held = [
        held_bytes(result, costed.labels, float(result.memory.kv_cache_bytes) * costed.micro)
        for result in costed.results
    ]
    send = sum(w * one for w, one in zip(weights, handover, strict=True))
    return Loads(
        load,
        np.stack([layers for layers, _, _ in held]),
        _room(costed),
        (float(mixed(0, "first")), held[0][1]),
        (float(mixed(-1, "last")), held[-1][2]),
        float(send),
    )


def _room(costed: _Costed) -> Array:
    """Bytes for weights and cache on a device of each stage."""
    return np.array([float(r.memory.usable_bytes) - float(r.memory.activations_bytes) for r in costed.results])


def _spans(
    costed: _Costed, cuts: tuple[int, ...], steps: float, handover: tuple[float, ...]
) -> tuple[float, float, list[Array]]:
    """TTFT, TPOT and the seconds of every stage by phase (docs/formulas/parallelism.md)."""
    sums = []
    for phase, send in enumerate(handover):
        load = np.stack([costed.passes[s][phase].layers for s in range(len(costed.stages))])
        ends = (costed.passes[0][phase].first, 0.0), (costed.passes[-1][phase].last, 0.0)
        none = np.zeros_like(load)
        sums.append(stage_loads(Loads(load, none, _room(costed), *ends, send), cuts))
    ttft = float(sums[0].sum() + (costed.micro - 1) * sums[0].max())
    tpot = float(max(sums[1].sum(), costed.micro * sums[1].max())) if len(sums) > 1 else 0.0
    return ttft, tpot, sums


def _metrics(
    costed: _Costed, scenario: Scenario, spans: tuple[float, float, list[Array]], steps: float
) -> dict[str, float | None]:
    ttft, tpot, _ = spans
    latency = ttft + steps * tpot
    tokens = float(scenario.batch) * (float(scenario.output_tokens) if tpot else float(scenario.prompt_tokens))
    prices = [stage.platform.price for stage in costed.stages]
    cost = None
    if all(price is not None for price in prices):
        rates = [stage.tp * float(p.rate_usd_per_s) for stage, p in zip(costed.stages, prices, strict=True) if p]
        cost = sum(rates) * latency / tokens * 1e6
    return {
        "ttft_s": ttft,
        "tpot_s": tpot,
        "latency_s": latency,
        "tokens_per_s": tokens / latency,
        "rental_usd_per_mtok": cost,
    }


def _stage(
    costed: _Costed, s: int, partition: Partition, spans: tuple[float, float, list[Array]], held: float
) -> dict[str, Any]:
    sums = spans[2]
    stage = costed.stages[s]
    return {
        "hardware": stage.name,
        "tp": stage.tp,
        "layers": partition.counts[s],
        "prefill_s": float(sums[0][s]),
        "decode_s": float(sums[1][s]) if len(sums) > 1 else 0.0,
        "memory_bytes": held,
        "room_bytes": float(_room(costed)[s]),
    }
