"""What a `hwsim/comparison@1` document says, as rows: metrics by machine, differences, bounds, prices, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwsim.report import rows
from hwsim.units import gib, si

_FORMATS: Final = ("weights", "activations", "kv_cache")
_LESS_IS_BETTER: Final = ("_s", "_j_per_token", "_usd_per_mtok", "_w")


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of one machine: the value, how many times the best one, the band; all empty where it has none."""

    value: str
    times_best: str
    band: str
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A metric across the machines, in their order; `winner` is the name of the best."""

    name: str
    label: str
    cells: tuple[Cell, ...]
    winner: str


def metric_rows(comparison: rows.Document) -> list[Row]:
    """One row for every metric that any machine has, in reading order."""
    columns = comparison["columns"]
    present = [name for name in rows.METRICS if any(name in c.get("metrics", {}) for c in columns)]
    return [metric_row(name, columns) for name in present]


def metric_row(name: str, columns: Sequence[rows.Document]) -> Row:
    """A metric of `rows.METRICS` that at least one of the columns has."""
    label, unit, _ = rows.METRICS[name]
    values = [c["metrics"][name]["value"] if name in c.get("metrics", {}) else None for c in columns]
    known = [v for v in values if v is not None]
    less = name.endswith(_LESS_IS_BETTER) and not name.endswith("_per_s")
    best = (min if less else max)(known)
    cells = []
    for column, value in zip(columns, values, strict=True):
        if value is None:
            cells.append(Cell("", "", "", False))
            continue
        metric = column["metrics"][name]
        ratio = "" if value == best or not best else f"{value / best:.2f}x"
        band = rows.span(metric.get("low"), metric.get("high"), unit)
        cells.append(Cell(rows.quantity(value, unit), ratio, band, value == best))
    return Row(name, label, tuple(cells), columns[values.index(best)]["hardware"]["name"])


def able(comparison: rows.Document) -> list[rows.Document]:
    """The estimates of machines that can run the workload."""
    return [c for c in comparison["columns"] if "metrics" in c]


def refusals(comparison: rows.Document) -> list[tuple[str, str]]:
    """(machine, why) of those that cannot."""
    return [(c["hardware"]["name"], c["infeasible"]) for c in comparison["columns"] if "infeasible" in c]


def warnings(comparison: rows.Document) -> list[str]:
    """The warnings of every estimate, with the machine's name."""
    return [f"{c['hardware']['name']}: {text}" for c in able(comparison) for text in c["warnings"]]


def headline(comparison: rows.Document) -> str:
    """The workload and the scenario in one line; a format that the machines do not share is left to `differences`."""
    columns = able(comparison)
    if not columns:
        return "no machine can run this"
    own = [key for key in _FORMATS if len({c["scenario"][key] for c in columns}) > 1]
    scenario = columns[0]["scenario"] | dict.fromkeys(own, "of each machine")
    ways = {rows.basis(c) for c in columns}
    known = rows.basis(columns[0]) if len(ways) == 1 else "calibrated where a calibration exists"
    line = f"{columns[0]['workload']['name']}: {rows.scenario_line({**columns[0], 'scenario': scenario}, known)}"
    changed = ", ".join(f"{path} = {value}" for path, value in comparison.get("what_if", {}).items())
    return f"{line}; what if {changed}" if changed else line


def differences(columns: Sequence[rows.Document]) -> list[str]:
    """What the compared documents do not share besides the machine: formats, prices, status."""
    found = []
    for label, get in (
        ("weight format", lambda c: c["scenario"]["weights"]),
        ("activation format", lambda c: c["scenario"]["activations"]),
        ("KV cache format", lambda c: c["scenario"]["kv_cache"]),
        ("price term", lambda c: (c["provenance"]["price"] or {}).get("term", "none")),
        ("price date", lambda c: (c["provenance"]["price"] or {}).get("date", "none")),
        ("status", lambda c: c["hardware"]["status"]),
        ("devices", lambda c: c["hardware"]["devices"]),
    ):
        values = {c["hardware"]["name"]: get(c) for c in columns}
        if len(set(values.values())) > 1:
            found.append(f"{label} differs: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    return found


def phase_bounds(column: rows.Document) -> str:
    """What binds each phase of one machine."""
    return ", ".join(f"{p['name']} {p['bound']}" for p in column["phases"]) if "phases" in column else "infeasible"


def memory_share(column: rows.Document) -> str:
    """What one device holds of what it could."""
    if "memory" not in column:
        return "-"
    m = column["memory"]
    return (
        f"{gib(m['weights_bytes'] + m['kv_cache_bytes'] + m['activations_bytes'], 1)} of {gib(m['capacity_bytes'], 0)}"
    )


def largest_batch(column: rows.Document) -> str:
    """The most sequences that fit."""
    return str(column["memory"]["max_batch"]) if "memory" in column else "-"


@dataclass(frozen=True, slots=True)
class Binding:
    """A phase of one machine: its time, what binds it, how busy every resource is meanwhile."""

    machine: str
    phase: str
    time: str
    bound: str
    busy: str


def bindings(comparison: rows.Document) -> list[Binding]:
    """What binds each machine. Resources work at the same time: their shares may sum to more than all of the time."""
    return [
        Binding(c["hardware"]["name"], p["name"], si(p["time_s"], "s"), p["bound"], _busy(p))
        for c in able(comparison)
        for p in c["phases"]
    ]


def _busy(phase: rows.Document) -> str:
    """Resources by the share of the operators' time in which they work, busiest first; those below 1 % left out."""
    whole = sum(task["time_s"] for task in phase["tasks"]) + phase["overhead_s"]
    shares = {name: time_s / whole for name, time_s in phase["resources"].items() if whole}
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked if share >= 0.01)


@dataclass(frozen=True, slots=True)
class Priced:
    """The price of one machine and who says so; dashes where no price file lists it."""

    machine: str
    rate: str
    term: str
    date: str
    source: str


def prices(comparison: rows.Document) -> list[Priced]:
    """Prices of all devices of each machine an hour, and of one where there are several."""
    found = []
    for column in able(comparison):
        name, price = column["hardware"]["name"], column["provenance"]["price"]
        if price is None:
            found.append(Priced(name, "-", "-", "-", "no price file lists this device: no cost"))
            continue
        devices = column["hardware"]["devices"]
        rate = f"{price['usd_per_hour'] * devices:.2f} USD/h"
        rate += f" ({devices} x {price['usd_per_hour']:.2f})" if devices > 1 else ""
        found.append(Priced(name, rate, price["term"], price["date"], price["source"]))
    return found
