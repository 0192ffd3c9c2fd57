"""From names of catalog entries to a replica: iteration-time table, KV blocks that fit, power and price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.cost.registry import active_power_w
from hwsim.engine.estimate import estimate
from hwsim.engine.fit import require_fit
from hwsim.errors import InfeasibleError
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.serving.engine_time import EngineTime, from_engine
from hwsim.serving.engines import FRONT_END_S, FRONT_END_TOKEN_S, PROMPT_EXPERTS, WATERMARKS, vllm_limits
from hwsim.serving.iteration_time import ScaledTime
from hwsim.serving.plugins import Plugin
from hwsim.serving.spec import ReplicaSpec

_WATERMARK = 0.01  # share of the blocks that admission leaves free (vLLM 0.2)
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


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs: its batching policy, its memory, and the time of its host.

    Attributes
    ----------
    policy, options: the batching policy and its arguments; `vllm_v1` fills in what vLLM takes by itself. One of the
        user's that inherits a shipped policy runs in the engine of that one.
    longest: most tokens a request may hold, for policies that reserve and for the table range.
    kv_blocks: size of the KV cache; by default what memory leaves after weights and activations.
    overhead_s: host time added to each iteration.
    front_end_s: time of a request outside the engine loop (HTTP, tokenizer, detokenizer); by default the policy's,
        which grows with the prompt.
    """

    policy: str | Plugin = "vllm"
    options: Mapping[str, int] = field(default_factory=dict)
    longest: int = 0
    block_tokens: int = 16
    kv_blocks: int | None = None
    overhead_s: float = 0.0
    front_end_s: float | None = None

    @property
    def engine(self) -> str:
        """Name of the shipped policy whose engine it is; empty for a policy that inherits none."""
        return self.policy.base if isinstance(self.policy, Plugin) else self.policy

    def arguments(self, platform: Platform) -> dict[str, int]:
        """Arguments of the policy, with the limits that vLLM chooses by the device's memory."""
        given = dict(self.options)
        if self.engine == "vllm_v1":
            tokens, sequences = vllm_limits(platform.device.name, float(platform.device.main_memory.size_bytes))
            given = {"cap": sequences, "chunk": tokens} | given
        return given

    @property
    def reserved_tokens(self) -> int:
        """Tokens that policies without paging hold for each request: the longest one, in whole blocks."""
        if self.engine not in ("orca", "faster_transformer", "static"):
            return 0
        return -(-max(self.longest, _REFERENCE_TOKENS) // self.block_tokens) * self.block_tokens


def engine_replica(model: Any, platform: Platform, scenario: Scenario, formats: Any, **options: Any) -> Engine:
    """A replica of `model` on tp x pp devices of `platform`; `options` are fields of `EngineOptions`.

    Raises
    ------
    InfeasibleError: the weights leave no room for a KV cache.
    """
    asked = EngineOptions(**options)
    arguments = asked.arguments(platform)
    slower = PROMPT_EXPERTS.get(asked.engine, 1.0)
    blocks, kv_bytes, notes = kv_blocks_of(model, platform, scenario, formats, asked.block_tokens)
    held = (asked.kv_blocks or blocks) * asked.block_tokens
    tables = from_engine(
        model, platform, scenario, formats, prompt_experts=slower, **_table_range(asked, arguments, held)
    )
    costs = _running_costs(platform, scenario, tables)
    per_token = asked.engine == "lightllm"
    replica = ReplicaSpec(
        time=ScaledTime(tables.time, asked.overhead_s) if asked.overhead_s else tables.time,
        policy=asked.policy,
        options=arguments,
        kv_blocks=(asked.kv_blocks or blocks) * (asked.block_tokens if per_token else 1),
        block_tokens=1 if per_token else asked.block_tokens,
        watermark=WATERMARKS.get(asked.engine, _WATERMARK),
        reserve_tokens=asked.reserved_tokens,
        stages=scenario.pp,
        ranks=int(scenario.dp),
        **costs,
        name=platform.name,
        kv_bytes_per_token=kv_bytes,
        front_end_s=FRONT_END_S.get(asked.engine, 0.0) if asked.front_end_s is None else asked.front_end_s,
        front_end_token_s=FRONT_END_TOKEN_S.get(asked.engine, 0.0) if asked.front_end_s is None else 0.0,
    )
    return Engine(replica, tables, notes, kv_bytes, *_link(platform))


def _table_range(asked: EngineOptions, arguments: Mapping[str, int], held: int) -> dict[str, int]:
    """Tables reach as far as iterations do; requests larger than the cache of `held` tokens never run."""
    longest = min(max(asked.longest, _REFERENCE_TOKENS), max(held, _REFERENCE_TOKENS))
    most = min(max(arguments.get("max_tokens", 0), arguments.get("chunk", 0) * 2), max(held, 8192))
    tokens = max(most, longest, 8192)
    return {"max_batch": max(2, arguments.get("cap", 256)), "max_tokens": tokens, "max_context": longest}


def _running_costs(platform: Platform, scenario: Scenario, tables: EngineTime) -> dict[str, Any]:
    """Power (W), joules of passes and price (USD/s) of a replica.

    busy = idle + clocks + dynamic power of decoding, at most the TDP; a replica of pp stages runs a pass on tp devices
    at a time. Where the device states no energies, its TDP is the one level.
    """
    devices, power = scenario.tp * scenario.pp, platform.device.power
    running_w = power.idle_w + active_power_w(platform.device, scenario.efficiency)
    busy_w = min(running_w + tables.decode_power_w, power.tdp_w) if tables.decode_power_w else power.tdp_w
    usd_per_s = float(platform.price.rate_usd_per_s) * devices if platform.price else 0.0
    room_w = max(0.0, float(power.tdp_w - running_w)) * devices
    energy = tables.energy.times(scenario.tp, room_w) if tables.decode_power_w else None
    watts = {"busy_w": busy_w, "idle_w": power.idle_w, "running_w": min(running_w, power.tdp_w)}
    return {**{name: float(w) * devices for name, w in watts.items()}, "energy": energy, "usd_per_s": usd_per_s}


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
        batch=scenario.dp,
        prompt_tokens=_REFERENCE_TOKENS,
        output_tokens=1,
        weights=scenario.weights,
        activations=scenario.activations,
        kv_cache=scenario.kv_cache,
        tp=scenario.tp,
        pp=scenario.pp,
        ep=scenario.ep,
        dp=scenario.dp,
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
