"""Fused attentions of a mapping document as lines of text."""

from __future__ import annotations

from typing import Any

from hwsim.report.table import grid
from hwsim.units import si

Document = Any
_HEADER = (
    "fused attention", "x", "rows x keys", "in", "tile", "stays", "scores", "cycles", "busy", "main memory", "apart",
    "energy", "proof",
)  # fmt: skip


def fused_table(document: Document) -> list[Any]:
    """A table of the fused attentions with their gain over separate passes; nothing where there are none."""
    rows = document.get("fused")
    return [grid(_HEADER, [_row(row) for row in rows], left=(0, 3, 5, 6, 12)), _KEY, ""] if rows else []


_KEY = (
    "fused: QK^T, softmax and AV in one pass over tiles; main memory: words moved, and how many times Q, K, V and "
    "output once; apart: cycles and words of the two products and the softmax one after the other, over the fused ones"
)


def _row(row: Document) -> tuple[str, ...]:
    p, t, apart = row["problem"], row["tiling"], row["apart"]
    words = row["words"][row["main"]]
    gain = "-" if apart is None else f"x{apart['cycles'] / row['cycles']:.2f}, x{apart['main_words'] / words:.2f}"
    return (
        row["name"],
        str(row["count"]),
        f"{p['batch']} x {p['rows']} x {p['keys']}{' causal' if p['causal'] else ''}",
        t["level"],
        f"{t['queries']} x {t['keys']}",
        "Q, O" if t["outer"] == "queries" else "K, V",
        t["scores"],
        f"{row['cycles']:,.0f}",
        f"{100 * row['utilization']:.0f} %",
        f"{si(words, 'words')} x{words / row['compulsory_words']:.2f}",
        gain,
        "-" if row["energy_j"] is None else si(row["energy_j"], "J"),
        f"{row['status']}, {row['solver']}",
    )
