"""A mapping document as one HTML page: nested loops, memories with what they hold, traffic, energy. No script."""

from __future__ import annotations

import math
from typing import Any, Final

from hwsim.report import mapping_explain
from hwsim.report import mapping_rows as rows
from hwsim.units import si

Document = rows.Document
OPEN_AT_MOST: Final = 3  # more GEMMs than this start folded, but for the longest
LEAST_MOVE: Final = 1.0  # per cent: words that move once
LEAST_WIDTH: Final = 0.4  # per cent: a part that exists stays visible


def mapping_page(document: Document) -> str:
    """One self-contained page of a ``hwsim/mapping@1`` document (about 10 kB a GEMM)."""
    from hwsim.report.html import render_page

    return render_page(
        "mapping.html.j2",
        title=f"{document['workload']} on {document['hardware']}",
        how=rows.how(document),
        machine=rows.machine_line(document["machine"]),
        document=document,
        operators=[_operator(document, row) for row in document["operators"]],
        total=_total(document),
        header=mapping_explain.HEADER,
        key=mapping_explain.KEY,
        together=mapping_explain.totals(document) if len(document["operators"]) > 1 else [],
    )


def _total(d: Document) -> dict[str, str]:
    t = d["total"]
    return {
        "GEMMs": str(t["executions"]),
        "time": si(t["time_s"], "s"),
        "cycles": f"{t['cycles']:,}",
        "energy": "" if t["energy_j"] is None else si(t["energy_j"], "J"),
    }


def _operator(document: Document, row: Document) -> dict[str, Any]:
    """Everything that the template draws of one GEMM, lengths as per cent of their box."""
    total_s = document["total"]["time_s"]
    longest = max(document["operators"], key=lambda r: r["time_s"] * r["count"])
    g = row["gemm"]
    batch = f"{g['batch']} x " if g["batch"] > 1 else ""
    return {
        "name": row["name"],
        "also": row["used_by"][1:],
        "count": row["count"],
        "formula": rows.formula(row),
        "size": f"{batch}{g['m']} x {g['n']} x {g['k']}",
        "macs": si(rows.macs(row), "MAC"),
        "time": si(row["time_s"] * row["count"], "s"),
        "share": rows.percent(row["time_s"] * row["count"] / total_s, 1),
        "once": f"{row['cycles']:,} cycles = {si(row['time_s'], 's')}",
        "bound": rows.bound(row) or "ideal",
        "utilization": rows.percent(row["utilization"], 1),
        "far": f"x{rows.ratio(rows.far_ratio(row))}",
        "energy": "" if row["energy_j"] is None else si(row["energy_j"], "J"),
        "total_energy": "" if row["energy_j"] is None else si(row["energy_j"] * row["count"], "J"),
        "gap": f"{100 * row['report']['gap']:.3g} %",
        "proof": rows.proof(row, document),
        "open": len(document["operators"]) <= OPEN_AT_MOST or row is longest,
        "nest": _nest(row),
        "levels": _levels(row),
        "energy_parts": _energy(row),
        "cycle_parts": _cycles(row),
        "why": mapping_explain.why(row),
        "what_if": mapping_explain.cells(document, row) if row.get("what_if") else [],
    }


def _nest(row: Document) -> list[dict[str, Any]]:
    """Boxes from the outermost: loops of a level, then what is spread over the instances of the nearer one."""
    boxes: list[dict[str, Any]] = []
    levels = rows.far_to_near(row)
    for index, level in enumerate(levels):
        if level["fanout"] > 1:
            boxes.append(
                {
                    "kind": "spread",
                    "title": f"{level['fanout_used']:,} of {level['fanout']:,} {level['name']} side by side",
                    "loops": [_loop(d, f) for d, f in level["spread"].items()],
                    "tile": "",
                }
            )
        tile = " x ".join(str(v) for v in level["tile_mnk"])
        pairs = [_loop(d, f) for d, f in level["loops_outer_to_inner"]]
        boxes.append({"kind": f"level l{index % 4}", "title": level["name"], "loops": pairs, "tile": tile})
    return boxes


def _loop(dimension: str, factor: int) -> dict[str, str]:
    return {"d": dimension, "f": f"{factor:,}"}


def _levels(row: Document) -> list[dict[str, Any]]:
    """Memories far to near: bars of what they hold, and their traffic towards the nearer side on a log scale."""
    found = rows.far_to_near(row)
    most = max((rows.traffic(row, v, t).ratio for v in found for t in rows.TENSORS), default=1.0)
    scale = math.log10(max(most, 10.0))
    out = []
    for level in found:
        room = level["words"] or level["used_words"]
        out.append(
            {
                "name": level["name"],
                "size": "holds everything" if level["words"] is None else f"{rows.count(level['words'])} words",
                "many": f"{level['instances_used']:,} in use" if level["instances_used"] > 1 else "",
                "full": rows.percent(rows.full(level)),
                "held": [
                    {"tensor": t, "width": 100 * w / room if room else 0.0, "text": rows.count(w)}
                    for t, w in level["held_words"].items()
                ],
                "moves": [_move(row, level, t, scale) for t in rows.TENSORS],
            }
        )
    return out


def _move(row: Document, level: Document, tensor: str, scale: float) -> dict[str, Any]:
    moved = rows.traffic(row, level, tensor)
    words = level["traffic"][tensor]
    width = max(100 * math.log10(moved.ratio) / scale, LEAST_MOVE) if moved.words else 0.0
    detail = ", ".join(f"{rows.count(n)} {kind}" for kind, n in words.items() if n)
    return {
        "tensor": tensor,
        "words": rows.count(moved.words) if moved.words else "passes by",
        "ratio": f"x{rows.ratio(moved.ratio)}" if moved.words else "",
        "width": min(width, 100.0),
        "arrow": "\u2195" if tensor == "Z" and words["reads"] else "\u2191" if tensor == "Z" else "\u2193",
        "detail": detail or "none",
    }


def _energy(row: Document) -> list[dict[str, Any]]:
    total = sum(row["energy_split"].values())
    parts = [(name, value) for name, value in reversed(list(row["energy_split"].items())) if total]
    ordered = [p for p in parts if p[0] != "MAC"] + [p for p in parts if p[0] == "MAC"]
    return [
        {
            "name": name,
            "text": f"{si(value, 'J')}, {rows.percent(value / total, 1)}",
            "width": max(100 * value / total, LEAST_WIDTH if value else 0.0),
            "kind": "mac" if name == "MAC" else f"l{index % 4}",
        }
        for index, (name, value) in enumerate(ordered)
    ]


def _cycles(row: Document) -> list[dict[str, Any]]:
    """Cycles in which computing and each port work, of the cycles that the GEMM takes."""
    return [
        {
            "name": name,
            "text": f"{rows.percent(value / row['cycles'])}",
            "width": max(min(100 * value / row["cycles"], 100.0), LEAST_WIDTH),
            "binds": name == rows.bound(row),
        }
        for name, value in row["cycles_by"].items()
    ]
