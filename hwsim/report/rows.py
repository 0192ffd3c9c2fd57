"""Tables computed from a result document; drawing is elsewhere, so every plot is a table that a test can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsim.units import gib, si

Document = Mapping[str, Any]

# metric -> (label, unit, short explanation)
METRICS: Final[dict[str, tuple[str, str, str]]] = {
    "ttft_s": ("time to first token", "s", "prefill of the whole batch"),
    "tpot_s": ("time per output token", "s", "one decode step at the mean context"),
    "latency_s": ("latency", "s", "first to last token of the batch"),
    "decode_throughput_tokens_per_s": ("decode throughput", "token/s", "batch / time per output token"),
    "throughput_tokens_per_s": ("throughput", "token/s", "output tokens / latency"),
    "energy_j_per_token": ("energy", "J/token", "static and dynamic, all devices"),
    "average_power_w": ("average power", "W", "devices and their share of the host: energy / latency"),
    "cost_usd_per_mtok": ("cost", "USD/Mtoken", "device-hours over output tokens"),
    "mfu": ("compute utilization", "%", "matrix operations at peak / time, first phase"),
    "mbu": ("bandwidth utilization", "%", "main memory bytes / bandwidth, last phase"),
}


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric as text: value, the accuracy band, and what physics allows."""

    name: str
    label: str
    value: str
    band: str
    limits: str
    note: str


def metric_rows(document: Document) -> list[MetricRow]:
    """Rows of the metric table, in reading order."""
    rows = []
    forward = "ttft_s" not in document["metrics"]
    for name, (label, unit, text) in METRICS.items():
        metric = document["metrics"].get(name)
        if metric is None:
            continue
        note = "tokens processed / latency" if forward and name == "throughput_tokens_per_s" else text
        rows.append(
            MetricRow(
                name,
                label,
                quantity(metric["value"], unit),
                span(metric.get("low"), metric.get("high"), unit),
                span(metric.get("floor"), metric.get("ceiling"), unit),
                note,
            )
        )
    return rows


def quantity(value: float, unit: str) -> str:
    """A number with its unit, as people read it."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "USD/Mtoken":
        return f"{value:,.3g} USD/Mtoken" if value < 1000 else f"{value:,.0f} USD/Mtoken"
    if unit == "token/s":
        return f"{value:,.1f} token/s" if value < 1000 else f"{value:,.0f} token/s"
    return si(value, unit)


def span(low: float | None, high: float | None, unit: str) -> str:
    """``low - high unit``, or nothing where the ends mean nothing; a unit that both share is said once."""
    if low is None or high is None or low == high:
        return ""
    first, last = quantity(low, unit), quantity(high, unit)
    number, _, rest = first.partition(" ")
    return f"{number if rest == last.partition(' ')[2] else first} - {last}"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One operator of one phase: totals over its `count` executions on one device."""

    phase: str
    name: str
    kind: str
    count: int
    time_s: float
    share: float
    floor_s: float
    flop: float
    bytes: float
    energy_j: float
    bound: str

    @property
    def intensity(self) -> float:
        """Operations per byte of main memory; 0 where nothing moves."""
        return self.flop / self.bytes if self.bytes else 0.0


def task_rows(document: Document) -> list[TaskRow]:
    """All operators in execution order, host overhead as a task of its own."""
    rows: list[TaskRow] = []
    for phase in document["phases"]:
        busy = sum(task["time_s"] for task in phase["tasks"]) + phase["overhead_s"]
        for task in phase["tasks"]:
            rows.append(
                TaskRow(
                    phase["name"],
                    task["name"],
                    task["kind"],
                    task["count"],
                    task["time_s"],
                    task["time_s"] / busy if busy else 0.0,
                    task["floor_s"],
                    task["flop"],
                    task["bytes"],
                    task["energy_j"],
                    task["bound"],
                )
            )
        if phase["overhead_s"]:
            share = phase["overhead_s"] / busy
            rows.append(
                TaskRow(phase["name"], "host overhead", "host", 1, phase["overhead_s"], share, 0.0, 0, 0, 0.0, "launch")
            )
    return rows


def headline(document: Document) -> str:
    """The first line of every output: what, where, the number that matters, its band, what bounds it."""
    phase = document["phases"][-1]
    generative = "tpot_s" in document["metrics"]
    metric = document["metrics"]["tpot_s" if generative else "latency_s"]
    devices = document["hardware"]["devices"]
    hardware = document["hardware"]
    where = f"{devices} devices of {hardware['name']}" if devices > 1 else hardware["name"]
    band = f" [{si(metric['low'], 's')}, {si(metric['high'], 's')}]" if metric["low"] != metric["high"] else ""
    unit = "per token" if generative else "per batch"
    return f"{document['workload']['name']} on {where}: {si(metric['value'], 's')} {unit}{band}, {phase['bound']}-bound"


def basis(document: Document) -> str:
    """How the times of a document are known: what `--efficiency calibrated` could mean on its machine.

    Documents that do not name a calibration (searches over many layouts) say that one is used where there is one.
    """
    efficiency = str(document["scenario"]["efficiency"])
    provenance = document.get("provenance", {})
    if efficiency != "calibrated":
        return efficiency
    if "calibration" not in provenance:
        return "calibrated where a calibration exists"
    if provenance["calibration"] is not None:
        measured = provenance["calibration"].get("kind", "measured") == "measured"
        return "calibrated" if measured else "calibration transferred"
    models = {t["model"] for p in document.get("phases", ()) for t in p["tasks"] if t["kind"] != "collective"}
    return "not calibrated" if "generic" in models else "family model, not calibrated"


