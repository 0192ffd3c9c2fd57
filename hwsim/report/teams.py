"""Tables of `hwsim/pair@1` and `hwsim/speculation@1` documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsim.units import si

_PAIR: Final = {
    "ttft_s": ("time to first token", "s"),
    "second_token_s": ("second token", "s"),
    "tpot_s": ("time per output token", "s"),
    "latency_s": ("latency", "s"),
    "cache_bytes": ("cache handed over", "B"),
    "handoff_serial_s": ("handed over after the prompt", "s"),
    "handoff_layerwise_s": ("handed over layer by layer", "s"),
    "handoff_of_prompt": ("of the prompt's time", "%"),
    "handoff_of_second_token": ("of a token's time", "%"),
    "prompt_machines_per_token_machine": ("prompt machines a token machine, equal batches", ""),
}
_SPECULATION: Final = {
    "plain_token_s": ("plain token", "s"),
    "verify_s": ("check of a round", "s"),
    "draft_s": ("guesses of a round", "s"),
    "exposed_draft_s": ("guesses that nothing hides", "s"),
    "round_s": ("round", "s"),
    "tokens_per_round": ("tokens a round", ""),
    "token_s": ("time per output token", "s"),
    "speedup": ("over plain decoding", "x"),
}


def team_table(document: Mapping[str, Any]) -> str:
    """Aligned text, ready to print."""
    pair = "prompt_on" in document
    model = document["workload" if pair else "target"]["name"]
    head = (
        f"{model}: prompts on {document['prompt_on']}, tokens on {document['token_on']}"
        if pair
        else f"{model} on {document['target_on']}, draft {document['draft']['name']} on {document['draft_on']}"
    )
    names = _PAIR if pair else _SPECULATION
    rows = [(label, _shown(document["metrics"][key]["value"], unit)) for key, (label, unit) in names.items()]
    width = max(len(label) for label, _ in rows)
    return "\n".join([head, *(f"  {label.ljust(width)}  {text}" for label, text in rows)])


def _shown(value: float, unit: str) -> str:
    if unit in ("s", "B"):
        return si(value, unit)
    return f"{value:.1%}" if unit == "%" else f"{value:.3g} {unit}".strip()
