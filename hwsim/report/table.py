"""Terminal tables (rich), byte-stable off a terminal: fixed width, no colour."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

from hwsim.report import rows
from hwsim.report.grid import grid, terminal_width
from hwsim.units import gib, si


def render(*parts: Any) -> str:
    """Text of rich renderables; colours only on a terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=terminal_width(),
        force_terminal=terminal,
        no_color=not terminal,
        highlight=False,
        emoji=False,
    )
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))


def estimate_table(document: rows.Document) -> str:
    """The whole estimate for a terminal."""
    parts: list[Any] = [rows.headline(document), "  " + rows.scenario_line(document), ""]
    parts.append(
        grid(
            ("metric", "value", "band (80 %)", "floor - ceiling"),
            [(r.label, r.value, r.band, r.limits) for r in rows.metric_rows(document)],
        )
    )
    parts += ["", "memory of one device", "  " + rows.memory_line(document), ""]
    parts.append(task_table(document))
    parts += [f"warning: {text}" for text in document["warnings"]]
    return render(*parts)


def task_table(document: rows.Document) -> Any:
    """Where the time goes, operator by operator."""
    body = [
        (r.phase, r.name, str(r.count), si(r.time_s, "s"), f"{100 * r.share:.1f} %", si(r.floor_s, "s"), r.bound,
         si(r.flop, "FLOP"), si(r.bytes, "B"), f"{r.intensity:.1f}")
        for r in rows.task_rows(document)
    ]  # fmt: skip
    header = ("phase", "operator", "x", "time", "share", "floor", "bound by", "operations", "memory", "FLOP/B")
    return grid(header, body, left=(0, 1, 6))


def roofline_table(document: rows.Document) -> str:
    """Ridge point and each operator's side of it."""
    ridge, peak, bandwidth = rows.ridge_point(document)
    hardware = document["hardware"]
    head = (
        f"{document['workload']['name']} on {hardware['name']}: ridge point {ridge:.1f} FLOP/B = "
        f"{si(peak, 'FLOP/s')} / {si(bandwidth, 'B/s')} ({hardware['main_memory']})"
    )
    body = [
        (p.phase, p.name, f"{p.intensity:.2f}", p.side, si(p.attained_flop_per_s, "FLOP/s"),
         si(p.attainable_flop_per_s, "FLOP/s"), f"{100 * p.attained_flop_per_s / p.attainable_flop_per_s:.0f} %",
         si(p.time_s, "s"))
        for p in rows.roofline_points(document)
    ]  # fmt: skip
    header = ("phase", "operator", "FLOP/B", "bound by", "attained", "attainable", "of roof", "time")
    return render(head, "", grid(header, body, left=(0, 1, 3)))


def comparison_table(comparison: rows.Document) -> str:
    """Machines as columns, metrics as rows, the best value of each row marked."""
    columns = comparison["columns"]
    names = [c["hardware"]["name"] for c in columns]
    good = [c for c in columns if "metrics" in c]
    header = ("metric", *names, "best")
    body: list[tuple[str, ...]] = []
    for name in (name for name in rows.METRICS if any(name in c["metrics"] for c in good)):
        body.append(_compare_row(name, columns))
        if name in _BANDED and any(_band(c, name) for c in columns):
            body.append(("  band (80 %)", *(_band(c, name) for c in columns), ""))
    body.append(("bound by", *(_phase_bounds(c) for c in columns), ""))
    body.append(("memory used", *(_memory_share(c) for c in columns), ""))
    body.append(("largest batch", *(str(c["memory"]["max_batch"]) if "memory" in c else "-" for c in columns), ""))
    reasons = [f"{c['hardware']['name']}: {c['infeasible']}" for c in columns if "infeasible" in c]
    first = f"{good[0]['workload']['name']}: {_common_line(good)}" if good else "no machine can run this"
    notes = [f"warning: {c['hardware']['name']}: {w}" for c in good for w in c["warnings"]]
    return render(first, *(f"note: {n}" for n in differences(good)), "", grid(header, body), *reasons, *notes)


_BANDED = ("tpot_s", "latency_s", "cost_usd_per_mtok")
_FORMATS = ("weights", "activations", "kv_cache")


def _band(column: rows.Document, name: str) -> str:
    metric = column.get("metrics", {}).get(name, {})
    return rows.span(metric.get("low"), metric.get("high"), rows.METRICS[name][1])


def _common_line(columns: Sequence[rows.Document]) -> str:
    """The scenario; a format that the machines do not share is left to the notes."""
    own = [key for key in _FORMATS if len({c["scenario"][key] for c in columns}) > 1]
    scenario = columns[0]["scenario"] | dict.fromkeys(own, "of each machine")
    return rows.scenario_line({**columns[0], "scenario": scenario})


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


_LESS_IS_BETTER = ("_s", "_j_per_token", "_usd_per_mtok", "_w")


def _compare_row(name: str, columns: Sequence[rows.Document]) -> tuple[str, ...]:
    label, unit, _ = rows.METRICS[name]
    values = [c["metrics"][name]["value"] if "metrics" in c and name in c["metrics"] else None for c in columns]
    known = [v for v in values if v is not None]
    less = name.endswith(_LESS_IS_BETTER) and not name.endswith("_per_s")
    best = (min if less else max)(known)
    winner = columns[values.index(best)]["hardware"]["name"]
    cells = []
    for value in values:
        ratio = "" if value is None or value == best or not best else f" ({value / best:.2f}x)"
        cells.append("-" if value is None else rows.quantity(value, unit) + ratio)
    return (label, *cells, winner)


def _phase_bounds(column: rows.Document) -> str:
    return ", ".join(f"{p['name']} {p['bound']}" for p in column["phases"]) if "phases" in column else "infeasible"


def _memory_share(column: rows.Document) -> str:
    if "memory" not in column:
        return "-"
    m = column["memory"]
    return (
        f"{gib(m['weights_bytes'] + m['kv_cache_bytes'] + m['activations_bytes'], 1)} of {gib(m['capacity_bytes'], 0)}"
    )
