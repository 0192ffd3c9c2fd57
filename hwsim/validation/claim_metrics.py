"""What a published metric means in estimate documents, in SI units. Ratios compare the first side with the second.

"up to" figures are maxima over a grid of settings: each side then holds several documents, and the best is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hwsim.errors import InputError, unknown_name
from hwsim.validation import claim_serving

Document = Mapping[str, Any]
Side = Sequence[Document]

# unit of a claim (first word) -> SI factor
UNITS: Final = {
    "ms": 1e-3, "s": 1.0, "us": 1e-6, "token/s": 1.0, "token/s/GPU": 1.0, "x": 1.0, "fraction": 1.0, "-": 1.0, "": 1.0,
    "W": 1.0, "%": 0.01, "GB": 1e9, "GiB": 1024.0**3, "MB": 1e6, "GB/s": 1e9, "MAC": 1.0, "count": 1.0, "token": 1.0,
    "request": 1.0, "user": 1.0, "USD/h": 1.0, "KB": 1e3, "GFLOP": 1e9, "B": 1.0, "J": 1.0, "mJ": 1e-3, "kJ": 1e3,
    "J/token": 1.0, "mJ/token": 1e-3, "token/J": 1.0, "token/s/W": 1.0, "USD/Mtoken": 1.0, "token/USD": 1.0,
    "TB/s": 1e12, "MB/s": 1e6,
}  # fmt: skip


def si(value: float, unit: str) -> float:
    """A published value in SI. Raises UnknownNameError for an unknown unit."""
    word = unit.split(" ")[0]
    if word not in UNITS:
        raise unknown_name("unit of a claim", unit, UNITS)
    return value * UNITS[word]


def metric(document: Document, name: str) -> float:
    """A metric of a document. Raises UnknownNameError where the estimate has none of that name."""
    found = document["metrics"].get(name)
    if found is None:
        raise unknown_name("metric of the estimate", name, document["metrics"])
    return float(found["value"])


def phase(document: Document, name: str) -> Document:
    """A phase of a document. Raises InputError."""
    for item in document["phases"]:
        if item["name"] == name:
            return dict(item)
    raise InputError(f"the estimate has no phase {name}")


_PASSES: Final = 3  # forward, and a backward of twice its operations


def _flop(item: Document) -> float:
    return float(sum(task["flop"] for task in item["tasks"]))


def _context(d: Document) -> float:
    return float(d["scenario"]["batch"] * (d["scenario"]["prompt_tokens"] + d["scenario"]["output_tokens"]))


def _decode_total(d: Document) -> float:
    return metric(d, "tpot_s") * float(d["scenario"]["output_tokens"])


def _prompt_tokens(d: Document) -> float:
    return float(d["scenario"]["batch"] * d["scenario"]["prompt_tokens"])


def _rated_energy(d: Document) -> float:
    """Rated power of all devices x time, the basis of published energy tables without a meter."""
    return float(d["hardware"]["power"]["tdp_w"]) * float(d["hardware"]["devices"]) * _time(d)


def _time(d: Document) -> float:
    """Time of what the scenario asks: a forward pass, one decode step at a context, the prompt, or all of it."""
    asked = d.get("asked", "")
    if asked == "prefill":
        return metric(d, "ttft_s")
    if asked == "decode":
        return metric(d, "tpot_s")
    return metric(d, "latency_s")


ABSOLUTE: Final[dict[str, Callable[[Document], float]]] = {
    "throughput": lambda d: metric(d, "decode_throughput_tokens_per_s"),
    "throughput_per_request": lambda d: metric(d, "throughput_tokens_per_s") / float(d["scenario"]["batch"]),
    "throughput_end_to_end": lambda d: metric(d, "throughput_tokens_per_s"),
    "decode_throughput": lambda d: metric(d, "decode_throughput_tokens_per_s"),
    "prefill_throughput": lambda d: _prompt_tokens(d) / metric(d, "ttft_s"),
    "prefill_time": lambda d: metric(d, "ttft_s"),
    "token_time": lambda d: metric(d, "tpot_s"),
    "decode_time": _decode_total,
    "e2e_time": lambda d: metric(d, "latency_s"),
    "latency": _time,
    "time": _time,
    "power": lambda d: metric(d, "average_power_w"),
    "energy_per_token": lambda d: metric(d, "energy_j_per_token"),
    "tokens_per_joule": lambda d: 1 / metric(d, "energy_j_per_token"),
    "energy": lambda d: metric(d, "average_power_w") * metric(d, "latency_s"),
    "tokens_per_dollar": lambda d: 1e6 / metric(d, "cost_usd_per_mtok"),
    "memory_bytes": lambda d: _held(d) * float(d["hardware"]["devices"]),
    "weight_bytes": lambda d: float(d["memory"]["weights_bytes"]) * float(d["hardware"]["devices"]),
    "kv_bytes": lambda d: float(d["memory"]["kv_cache_bytes"]),
    "speedup_over_plain": lambda d: metric(d, "speedup"),
    "kv_bytes_per_token": lambda d: float(d["memory"]["kv_cache_bytes"]) / _context(d),
    "training_flops_per_token": lambda d: _PASSES * _flop(phase(d, "prefill")) / _prompt_tokens(d),
    "parameters": lambda d: float(d["workload"]["parameters"]) / 1e9,  # papers count them in "B", billions
    "held_bytes": lambda d: _held(d),
    "bandwidth_utilisation": lambda d: metric(d, "mbu"),
    "equivalent_tokens": lambda d: metric(d, "ttft_s") / metric(d, "tpot_s"),
    "mfu": lambda d: metric(d, "mfu"),
    "bytes": lambda d: metric(d, "loaded_bytes"),
    "load_time": lambda d: float(phase(d, d.get("asked") or "decode")["resources"]["ld"])
    + float(phase(d, d.get("asked") or "decode")["resources"].get("start", 0.0)),
    "mv_time": lambda d: float(phase(d, "decode")["resources"]["mac"]),
    "mm_time": lambda d: float(phase(d, "prefill")["resources"]["mac"]),
    "misc_time": lambda d: float(phase(d, d.get("asked") or "decode")["resources"]["misc"]),
    "max_output_tokens": lambda d: metric(d, "max_context_tokens"),
    "kv_concurrency": lambda d: float(d["memory"]["capacity_bytes"])
    * float(d["scenario"]["batch"])
    / float(d["memory"]["kv_cache_bytes"]),
    "decode_mfu": lambda d: _decode_mfu(d),
    "concurrency": lambda d: float(d["memory"]["max_batch"]),
    **claim_serving.ABSOLUTE,
    "cost_per_hour": lambda d: float(d["provenance"]["price"]["usd_per_hour"]) * float(d["hardware"]["devices"]),
}  # fmt: skip

# first side against second side; every one grows with the merit of the first unless its name says otherwise
RATIO: Final[dict[str, Callable[[Document, Document], float]]] = {
    "throughput_ratio": lambda a, b: ABSOLUTE["throughput"](a) / ABSOLUTE["throughput"](b),
    "speedup": lambda a, b: _time(b) / _time(a),
    "utilisation_ratio": lambda a, b: _time(b) / _time(a),
    "slowdown": lambda a, b: _time(a) / _time(b),
    "optimizer_slowdown": lambda a, b: metric(a, "optimizer_s") / metric(b, "optimizer_s"),
    "step_ratio": lambda a, b: metric(b, "step_s") / metric(a, "step_s"),
    "step_gain": lambda a, b: metric(b, "step_s") / metric(a, "step_s") - 1,
    "latency_ratio": lambda a, b: _time(a) / _time(b),
    "compute_efficiency_ratio": lambda a, b: ABSOLUTE["mv_time"](b) / ABSOLUTE["mv_time"](a),
    "energy_efficiency_ratio": lambda a, b: metric(b, "energy_j_per_token") / metric(a, "energy_j_per_token"),
    "energy_ratio": lambda a, b: _rated_energy(a) / _rated_energy(b),
    "cost_efficiency_ratio": lambda a, b: metric(b, "cost_usd_per_mtok") / metric(a, "cost_usd_per_mtok"),
    "tokens_per_dollar_ratio": lambda a, b: metric(b, "cost_usd_per_mtok") / metric(a, "cost_usd_per_mtok"),
    "memory_reduction": lambda a, b: _held(b) / _held(a),
    "latency_reduction": lambda a, b: 1 - _time(a) / _time(b),
    "token_gain": lambda a, b: metric(b, "tpot_s") / metric(a, "tpot_s"),
    "token_reduction": lambda a, b: 1 - metric(a, "tpot_s") / metric(b, "tpot_s"),
    "cycle_reduction": lambda a, b: 1 - metric(a, "pim_cycles") / metric(b, "pim_cycles"),
    "throughput_gain": lambda a, b: ABSOLUTE["throughput_end_to_end"](a) / ABSOLUTE["throughput_end_to_end"](b) - 1,
    "host_rate_ratio": lambda a, b: metric(a, "host_tokens_per_s") / metric(b, "host_tokens_per_s"),
    "batch_ratio": lambda a, b: metric(a, "split_max_batch") / float(b["memory"]["max_batch"]),
    "context_ratio": lambda a, b: metric(a, "max_context_tokens") / metric(b, "max_context_tokens"),
    "rated_efficiency_ratio": lambda a, b: _rated_energy(b) / _rated_energy(a),
    "power_reduction": lambda a, b: 1 - metric(a, "average_power_w") / metric(b, "average_power_w"),
    **claim_serving.RATIO,
    "flops_ratio": lambda a, b: _peak(a) / _peak(b),
    "fp32_flops_ratio": lambda a, b: _single_precision(a) / _single_precision(b),
    "bw_ratio": lambda a, b: _bandwidth(a) / _bandwidth(b),
}  # fmt: skip


def _decode_mfu(d: Document) -> float:
    """Matrix operations outside attention a second, over the dense peak of one device (tasks are of one device)."""
    tasks = [t for t in phase(d, "decode")["tasks"] if t["kind"] in ("gemm", "moe")]
    return float(sum(t["flop"] for t in tasks) / sum(t["time_s"] for t in tasks) / _peak(d))


def _held(d: Document) -> float:
    return float(d["memory"]["weights_bytes"]) + float(d["memory"]["kv_cache_bytes"])


def _peak(d: Document) -> float:
    compute = d["hardware"]["compute"]
    return float(compute.get("tensor/bf16") or compute["tensor/fp16"])


def _single_precision(d: Document) -> float:
    return float(d["hardware"]["compute"]["vector/fp32"])


def _best_prompt_tokens(side: Side) -> float:
    """Prompt tokens of the batch with the highest prompt rate: past it rates fall."""
    return _prompt_tokens(max(side, key=ABSOLUTE["prefill_throughput"]))


# metrics of all settings of a grid together
GRID: Final[dict[str, Callable[[Side], float]]] = {"best_prompt_tokens": _best_prompt_tokens, **claim_serving.GRID}


def _bandwidth(d: Document) -> float:
    return float(d["hardware"]["memories"][d["hardware"]["main_memory"]]["read_bytes_per_s"])


def predicted(name: str, sides: Sequence[Side]) -> list[float]:
    """Values of the metric over the grid of settings, SI. Raises InputError where it is not defined."""
    special = claim_serving.with_argument(name, sides)
    if special is not None:
        return special
    if len(sides) == 2 and name in RATIO:
        pairs = (
            zip(sides[0], sides[1], strict=True)
            if len(sides[0]) == len(sides[1])
            else ((a, b) for a in sides[0] for b in sides[1])
        )
        return [RATIO[name](a, b) for a, b in pairs]
    if name in GRID and len(sides[0]) > 1:  # of one setting it is a metric of the estimate
        return [GRID[name](sides[0])]
    if name in ABSOLUTE:
        return [ABSOLUTE[name](d) for d in sides[0]]
    if name in RATIO:
        raise InputError(f"{name} compares two machines, and the setup names one", fix="add `against` to a rule")
    return [metric(d, name) for d in sides[0]]
