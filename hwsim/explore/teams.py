"""Two machines on one request: prompt and token machines (Splitwise), and a draft beside its target (Mirror-SD).

Each machine answers its own scenario through `evaluate`; here stands only what joining them costs or hides.
Formulas: docs/formulas/hybrid.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsim.errors import InputError

PAIR_SCHEMA: Final = "hwsim/pair@1"
SPECULATION_SCHEMA: Final = "hwsim/speculation@1"
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Handoff:
    """How the cache of a prompt gets to the machine that goes on.

    Attributes
    ----------
    bandwidth_bytes_per_s: network of one device, one direction; all devices of the smaller machine send.
    efficiency: share of it that bulk transfers reach.
    latency_s: first byte.
    layer_s: signalling of one layer where layers are sent while later ones compute.
    mode: ``serial`` after the prompt, ``layerwise`` under it, or ``best``.
    """

    bandwidth_bytes_per_s: float
    efficiency: float = 0.8  # empirical scale of bandwidth in ai-dynamo/aiconfigurator
    latency_s: float = 5e-6
    layer_s: float = 62.5e-6  # Splitwise VI-A: 5 ms over 80 layers on H100 hosts (100 us, 8 ms, on A100 hosts)
    mode: str = "best"


def handoff_s(cache_bytes: float, layers: int, prompt_s: float, devices: int, how: Handoff) -> dict[str, float]:
    """Seconds that the handoff adds between the first and the second token.

    serial = latency + bytes / (devices x rate). Layer by layer, the layers but the last travel while the prompt
    computes, so what remains is the last layer, or what the link could not carry in time, and a signal a layer.

    Raises
    ------
    InputError: a mode that does not exist.
    """
    serial = how.latency_s + cache_bytes / (devices * how.bandwidth_bytes_per_s * how.efficiency)
    hidden = prompt_s * (layers - 1) / layers
    layerwise = max(serial / layers, serial - hidden) + layers * how.layer_s
    modes = {"serial": serial, "layerwise": layerwise, "best": min(serial, layerwise)}
    if how.mode not in modes:
        raise InputError("no such way to hand over a cache", where="mode", seen=how.mode, fix=" or ".join(modes))
    return {"serial_s": serial, "layerwise_s": layerwise, "exposed_s": modes[how.mode]}


def pair_document(prompt: Document, token: Document, how: Handoff) -> dict[str, Any]:
    """Prompts on one machine, tokens on another: a ``hwsim/pair@1`` document.

    Parameters
    ----------
    prompt, token: `hwsim/estimate@1` documents of the same scenario on either machine.
    """
    scenario, layers = prompt["scenario"], int(prompt["workload"]["layers"])
    devices = (int(prompt["hardware"]["devices"]), int(token["hardware"]["devices"]))
    length, output = float(scenario["prompt_tokens"]), float(scenario["output_tokens"])
    cache = float(prompt["memory"]["kv_cache_bytes"]) * devices[0] * length / (length + output)
    first, step = _value(prompt, "ttft_s"), _value(token, "tpot_s")
    moved = handoff_s(cache, layers, first, min(devices), how)
    latency = first + moved["exposed_s"] + (output - 1) * step
    metrics = {
        "ttft_s": first,
        "tpot_s": step,
        "second_token_s": step + moved["exposed_s"],
        "latency_s": latency,
        "cache_bytes": cache,
        **{f"handoff_{name}": value for name, value in moved.items()},
        "handoff_of_prompt": moved["exposed_s"] / first,
        "handoff_of_second_token": moved["exposed_s"] / step,
        "handoff_of_latency": moved["exposed_s"] / latency,
        "prompt_machines_per_token_machine": first / max((output - 1) * step, step),
    }
    return {
        "schema": PAIR_SCHEMA,
        "workload": dict(prompt["workload"]),
        "prompt_on": prompt["hardware"]["name"],
        "token_on": token["hardware"]["name"],
        "scenario": dict(scenario),
        "metrics": {name: {"value": value} for name, value in metrics.items()},
    }


@dataclass(frozen=True, slots=True)
class Speculation:
    """How a draft works for a target.

    Attributes
    ----------
    draft_tokens: guessed in a round. acceptance: chance that one guess is right, given the ones before it.
    overlap: share of a target step during which the draft already guesses the next round (0: one after the other;
        Mirror-SD starts it at an early exit, so the rest of the layers runs beside it).
    channel_s: tokens and verdicts between the machines, a round.
    """

    draft_tokens: int = 4
    acceptance: float = 0.8
    overlap: float = 0.0
    channel_s: float = 0.0


def expected_tokens(how: Speculation) -> float:
    """Tokens a round: (1 - a^(n+1)) / (1 - a), the first wrong guess being replaced by the target's own token.

    Source: Leviathan et al., ICML 2023, equation 1 (guesses independent with chance a).
    """
    a, n = how.acceptance, how.draft_tokens
    return float(n + 1) if a == 1 else (1 - a ** (n + 1)) / (1 - a)


def speculation_document(step: Document, verify: Document, draft: Document, how: Speculation) -> dict[str, Any]:
    """Rounds of guessing and checking against plain decoding: a ``hwsim/speculation@1`` document.

    Parameters
    ----------
    step, verify: target documents of one token, and of `draft_tokens` + 1 tokens a sequence. draft: of the draft.

    Raises
    ------
    InputError: shares outside [0, 1], or no draft token.
    """
    if how.draft_tokens < 1 or not 0 <= how.acceptance <= 1 or not 0 <= how.overlap <= 1 or how.channel_s < 0:
        raise InputError("a draft guesses at least one token, and its shares lie in [0, 1]", seen=str(how))
    plain, checked = _value(step, "tpot_s"), _value(verify, "tpot_s")
    guessed = how.draft_tokens * _value(draft, "tpot_s")
    beside = how.overlap * checked
    round_s = checked - beside + max(beside, guessed) + how.channel_s
    tokens = expected_tokens(how)
    metrics = {
        "plain_token_s": plain,
        "verify_s": checked,
        "draft_s": guessed,
        "exposed_draft_s": max(guessed - beside, 0.0),
        "round_s": round_s,
        "tokens_per_round": tokens,
        "token_s": round_s / tokens,
        "speedup": plain * tokens / round_s,
    }
    return {
        "schema": SPECULATION_SCHEMA,
        "target": dict(step["workload"]),
        "draft": dict(draft["workload"]),
        "target_on": step["hardware"]["name"],
        "draft_on": draft["hardware"]["name"],
        "metrics": {name: {"value": value} for name, value in metrics.items()},
    }


def _value(document: Document, metric: str) -> float:
    """A metric of an estimate. Raises InputError where a model makes no tokens and so has none."""
    if metric not in document["metrics"]:
        name = document["workload"]["name"]
        raise InputError(f"{name} makes no tokens", where=name, seen=f"no {metric}", fix="name a decoder")
    return float(document["metrics"][metric]["value"])
