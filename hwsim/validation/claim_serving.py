"""Metrics of published claims about schedulers, clusters and overlap: from serving, timeline and estimate documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hwsim.errors import InputError

Document = Mapping[str, Any]
Side = Sequence[Document]
SATURATED: Final = 0.95  # share of the best rate that counts as saturation


def value(document: Document, name: str) -> float:
    """A metric of a document. Raises InputError where it has none of that name."""
    found = document.get("metrics", {}).get(name)
    if found is None:
        raise InputError(f"the document has no metric {name}", fix="name one that the run reports")
    return float(found["value"])


def rate(document: Document) -> float:
    """Largest rate (requests/s) that a capacity search found. Raises InputError where there was none."""
    if "capacity" not in document:
        raise InputError("the run searched no capacity", fix="add capacity and limits to the rule")
    return float(document["capacity"]["rate_per_s"])


def compute_bound(document: Document) -> float:
    """Tokens/s a device at which matrix operations alone fill its peak: peak/(2 x active parameters) (NanoFlow)."""
    compute = document["hardware"]["compute"]
    peak = float(compute.get("tensor/bf16") or compute["tensor/fp16"])
    return peak / (2 * float(document["workload"]["active_parameters"]))


def processed_rate(document: Document) -> float:
    """Tokens/s that a device works off, prompts included: of a run, or of one step of a timeline's batch."""
    if str(document["schema"]).startswith("hwsim/timeline"):
        return float(document["batch"]) / (float(document["makespan_s"]) * float(document["devices"]))
    return value(document, "processed_tokens_per_s") / float(document["hardware"]["devices"])


def _decode_cost(a: Document, b: Document) -> float:
    """A decoded token of `a` against a prompt token of `b`."""
    decode = value(a, "tpot_s") / float(a["scenario"]["batch"])
    return decode / (value(b, "ttft_s") / float(b["scenario"]["batch"] * b["scenario"]["prompt_tokens"]))


def _bubble_s(document: Document) -> float:
    """Idle seconds of a pipeline stage over the run of the first replica."""
    span = document["counts"]["finished"] / value(document, "throughput_requests_per_s")
    return float(span * (1 - document["replicas"][0]["busy_share"]))


def _saturation(side: Side) -> float:
    """Fewest prompt tokens whose rate reaches 95 % of the best of the grid."""
    rates = {
        float(d["scenario"]["prompt_tokens"]): float(d["scenario"]["prompt_tokens"]) / value(d, "ttft_s") for d in side
    }
    best = max(rates.values())
    return min(tokens for tokens, found in rates.items() if found >= SATURATED * best)


def _best_pool(side: Side) -> float:
    """Prefill replicas of the design with the largest capacity."""
    return float(max(side, key=rate)["scenario"]["prefill_pool"])


def _block_tokens(document: Document) -> float:
    """Tokens whose keys (or values) of one layer on one device fill a page of 2 MiB (vAttention's smallest)."""
    scenario = document["scenario"]
    tokens = float(scenario["batch"]) * (float(scenario["prompt_tokens"]) + float(scenario["output_tokens"]))
    per_token = float(document["memory"]["kv_cache_bytes"]) / tokens
    return 2 * 1024**2 / (per_token / (2 * float(document["workload"]["layers"])))


ABSOLUTE: Final[dict[str, Callable[[Document], float]]] = {
    "capacity": rate,
    "p99_tbt": lambda d: value(d, "itl_s_p99"),
    "compute_bound_throughput": compute_bound,
    "tokens_per_block": _block_tokens,
    "layer_time": lambda d: value(d, "ttft_s") / float(d["workload"]["layers"]),
    "kv_occupancy": lambda d: max(d["replicas"][0]["series"]["kv_share"], default=0.0),
}
RATIO: Final[dict[str, Callable[[Document, Document], float]]] = {
    "capacity_ratio": lambda a, b: rate(a) / rate(b),
    "capacity_saving": lambda a, b: 1 - rate(b) / rate(a),
    "fraction_of_optimal": lambda a, b: processed_rate(a) / compute_bound(b),
    "cost_ratio": _decode_cost,
    "bubble_ratio": lambda a, b: _bubble_s(b) / _bubble_s(a),
    "processed_ratio": lambda a, b: processed_rate(a) / processed_rate(b),
    "makespan_ratio": lambda a, b: float(b["makespan_s"]) / float(a["makespan_s"]),
    "makespan_loss": lambda a, b: 1 - float(b["makespan_s"]) / float(a["makespan_s"]),
    "decode_step_ratio": lambda a, b: value(a, "tpot_s") / value(b, "tpot_s"),
    "decode_step_increase": lambda a, b: value(a, "tpot_s") / value(b, "tpot_s") - 1,
    "ttft_overhead": lambda a, b: value(a, "ttft_s_mean") / value(b, "ttft_s_mean") - 1,
    "ttft_loss": lambda a, b: 1 - value(b, "ttft_s_mean") / value(a, "ttft_s_mean"),
}
GRID: Final[dict[str, Callable[[Side], float]]] = {"saturation_tokens": _saturation, "best_pool": _best_pool}