def scenario_line(document: Document, known: str = "") -> str:
    """The scenario in one line; `known` replaces how its times are known."""
    s = document["scenario"]
    split = "".join(f", {name} {s[name]}" for name in ("tp", "pp", "dp", "ep") if s.get(name, 1) > 1)
    split += ", sp" if s.get("sp") else ""
    lengths = (
        f"prompt {s['prompt_tokens']}, output {s['output_tokens']}"
        if "tpot_s" in document["metrics"]
        else (f"{s['prompt_tokens']} tokens each")
    )
    return (
        f"batch {s['batch']}, {lengths}; weights {s['weights']}, activations {s['activations']}, "
        f"KV cache {s['kv_cache']}{split}; {known or basis(document)}"
    )


def memory_line(document: Document) -> str:
    """The memory budget of one device in one line."""
    m = document["memory"]
    needed = m["weights_bytes"] + m["kv_cache_bytes"] + m["activations_bytes"]
    verdict = "fits" if m["fits"] else f"misses by {gib(needed - m['usable_bytes'])}"
    return (
        f"weights {gib(m['weights_bytes'])} + KV cache {gib(m['kv_cache_bytes'])} + "
        f"activations {gib(m['activations_bytes'])} = {gib(needed)} of {gib(m['usable_bytes'])} usable "
        f"({gib(m['capacity_bytes'])}): {verdict}, largest batch {m['max_batch']}"
    )


def misfit(document: Document) -> str:
    """That the scenario does not fit in memory, and by how much; nothing where it does."""
    m, s = document["memory"], document["scenario"]
    if m["fits"]:
        return ""
    return (
        f"{document['workload']['name']} does not fit on {document['hardware']['name']} with tp {s['tp']}, "
        f"pp {s['pp']}, batch {s['batch']}, so no number here can be reached: {memory_line(document)}"
    )


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """One operator on the roofline: intensity over main-memory bytes, attained and attainable rate of one device."""

    phase: str
    name: str
    intensity: float
    attained_flop_per_s: float
    attainable_flop_per_s: float
    time_s: float
    side: str


def ridge_point(document: Document) -> tuple[float, float, float]:
    """(ridge intensity in FLOP/B, peak FLOP/s of the operator with the most operations, main memory bytes/s)."""
    hardware = document["hardware"]
    tasks = [task for phase in document["phases"] for task in phase["tasks"]]
    peak = peak_of(document, max(tasks, key=lambda task: float(task["flop"])))
    bandwidth = hardware["memories"][hardware["main_memory"]]["read_bytes_per_s"]
    return peak / bandwidth, peak, bandwidth


def peak_of(document: Document, task: Document) -> float:
    """Datasheet rate of a task's unit and dtype; the largest of the device where the document says none."""
    table = document["hardware"]["compute"]
    stated = task.get("peak_flop_per_s") or table.get(f"{task['unit']}/{task['dtype']}")
    return float(stated or max(table.values()))


# Where operators wait for bytes that come from beyond the memories under whose roof they lie.
_BEYOND: Final = ("link", "flash")


def roofline_points(document: Document) -> list[RooflinePoint]:
    """Operators that compute and move bytes, each under the roofs of the unit and the memory that it really uses.

    An operator that a stated mechanism frees of both has no roof and no point.
    """
    _, _, bandwidth = ridge_point(document)
    tasks = {(p["name"], t["name"]): t for p in document["phases"] for t in p["tasks"]}
    points = []
    for row in task_rows(document):
        if not row.flop or not row.bytes or not row.time_s:
            continue
        peak, rate = task_roofs(document, tasks[row.phase, row.name], bandwidth)
        attainable = min(peak, row.intensity * rate)
        if attainable == math.inf:
            continue
        side = "compute" if peak <= row.intensity * rate else "memory"
        side = row.bound if row.bound in _BEYOND else side
        points.append(
            RooflinePoint(row.phase, row.name, row.intensity, row.flop / row.time_s, attainable, row.time_s, side)
        )
    return points


def task_roofs(document: Document, task: Document, bandwidth: float) -> tuple[float, float]:
    """(operations a second, bytes a second) that bound an operator; infinite where a mechanism frees it of one.

    `bandwidth`: of the main memory, for documents that were written before tasks named their own.
    """
    exempt = task.get("exempt", {})
    peak, rate = task.get("peak_flop_per_s"), task.get("memory_bytes_per_s")
    main = next(iter(task["traffic_bytes"]), "")
    if peak is None:
        peak = math.inf if "compute" in exempt else peak_of(document, task)
    if rate is None:
        rate = math.inf if main in exempt else bandwidth
    return float(peak), float(rate)


def roofs(document: Document) -> dict[str, float]:
    """Peaks under which operators of the document lie, by ``unit dtype``, highest first, in FLOP/s."""
    found: dict[str, float] = {}
    for task in (task for phase in document["phases"] for task in phase["tasks"] if task["flop"] and task["bytes"]):
        name = f"{task['unit']} {task['dtype']}"
        found[name] = max(found.get(name, 0.0), peak_of(document, task))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
