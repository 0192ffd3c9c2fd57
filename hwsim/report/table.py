"""Terminal tables (rich), byte-stable off a terminal: fixed width, no colour."""

from __future__ import annotations

import io
import sys
from typing import Any

from hwsim.report import comparison as compared
from hwsim.report import rows
from hwsim.report.grid import grid, terminal_width
from hwsim.units import si


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
    warned = [f"warning: {text}" for text in (rows.misfit(document),) if text]
    return render(*warned, head, "", grid(header, body, left=(0, 1, 3)))


def comparison_table(comparison: rows.Document) -> str:
    """Machines as columns, metrics as rows, the best value of each row marked."""
    columns = comparison["columns"]
    header = ("metric", *(c["hardware"]["name"] for c in columns), "best")
    body: list[tuple[str, ...]] = []
    for row in compared.metric_rows(comparison):
        body.append((row.label, *(_cell(c) for c in row.cells), row.winner))
        if row.name in _BANDED and any(c.band for c in row.cells):
            body.append(("  band (80 %)", *(c.band for c in row.cells), ""))
    body.append(("bound by", *map(compared.phase_bounds, columns), ""))
    body.append(("memory used", *map(compared.memory_share, columns), ""))
    body.append(("largest batch", *map(compared.largest_batch, columns), ""))
    notes = [f"note: {n}" for n in compared.differences(compared.able(comparison))]
    reasons = [f"{name}: {why}" for name, why in compared.refusals(comparison)]
    said = [f"warning: {text}" for text in compared.warnings(comparison)]
    return render(compared.headline(comparison), *notes, "", grid(header, body), *reasons, *said)


_BANDED = ("tpot_s", "latency_s", "cost_usd_per_mtok")


def _cell(cell: compared.Cell) -> str:
    return (cell.value or "-") + (f" ({cell.times_best})" if cell.times_best else "")
