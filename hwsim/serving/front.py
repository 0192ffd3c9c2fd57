"""From names of catalog entries to a replica: iteration-time table, KV blocks that fit, power and price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.engine.estimate import estimate
from hwsim.engine.fit import require_fit
from hwsim.errors import InfeasibleError
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.serving.engine_time import EngineTime, from_engine
from hwsim.serving.iteration_time import IterationTime, ScaledTime
from hwsim.serving.spec import ReplicaSpec

_REFERENCE_TOKENS = 2048  # context at which the cache bytes of a token are taken


@dataclass(frozen=True, slots=True)
class Engine:
    """A replica and how exact its iteration time is."""

    replica: ReplicaSpec
    tables: EngineTime
    warnings: tuple[str, ...]
    kv_bytes_per_token: float = 0.0
    link_bytes_per_s: float = 0.0
    link_latency_s: float = 0.0


def engine_replica(
    model: Any,
    platform: Platform,
    scenario: Scenario,
    formats: Any,
    *,
    policy: str = "vllm",
    options: Mapping[str, int] | None = None,
    longest: int = 0,
    block_tokens: int = 16,
    kv_blocks: int | None = None,
    overhead_s: float = 0.0,
) -> Engine:
    """A replica of `model` on tp x pp devices of `platform`.

    Parameters
    ----------
    longest: most tokens a request may hold, for policies that reserve and for the table range.
    kv_blocks: size of the KV cache; by default what memory leaves after weights and activations.
    overhead_s: host time added to each iteration.

    Raises
    ------
    InfeasibleError: the weights leave no room for a KV cache.
    """
    options = dict(options or {})
    longest = max(longest, _REFERENCE_TOKENS)
    tables = from_engine(
        model,
        platform,
        scenario,
        formats,
        max_batch=max(2, options.get("cap", 256)),
        max_tokens=max(options.get("max_tokens", 0), options.get("chunk", 0) * 2, longest, 8192),
        max_context=longest,
    )
    blocks, kv_bytes, notes = kv_blocks_of(model, platform, scenario, formats, block_tokens)
    time: IterationTime = tables.time
    if overhead_s:
        time = ScaledTime(time, overhead_s)
    busy_w, idle_w, usd_per_s = _running_costs(platform, scenario, tables)
    replica = ReplicaSpec(
        time=time,
        policy=policy,
        options=options,
        kv_blocks=kv_blocks or blocks,
        block_tokens=1 if policy == "lightllm" else block_tokens,
        reserve_tokens=-(-longest // block_tokens) * block_tokens if policy in ("orca", "faster_transformer", "static") else 0,
        stages=scenario.pp,
        busy_w=busy_w,
        idle_w=idle_w,
        usd_per_s=usd_per_s,
        name=platform.name,
    )
    if policy == "lightllm":
        replica = replica.with_(kv_blocks=replica.kv_blocks * block_tokens)
    return Engine(replica, tables, notes, kv_bytes, *_link(platform))


def _running_costs(platform: Platform, scenario: Scenario, tables: EngineTime) -> tuple[float, float, float]:
    """(busy W, idle W, USD/s) of a replica; busy = idle + dynamic power of decoding, at most the TDP."""
    devices, power = scenario.tp * scenario.pp, platform.device.power
    busy_w = min(power.idle_w + tables.decode_power_w, power.tdp_w) if tables.decode_power_w else power.tdp_w
    usd_per_s = float(platform.price.rate_usd_per_s) * devices if platform.price else 0.0
    return float(busy_w) * devices, float(power.idle_w) * devices, usd_per_s


def _link(platform: Platform) -> tuple[float, float]:
    """(bandwidth, latency) of the link between replicas; zeros where there is none."""
    link = platform.scale_out or platform.scale_up or next(iter(platform.device.links), None)
    return (0.0, 0.0) if link is None else (float(link.bandwidth_bytes_per_s), float(link.latency_s))


def kv_blocks_of(
    model: Any, platform: Platform, scenario: Scenario, formats: Any, block_tokens: int
) -> tuple[int, float, tuple[str, ...]]:
    """(KV blocks on one replica, cache bytes of a token on all its devices, warnings).

    Blocks = (usable memory - weights - activations) / bytes of a block.
    """
    point = Scenario(
        batch=1,
        prompt_tokens=_REFERENCE_TOKENS,
        output_tokens=1,
        weights=scenario.weights,
        activations=scenario.activations,
        kv_cache=scenario.kv_cache,
        tp=scenario.tp,
        pp=scenario.pp,
        ep=scenario.ep,
        efficiency=scenario.efficiency,
        memory_fraction=scenario.memory_fraction,
    )
    answer = estimate(model, platform, point, formats)
    require_fit(model.name, platform, point, answer.memory)
    memory = answer.memory
    per_token = float(memory.kv_cache_bytes) / (_REFERENCE_TOKENS + 1)
    free = float(memory.usable_bytes - memory.weights_bytes - memory.activations_bytes)
    if per_token <= 0:
        return 1 << 24, 0.0, answer.warnings
    blocks = math.floor(free / (per_token * block_tokens))
    if blocks < 1:
        raise InfeasibleError(
            f"{model.name} leaves no room for a KV cache on {platform.name}",
            budget={"free_bytes": free, "kv_bytes_per_token": per_token},
        )
    return blocks, per_token * scenario.tp * scenario.pp, answer.warnings