def with_argument(name: str, sides: Sequence[Side]) -> list[float] | None:
    """Metrics that take an argument after a colon; None for other names.

    ``mean:NAME``: a ratio averaged over the settings of both sides. ``task_time:decode/block.qkv+block.o_proj``:
    seconds of these operators of a phase (``task_once``: of one execution, the longest; ``task_share``: of the phase).
    ``faster:NAME``: metric NAME of the second side over the first. ``fused_norm:decode/ALL_REDUCE+NORM``: both in turn
    against a norm that runs on the reduced shard only. ``kv_swap:LINK``: the cache out and another in;
    ``kv_load_layer:LINK``: the cache of one layer.
    """
    kind, _, rest = name.partition(":")
    if kind == "mean":
        values = [RATIO[rest](a, b) for a, b in zip(*sides, strict=True)]
        return [sum(values) / len(values)]
    if kind == "faster" and len(sides) == 2:
        pairs = (
            zip(sides[0], sides[1], strict=True)
            if len(sides[0]) == len(sides[1])
            else ((a, b) for a in sides[0] for b in sides[1])
        )
        return [value(b, rest) / value(a, rest) for a, b in pairs]
    if kind == "task_time":
        return [sum(_task_times(d, rest).values()) for d in sides[0]]
    if kind == "task_share":
        return [sum(_task_times(d, rest).values()) / _phase_s(d, rest) for d in sides[0]]
    if kind == "task_once":
        return [max(_each(d, rest)) for d in sides[0]]
    if kind in ("kv_swap", "kv_load_layer"):
        return [
            _kv_over_link_s(d, rest) * (2.0 if kind == "kv_swap" else 1 / d["workload"]["layers"]) for d in sides[0]
        ]
    if kind == "fused_norm":
        return [_fused(d, rest) for d in sides[0]]
    return None


def _kv_over_link_s(document: Document, link: str) -> float:
    """Seconds to move the KV cache of the scenario over a link of the device."""
    links = document["hardware"]["links"]
    if link not in links:
        raise InputError(f"the device has no link {link}", seen=", ".join(links))
    return float(document["memory"]["kv_cache_bytes"]) / float(links[link]["bandwidth_bytes_per_s"])


def _phase(document: Document, name: str) -> Document:
    for item in document["phases"]:
        if item["name"] == name:
            return dict(item)
    raise InputError(f"the estimate has no phase {name}")


def _phase_s(document: Document, rest: str) -> float:
    return float(_phase(document, rest.partition("/")[0])["time_s"])


def _tasks(document: Document, rest: str) -> list[Document]:
    """Tasks named by ``PHASE/NAME+NAME``. Raises InputError where one is missing."""
    phase, _, names = rest.partition("/")
    tasks = {t["name"]: t for t in _phase(document, phase)["tasks"]}
    missing = [n for n in names.split("+") if n not in tasks]
    if missing:
        raise InputError(f"the phase {phase} has no operator {missing[0]}")
    return [tasks[n] for n in names.split("+")]


def _task_times(document: Document, rest: str) -> dict[str, float]:
    return {t["name"]: float(t["time_s"]) for t in _tasks(document, rest)}


def _each(document: Document, rest: str) -> list[float]:
    """Seconds of one execution of each task."""
    return [float(t["time_s"]) / float(t["count"]) for t in _tasks(document, rest)]


def _fused(document: Document, rest: str) -> float:
    """All-reduce, then a norm of all tokens on every device, against a norm of 1/devices of them inside it."""
    reduce_s, norm_s = _each(document, rest)
    return (reduce_s + norm_s) / (reduce_s + norm_s / float(document["hardware"]["devices"]))
