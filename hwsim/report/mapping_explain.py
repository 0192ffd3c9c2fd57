"""What binds a mapping and what more of each part would buy, in words: lines for the table, cells for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hwsim.report import mapping_rows as rows
from hwsim.report.table import grid
from hwsim.units import si

Document = rows.Document
HEADER: Final = ("part", "now", "binds", "one more", "buys", "smallest step that helps", "buys", "at most", "buys")
KEY: Final = (
    "each figure is the difference to the same GEMM mapped again on the changed machine (energy a word unchanged); "
    "at most: the part without limit, for units twice as many, and what of it would then be used"
)
UNKNOWN: Final = "not known in the budget"
ONE: Final = {"capacity": "+1 KiB", "port": "+1 GB/s", "units": "+1"}


def why(row: Document) -> str:
    """One sentence: what the cycles of a GEMM wait for."""
    by = rows.bound(row)
    if not by:
        return "nothing binds: no loops were decided"
    if by != "compute":
        others = [v / row["cycles"] for name, v in row["cycles_by"].items() if name != by]
        rest = f"; everything else works at most {rows.percent(max(others))} of the time" if others else ""
        return f"bound by the port of {by}: it works in every cycle{rest}"
    near = row["levels"][0]
    used = near["instances_used"]
    least = near["fanout"] * _units_above(row)
    if used < least:
        if row["report"]["status"] == "optimal":
            reason = "no better mapping spreads over more of them"
        else:
            reason = "this mapping, not proved best, does not spread over more"
        return f"bound by computing on {used} of {least} multipliers: {reason}"
    share = rows.percent(row["utilization"], 1)
    if row["utilization"] < 0.9995:
        return f"bound by computing: all {used} multipliers work, {share} of their cycles on whole tiles"
    return f"bound by computing: all {used} multipliers work in every cycle, only more of them shorten it"


def _units_above(row: Document) -> int:
    product = 1
    for level in row["levels"][1:]:
        product *= level["fanout"]
    return product


def what_if_table(document: Document, row: Document) -> list[Any]:
    """Renderables for one GEMM; nothing where it was not asked what more would buy."""
    if "what_if" not in row:
        return []
    if not row["what_if"]:
        return [f"  {why(row)}", f"  what more would buy: {UNKNOWN}"]
    return [f"  {why(row)}", grid(HEADER, cells(document, row), (0, 2, 3, 4, 5, 6, 7, 8))]


def cells(document: Document, row: Document) -> list[tuple[str, ...]]:
    """One line of text a part of the machine, in the columns of `HEADER`."""
    return [_line(document, part) for part in row["what_if"]]


def _line(document: Document, part: Document) -> tuple[str, ...]:
    kind, goal = part["kind"], document["objective"]
    name = part["part"] if kind == "units" else f"{part['part']} {kind}"
    binds = {True: "yes", False: "no", None: "?"}[part["binds"]]
    now = amount(kind, part["now"])
    if part["binds"] is False:
        enough = part["free"]["enough"]
        spare = f"{amount(kind, enough)} would do" if enough < part["now"] * (1 - 1e-9) else ""
        return (name, now, binds, ONE[kind], "nothing", "", "", spare, "nothing")
    least = part["smallest"]
    none = "" if kind == "port" else UNKNOWN
    step = f"+{amount(kind, least['step'])} to {amount(kind, part['now'] + least['step'])}" if least else none
    free = part["free"]
    top = f"{amount(kind, free['enough'])} used" if free else UNKNOWN
    return (name, now, binds, ONE[kind], gain(part["one_more"], goal), step, gain(least, goal) if least else "", top,
            gain(free, goal) if free else "")  # fmt: skip


def amount(kind: str, value: float) -> str:
    """A capacity, a rate or a number of units as text."""
    if kind == "capacity":
        return rows.size_text(value)
    return si(value, "B/s") if kind == "port" else f"{value:,.0f}"


def gain(change: Document | None, goal: str) -> str:
    """``energy -19.9 mJ, EDP -2.5%`` of a change; ``nothing`` where the objective stays."""
    if change is None:
        return UNKNOWN
    parts = []
    if change["energy_j"]:
        parts.append(f"energy {_signed(change['energy_j'], 'J')}")
    if change["cycles"]:
        parts.append(f"time {_signed(change['time_s'], 's')}")
    if goal == "edp" and change["edp_js"]:
        parts.append(f"EDP {_signed(change['edp_js'], 'J s')}")
    if not parts:
        return "nothing"
    share = change["objective_share"]
    proved = "" if change["proved"] else " (not proved)"
    return ", ".join(parts) + (f" ({100 * share:+.2g}%)" if share else "") + proved


def _signed(value: float, unit: str) -> str:
    return f"{'-' if value < 0 else '+'}{si(abs(value), unit)}"


def totals(document: Document) -> list[tuple[str, ...]]:
    """What one more of each part would buy for all executions together: (part, one more, buys)."""
    operators: Sequence[Document] = [row for row in document["operators"] if row.get("what_if")]
    found: list[tuple[str, ...]] = []
    for index, part in enumerate(operators[0]["what_if"] if operators else ()):
        changes = [(row["count"], row["what_if"][index]["one_more"]) for row in operators]
        name = part["part"] if part["kind"] == "units" else f"{part['part']} {part['kind']}"
        found.append((name, ONE[part["kind"]], _sum_text(changes)))
    return found


def _sum_text(changes: Sequence[tuple[int, Document | None]]) -> str:
    known = [(n, c) for n, c in changes if c is not None]
    if len(known) < len(changes):
        return UNKNOWN
    energies = [c["energy_j"] for _, c in known]
    parts = []
    if None not in energies and (energy := sum(n * c["energy_j"] for n, c in known)):
        parts.append(f"energy {_signed(energy, 'J')}")
    if time_s := sum(n * c["time_s"] for n, c in known):
        parts.append(f"time {_signed(time_s, 's')}")
    return ", ".join(parts) or "nothing"
