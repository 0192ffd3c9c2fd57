"""A mapping document as a table that a person can read."""

from __future__ import annotations

from typing import Any

from hwsim.report import mapping_explain
from hwsim.report import mapping_rows as rows
from hwsim.report.mapping_fused import fused_table
from hwsim.report.table import grid, render
from hwsim.units import si

Document = rows.Document
_KEY = (
    "loops run from the outermost; A, B, Z: words a level passes to its nearer side, and how many times the words "
    "that must move; busy: share of the cycles in which the port works"
)


def mapping_table(document: Document) -> str:
    """Text of a ``hwsim/mapping@1`` document: machine, one block for each distinct GEMM, then all of them."""
    parts: list[Any] = [_head(document), f"machine: {rows.machine_line(document['machine'])}", ""]
    for row in document["operators"]:
        parts += _operator(row, document)
    if any(row["levels"] for row in document["operators"]):
        parts += [_KEY, ""]
    if any(row.get("what_if") for row in document["operators"]):
        parts += [mapping_explain.KEY, ""]
    if len(document["operators"]) > 1:
        parts += [_summary(document), ""]
        if together := mapping_explain.totals(document):
            parts += [grid(("part", "one more", "buys for all executions"), together, (0, 1, 2)), ""]
    parts += fused_table(document)
    return render(*parts, _total(document)).rstrip("\n") + "\n"


def _head(d: Document) -> str:
    return f"{d['workload']} on {d['hardware']}: {rows.how(d)}"


def _operator(row: Document, document: Document) -> list[Any]:
    also = row["used_by"][1:]
    used = f" (also {', '.join(also[:3])}{' ...' if len(also) > 3 else ''})" if also else ""
    times = f", {row['count']} times" if row["count"] > 1 else ""
    lines: list[Any] = [f"{row['name']}: {rows.formula(row)}, {si(rows.macs(row), 'MAC')}{times}{used}"]
    lines += [_nest(row)] if row["levels"] else ["no loops decided: ideal figures, compulsory traffic"]
    return [
        *lines,
        f"  {_verdict(row)}",
        f"  {rows.proof(row, document)}",
        *mapping_explain.what_if_table(document, row),
        "",
    ]


def _nest(row: Document) -> Any:
    header = ("level", "loops", "tile MxNxK", "holds", "full", "A", "B", "Z", "all", "busy", "energy")
    columns = len(header) if row["energy_split"] else len(header) - 1  # no energies, no empty column
    body: list[tuple[str, ...]] = []
    for level in rows.far_to_near(row):
        if level["fanout"] > 1:
            part = rows.percent(level["fanout_used"] / level["fanout"])
            blank = ("",) * 6
            spread = f"spread {rows.spread(row, level)}"
            body.append((f"{level['fanout_used']} of {level['fanout']}", spread, "", "", part, *blank))
        body.append(_level(row, level))
    if row["energy_split"]:
        body.append(("MAC", *("",) * 9, rows.percent(rows.energy_share(row, "MAC"), 1)))
    return grid(header[:columns], [line[:columns] for line in body], (0, 1, 2, 3))


def _level(row: Document, level: Document) -> tuple[str, ...]:
    tensors = (rows.traffic(row, level, t).text for t in rows.TENSORS)
    everything = rows.Traffic(level["served_words"], level["served_words"] / row["compulsory_words"])
    return (
        level["name"],
        rows.loops(level),
        "x".join(str(v) for v in level["tile_mnk"]),
        " ".join(f"{t}:{rows.count(w)}" for t, w in level["held_words"].items()) or "-",
        rows.percent(rows.full(level)),
        *tensors,
        everything.text,
        rows.percent(rows.busy(row, level)),
        rows.percent(rows.energy_share(row, level["name"]), 1),
    )


def _verdict(row: Document) -> str:
    energy = "" if row["energy_j"] is None else f", {si(row['energy_j'], 'J')}"
    by = rows.bound(row)
    ports = "  ".join(f"{name} {rows.percent(v / row['cycles'])}" for name, v in row["cycles_by"].items())
    why = f", bound by {by}" if by else ""
    busy = f"; of these cycles work: {ports}" if len(row["cycles_by"]) > 1 else ""
    share = rows.percent(row["utilization"], 1)
    return f"{row['cycles']} cycles = {si(row['time_s'], 's')}{why}, {share} of the multipliers{energy}{busy}"


def _summary(document: Document) -> Any:
    header = ("GEMM", "size", "times", "time", "share", "bound by", "multipliers", "far words", "gap", "energy")
    total = document["total"]["time_s"]
    columns = len(header) if document["total"]["energy_j"] is not None else len(header) - 1
    return grid(header[:columns], [_summary_row(row, total)[:columns] for row in document["operators"]], (0, 1, 5))


def _summary_row(row: Document, total_s: float) -> tuple[str, ...]:
    g = row["gemm"]
    batch = f"{g['batch']} x " if g["batch"] > 1 else ""
    time_s = row["time_s"] * row["count"]
    return (
        row["name"],
        f"{batch}{g['m']}x{g['n']}x{g['k']}",
        str(row["count"]),
        si(time_s, "s"),
        rows.percent(time_s / total_s, 1),
        rows.bound(row),
        rows.percent(row["utilization"], 1),
        f"x{rows.ratio(rows.far_ratio(row))}",
        f"{100 * row['report']['gap']:.3g}%",
        "" if row["energy_j"] is None else si(row["energy_j"] * row["count"], "J"),
    )


def _total(d: Document) -> str:
    t = d["total"]
    energy = "" if t["energy_j"] is None else f", {si(t['energy_j'], 'J')}"
    cycles = f"{t['cycles']} cycles = {si(t['time_s'], 's')}{energy}"
    times = "1 GEMM" if t["executions"] == 1 else f"{t['executions']} GEMMs one after another"
    return f"total: {times}, {cycles}; mapped in {d['seconds']:.2f} s"
