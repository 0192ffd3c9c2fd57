"""24 results (8 models x 3 devices, bare roofline) that may change only for a stated reason.

Regenerate with ``HWSIM_REGEN="why" python -m pytest tests/engine/test_golden.py``; the reason stays beside the values.
The laws that would catch a wrong golden value stand in test_estimate.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import hwsim

FILE = Path(__file__).resolve().parents[1] / "data" / "golden.json"
MODELS = (
    "llama-2-7b",
    "llama-3.1-70b",
    "mixtral-8x7b",
    "deepseek-v3",
    "opt-13b",
    "gemma-2-9b",
    "bert-large",
    "flan-t5-xxl",
)
DEVICES = ("a100-sxm4-80gb", "h100-sxm", "tpu-v5e")


def results() -> dict[str, Any]:
    """Metrics and memory of every pair."""
    found = {}
    for model in MODELS:
        for device in DEVICES:
            document = hwsim.evaluate(
                model, device, batch=4, prompt=700, output=90, efficiency="datasheet", check_fit=False
            ).document
            metrics = {
                name: metric["value"] for name, metric in document["metrics"].items() if name != "cost_usd_per_mtok"
            }
            memory = {
                name: document["memory"][name] for name in ("weights_bytes", "kv_cache_bytes", "activations_bytes")
            }
            found[f"{model} on {device}"] = metrics | memory
    return found


def test_results_are_those_of_the_golden_file() -> None:
    now = results()
    reason = os.environ.get("HWSIM_REGEN")
    if reason:
        FILE.write_text(json.dumps({"reason": reason, "results": now}, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(FILE.read_text(encoding="utf-8"))["results"]
    assert now.keys() == stored.keys()
    drift = {
        f"{pair} {name}": value / stored[pair][name] - 1
        for pair, values in now.items()
        for name, value in values.items()
        if value != pytest.approx(stored[pair][name], rel=1e-9)
    }
    assert not drift
