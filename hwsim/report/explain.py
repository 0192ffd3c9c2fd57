"""Formula, operands and source of any number of an estimate document: the working, shown.

A subject is a metric (``tpot_s``), a phase (``decode``), an operator (``decode.block.qkv``) or ``memory``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hwsim.errors import unknown_name
from hwsim.report.explain_mapping import mapping_lines
from hwsim.report.rows import METRICS, Document, quantity
from hwsim.units import gib, si


def explain(document: Document, subject: str) -> str:
    """Lines of working for one subject.

    Raises
    ------
    UnknownNameError: the document has no such metric, phase or operator; proposes the nearest.
    """
    if subject in document["metrics"]:
        return "\n".join(_metric(document, subject))
    if subject == "memory":
        return "\n".join(_memory(document))
    for phase in document["phases"]:
        if subject == phase["name"]:
            return "\n".join(_phase(phase))
        for task in phase["tasks"]:
            if subject in (f"{phase['name']}.{task['name']}", task["name"]):
                return "\n".join(_task(document, phase, task))
    raise unknown_name("number to explain", subject, subjects(document), where="SUBJECT")


def subjects(document: Document) -> list[str]:
    """Everything that `explain` can explain in this document."""
    tasks = [f"{p['name']}.{t['name']}" for p in document["phases"] for t in p["tasks"]]
    return [*document["metrics"], "memory", *(p["name"] for p in document["phases"]), *tasks]


def _phase_time(document: Document, index: int) -> list[str]:
    return _phase(document["phases"][index])


def _latency(document: Document) -> list[str]:
    if "ttft_s" not in document["metrics"]:
        return _phase_time(document, 0)
    first, step = document["metrics"]["ttft_s"]["value"], document["metrics"]["tpot_s"]["value"]
    steps = document["scenario"]["output_tokens"] - 1
    return [
        "latency = TTFT + (output - 1) x TPOT",
        f"        = {si(first, 's')} + {steps} x {si(step, 's')}",
        "assumption: cost linear in the context, so every step costs what the mean context costs",
    ]


def _tokens(document: Document) -> float:
    s = document["scenario"]
    return (
        float(s["batch"] * s["output_tokens"])
        if "ttft_s" in document["metrics"]
        else float(document["phases"][0]["tokens"])
    )


def _throughput(document: Document) -> list[str]:
    latency = document["metrics"]["latency_s"]["value"]
    return ["throughput = tokens / latency", f"           = {_tokens(document):g} / {si(latency, 's')}"]


def _decode_throughput(document: Document) -> list[str]:
    step = document["metrics"]["tpot_s"]["value"]
    return [
        "decode throughput = batch / TPOT",
        f"                  = {document['scenario']['batch']} / {si(step, 's')}",
    ]


def _total_energy(document: Document) -> float:
    phases = document["phases"]
    steps = document["scenario"]["output_tokens"] - 1
    return float(phases[0]["energy_j"] + (phases[1]["energy_j"] * steps if len(phases) > 1 else 0))


def _energy(document: Document) -> list[str]:
    power = document["hardware"]["power"]
    idle, clocks = power["idle_w"], power.get("active_w", 0.0)
    drawn = f"idle {idle:g} W" + (f" and running clocks {clocks:g} W" if clocks else "") + " a device"
    lines = [
        "energy/token = (prefill + (output - 1) x decode step) / tokens, each = dynamic + static power x time (LAW-4)"
    ]
    for phase in document["phases"]:
        dynamic = sum(t["energy_j"] for t in phase["tasks"])
        lines.append(
            f"  {phase['name']}: {si(phase['energy_j'], 'J')} in all; operators {si(dynamic, 'J')} on one device, "
            f"{drawn} over {si(phase['time_s'], 's')}"
        )
    return [
        *lines,
        f"  total {si(_total_energy(document), 'J')} / {_tokens(document):g} tokens",
        *_sources(document, "power"),
    ]


def _power(document: Document) -> list[str]:
    latency = document["metrics"]["latency_s"]["value"]
    return [
        "average power = energy / latency",
        f"              = {si(_total_energy(document), 'J')} / {si(latency, 's')}",
    ]


def _cost(document: Document) -> list[str]:
    price = document["provenance"]["price"]
    devices, latency = document["hardware"]["devices"], document["metrics"]["latency_s"]["value"]
    return [
        "cost/Mtoken = devices x rate x latency / tokens x 1e6 (+ electricity where the device is bought)",
        f"  = {devices} x {price['usd_per_hour']:.4g} USD/h / 3600 x {si(latency, 's')} / {_tokens(document):g} x 1e6",
        f"price: {price['term']}, {price['date']}, {price['source']}",
    ]


def _mfu(document: Document) -> list[str]:
    flop = sum(t["flop"] for t in document["phases"][0]["tasks"])
    return [
        "compute utilization = sum of matrix operations / peak of their dtype, over the time of the first phase",
        f"operations on one device {si(flop, 'FLOP')}, time {si(document['phases'][0]['time_s'], 's')}",
        *_sources(document, "compute"),
    ]


def _mbu(document: Document) -> list[str]:
    main = document["hardware"]["main_memory"]
    moved = sum(t["traffic_bytes"].get(main, 0) for t in document["phases"][-1]["tasks"])
    rate = document["hardware"]["memories"][main]["read_bytes_per_s"]
    return [
        f"bandwidth utilization = bytes of {main} / (bandwidth x time) of the last phase",
        f"                      = {si(moved, 'B')} / ({si(rate, 'B/s')} x {si(document['phases'][-1]['time_s'], 's')})",
        *_sources(document, f"memories.{main}"),
    ]


_FORMULAS: Final[dict[str, Callable[[Document], list[str]]]] = {
    "ttft_s": lambda d: _phase_time(d, 0),
    "tpot_s": lambda d: _phase_time(d, 1),
    "latency_s": _latency,
    "throughput_tokens_per_s": _throughput,
    "decode_throughput_tokens_per_s": _decode_throughput,
    "energy_j_per_token": _energy,
    "average_power_w": _power,
    "cost_usd_per_mtok": _cost,
    "mfu": _mfu,
    "mbu": _mbu,
}


def _metric(document: Document, name: str) -> list[str]:
    label, unit, note = METRICS[name]
    metric = document["metrics"][name]
    ends = ", ".join(
        f"{end} {quantity(metric[end], unit)}" for end in ("floor", "low", "high", "ceiling") if end in metric
    )
    head = f"{label} = {quantity(metric['value'], unit)}  ({note})"
    return [head, *([f"  {ends}"] if ends else []), *_FORMULAS[name](document)]


def _phase(phase: Document) -> list[str]:
    lines = [f"{phase['name']} = sum over operators of time x count, host overhead {si(phase['overhead_s'], 's')}"]
    ranked = sorted(phase["tasks"], key=lambda t: -t["time_s"])
    lines += [
        f"  {si(t['time_s'], 's'):>9}  {t['name']} x {t['count']} ({t['bound']}-bound)" for t in ranked if t["time_s"]
    ]
    busiest = max(phase["resources"], key=lambda name: phase["resources"][name])
    lines.append(
        f"floor {si(phase['bracket']['floor'], 's')}: busiest resource at datasheet peaks, everything else overlapped"
    )
    lines.append(
        f"ceiling {si(phase['bracket']['ceiling'], 's')}: all parts one after another, pessimistic end of the band"
    )
    lines.append(f"bound by {busiest}: {si(phase['resources'][busiest], 's')} of busy time")
    return lines


def _task(document: Document, phase: Document, task: Document) -> list[str]:
    count = task["count"]
    dims = ", ".join(f"{name} {value:g}" for name, value in task["dims"].items())
    lines = [
        f"{phase['name']}.{task['name']}: {task['op']} ({task['kind']}), {dims}, in {task['dtype']}",
        f"  {si(task['time_s'], 's')} over {count} executions, {si(task['time_s'] / count, 's')} each, {task['bound']}",
        f"  floor {si(task['floor_s'] / count, 's')} each = largest part at datasheet peaks:",
    ]
    lines += [f"    {line}" for line in _floor_lines(document, task)]
    lines.append(f"  model `{task['model']}`, parts of one execution (docs/formulas):")
    lines += [f"    {name} {si(seconds / count, 's')}" for name, seconds in task["parts_s"].items()]
    lines.append(f"  energy {si(task['energy_j'] / count, 'J')} each, static power not included")
    return [*lines, *mapping_lines(task, document["hardware"]["main_memory"])]


def _floor_lines(document: Document, task: Document) -> list[str]:
    exempt, floors = task.get("exempt", {}), task.get("floor_parts_s", {})
    lines = [line for name, line in _datasheet_lines(document, task) if name not in exempt]
    for name, why in exempt.items():
        held = f"{si(floors[name] / task['count'], 's')} " if name in floors else ""
        lines.append(f"{name}: {held}({why})")
    if task["kind"] == "collective":
        lines.append(f"link: {si(task['dims']['bytes'], 'B')} message over {task['dims']['ranks']:g} ranks")
    named = {*exempt, "compute", "link", *task["traffic_bytes"]}
    return lines + [f"{name}: {si(s / task['count'], 's')}" for name, s in floors.items() if name not in named]


def _datasheet_lines(document: Document, task: Document) -> list[tuple[str, str]]:
    """(resource, working) of what the task asks of the datasheet."""
    hardware, count, lines = document["hardware"], task["count"], []
    if task["flop"]:
        key = f"{task['unit']}/{task['dtype']}"
        stated = hardware["compute"].get(key)
        peak = task.get("peak_flop_per_s") or stated
        rate = f" / {si(peak, 'FLOP/s')} = {si(task['flop'] / count / peak, 's')}" if peak else ""
        rate += "" if stated else f" (no {key} path: widened)"
        cite = _cite(document, "compute." + key.replace("/", "."))
        lines.append(("compute", f"compute: {si(task['flop'] / count, 'FLOP')}{rate}{cite}"))
    for level, traffic in task["traffic_bytes"].items():
        rate = hardware["memories"][level]["read_bytes_per_s"]
        each, cite = traffic / count, _cite(document, f"memories.{level}.read")
        lines.append((level, f"{level}: {si(each, 'B')} / {si(rate, 'B/s')} = {si(each / rate, 's')}{cite}"))
    return lines


def _memory(document: Document) -> list[str]:
    memory: Any = document["memory"]
    lines = ["weights + KV cache + activations <= capacity x fraction, on the fullest device"]
    lines += [
        f"  {name.removesuffix('_bytes')}: {gib(value)}" for name, value in memory.items() if name.endswith("_bytes")
    ]
    lines.append(
        f"  fits: {memory['fits']}; largest batch {memory['max_batch']} = floor of free bytes / bytes of one sequence"
    )
    lines.append("activations: largest inputs + outputs of one operator, at most 8192 tokens a step (chunked prefill)")
    return [*lines, *_sources(document, f"memories.{document['hardware']['main_memory']}.size")]


def _cite(document: Document, path: str) -> str:
    found = _source(document, path)
    return f"   [{found}]" if found else ""


def _source(document: Document, path: str) -> str:
    sources = document["hardware"]["sources"]
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in sources:
            return str(sources[".".join(parts[:end])])
    return str(sources.get("default", ""))


def _sources(document: Document, prefix: str) -> list[str]:
    found = _source(document, prefix)
    return [f"source: {found}"] if found else []
