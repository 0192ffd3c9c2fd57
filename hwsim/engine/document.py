"""The `hwsim/estimate@1` document: plain data of an estimate, the only thing that reports read.

Task entries are totals over their `count` executions on one device, so that the times of a phase add up to its
busy time. No clock, host name or path enters: equal inputs give byte-equal documents.
"""

from __future__ import annotations

import platform as interpreter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from hwsim import __version__
from hwsim.cost.registry import active_power_w
from hwsim.engine.estimate import Estimate
from hwsim.engine.metrics import Phase
from hwsim.ir.mapped import Task
from hwsim.ir.platform import Device
from hwsim.ir.result import Bracket, Interval

SCHEMA = "hwsim/estimate@1"


def document(estimate: Estimate, workload: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data of an estimate.

    `workload` holds name, parameters and whatever else identifies the model; `inputs` the content hashes of the
    files that were read.
    """
    scenario, platform = estimate.scenario, estimate.platform
    return {
        "schema": SCHEMA,
        "workload": dict(workload),
        "hardware": _hardware(estimate),
        "scenario": {
            "batch": plain(scenario.batch),
            "prompt_tokens": plain(scenario.prompt_tokens),
            "output_tokens": plain(scenario.output_tokens),
            "weights": scenario.weights,
            "activations": scenario.activations,
            "kv_cache": scenario.kv_cache,
            "tp": scenario.tp,
            "pp": scenario.pp,
            "ep": scenario.ep,
            "dp": scenario.dp,
            "sp": scenario.sp,
            "efficiency": scenario.efficiency,
            "engine": scenario.engine,
            "mapper": PurePath(scenario.mapper).stem,
            "memory_fraction": scenario.memory_fraction,
        },
        "metrics": {name: bracket(metric) for name, metric in estimate.metrics.items()},
        "memory": _memory(estimate),
        "phases": [_phase(phase, platform.device) for phase in estimate.phases],
        **_mapping(estimate),
        "provenance": _provenance(estimate, inputs),
        "warnings": list(estimate.warnings),
    }


def _mapping(estimate: Estimate) -> dict[str, Any]:
    """What the mapper proved, by phase; nothing for the ideal. Wall seconds stay out: documents are repeatable."""
    reports = {phase: m.report for phase, m in estimate.facts.get("mappings", {}).items() if m.report is not None}
    if not reports:
        return {}
    kept = ("solver", "version", "status", "objective", "bound", "gap")
    said = {phase: {name: plain(getattr(report, name)) for name in kept} for phase, report in reports.items()}
    objective = estimate.scenario.map_objective or "latency"
    return {"mapping": {"mapper": PurePath(estimate.scenario.mapper).stem, "objective": objective, "phases": said}}


def bracket(metric: Bracket) -> dict[str, Any]:
    """Value and ends; an end that means nothing is left out."""
    ends = {"low": metric.low, "high": metric.high, "floor": metric.floor, "ceiling": metric.ceiling}
    return {"value": plain(metric.value), **{name: plain(end) for name, end in ends.items() if end is not None}}


def plain(value: Any) -> Any:
    """Numbers and arrays as JSON values; integral floats of counts stay as they are."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _hardware(estimate: Estimate) -> dict[str, Any]:
    platform, scenario = estimate.platform, estimate.scenario
    device = platform.device
    return {
        "name": platform.name,
        "device": device.name,
        "title": device.title,
        "kind": device.kind,
        "devices": scenario.devices,
        "status": device.status,
        "compute": {f"{c.unit}/{c.dtype}": plain(c.peak_flop_per_s) for c in device.compute},
        "memories": {
            m.name: {"size_bytes": plain(m.size_bytes), "read_bytes_per_s": plain(m.read_bytes_per_s), "scope": m.scope}
            for m in device.memories
        },
        "main_memory": device.main_memory.name,
        "links": {k.name: {"bandwidth_bytes_per_s": plain(k.bandwidth_bytes_per_s)} for k in device.links},
        "power": {
            "tdp_w": plain(device.power.tdp_w),
            "idle_w": plain(device.power.idle_w),
            "active_w": plain(active_power_w(device, scenario.efficiency)),
        },
        "sources": dict(device.sources),
    }


def _memory(estimate: Estimate) -> dict[str, Any]:
    memory = estimate.memory
    return {
        "capacity_bytes": plain(memory.capacity_bytes),
        "usable_bytes": plain(memory.usable_bytes),
        "weights_bytes": plain(memory.weights_bytes),
        "kv_cache_bytes": plain(memory.kv_cache_bytes),
        "activations_bytes": plain(memory.activations_bytes),
        "headroom_bytes": plain(memory.headroom_bytes),
        "fits": plain(memory.fits),
        "max_batch": plain(memory.max_batch),
    }


def _phase(phase: Phase, device: Device) -> dict[str, Any]:
    timeline = phase.timeline
    return {
        "name": phase.name,
        "time_s": plain(phase.span.value),
        "bracket": bracket(phase.span),
        "bound": bound(timeline.busy_s),
        "overhead_s": plain(timeline.overhead_s),
        "energy_j": plain(phase.energy_j),
        "tokens": plain(phase.tokens),
        "resources": {name: plain(seconds) for name, seconds in timeline.busy_s.items()},
        "tasks": [_task(interval) for interval in timeline.intervals],
    }


def bound(parts: Mapping[str, Any]) -> str:
    """Name of the largest part of the (first) point."""
    return max(parts, key=lambda name: float(np.ravel(parts[name])[0])) if parts else ""


def _task(interval: Interval) -> dict[str, Any]:
    task, cost = interval.task, interval.cost
    flop = sum((f for f in task.flop.values()), 0)
    main = _main_traffic(interval)
    return {
        "name": task.name,
        "kind": task.kind,
        "op": task.operator.op,
        "count": task.count,
        "flop": plain(flop * task.count),
        "bytes": plain(main * task.count),
        "time_s": plain(cost.time_s * task.count),
        "floor_s": plain(cost.floor_s * task.count),
        "energy_j": plain(cost.energy_j * task.count),
        "bound": bound(cost.parts_s),
        "parts_s": {name: plain(seconds * task.count) for name, seconds in cost.parts_s.items()},
        "traffic_bytes": {name: plain(size * task.count) for name, size in task.traffic_bytes.items()},
        "dtype": task.operator.dtype,
        "unit": task.operator.unit,
        **_roof(interval),
        **_stated(interval),
        "dims": {name: plain(size) for name, size in task.operator.dims.items()},
        "model": cost.model,
        **_choice_of(task),
    }


def _roof(interval: Interval) -> dict[str, Any]:
    """Rates of the unit and the memory that the task really uses: what its roof is, after widening.

    Left out where its family names a mechanism by which the task does not wait for them.
    """
    task, cost = interval.task, interval.cost
    remote = task.choice.get("remote", {"compute": "compute", "memory": _main(interval)})
    work = {"compute": sum((f for f in task.flop.values()), 0), "memory": _main_traffic(interval)}
    found = {}
    for kind, key in (("compute", "peak_flop_per_s"), ("memory", "memory_bytes_per_s")):
        busy_s = 0.0 if remote[kind] in cost.beside else cost.floor_parts_s.get(remote[kind], 0.0)
        if task.kind != "collective" and np.all(np.asarray(work[kind]) > 0) and np.all(np.asarray(busy_s) > 0):
            found[key] = plain(np.divide(work[kind], busy_s))
    return found


def _main(interval: Interval) -> str:
    return next(iter(interval.task.traffic_bytes), "")


def _stated(interval: Interval) -> dict[str, Any]:
    """Resources of the task's demand that do not bound it, and the mechanisms by which they do not."""
    task, cost = interval.task, interval.cost
    used = {"compute", "link", *task.traffic_bytes, *(n.rpartition("/")[0] for n in task.flop), *cost.floor_parts_s}
    said = {name: why for name, why in {**cost.instead, **cost.beside}.items() if name in used}
    parts = {name: plain(seconds * task.count) for name, seconds in cost.floor_parts_s.items()}
    return {"floor_parts_s": parts, **({"exempt": said} if said else {})}


def _choice_of(task: Task) -> dict[str, Any]:
    """What a mapper decided for the task, if any did."""
    found = [task.choice[kind] for kind in ("tiling", "mesh", "overlay") if kind in task.choice]
    return {"mapping": found[0]} if found else {}


def _main_traffic(interval: Interval) -> Any:
    """Bytes beyond the chip: main memory for kernels, message bytes for collectives."""
    task = interval.task
    if task.kind == "collective":
        return task.operator.dims["bytes"]
    if "remote" in task.choice:
        return task.choice["remote"]["bytes"]
    return next(iter(task.traffic_bytes.values()), 0)


def _provenance(estimate: Estimate, inputs: Mapping[str, Any]) -> dict[str, Any]:
    device, price = estimate.platform.device, estimate.platform.price
    calibration = device.calibration
    return {
        "hwsim": __version__,
        "python": interpreter.python_version(),
        "numpy": np.__version__,
        "inputs": dict(inputs),
        "calibration": None
        if calibration is None or estimate.scenario.efficiency == "datasheet"
        else {"name": calibration.name, "kind": calibration.kind, **calibration.provenance},
        "price": None
        if price is None
        else {
            "usd_per_hour": price.rate_usd_per_s * 3600,
            "term": price.term,
            "date": price.date,
            "source": price.source,
        },
    }
