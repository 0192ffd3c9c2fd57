"""Text, CSV, Markdown and HTML of an accuracy document (plain data; nothing is recomputed here)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("family", "gpu", "class", "n", "mape", "median", "p90", "bias", "rank", "in_band", "large_n", "large_mape",
           "roofline_mape", "flat_mape")  # fmt: skip
HEADS = ("family", "GPU", "class", "n", "MAPE %", "median %", "p90 %", "bias %", "rank", "in band %", "n >= 50 us",
         "MAPE % >= 50 us", "roofline %", "flat 0.8 %")  # fmt: skip


def cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table as text; an empty cell where there is no figure."""
    large = row.get("large") or {}
    values = {**row, "large_n": large.get("n"), "large_mape": large.get("mape")}
    return [_cell(name, values.get(name)) for name in COLUMNS]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if name == "rank" else f"{value:.1f}"
    return str(value)


def to_table(document: Mapping[str, Any]) -> str:
    """Aligned text."""
    rows = [list(HEADS), *(cells(r) for r in document["rows"])]
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEADS))]
    lines = [
        "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    ]
    return "\n".join([f"{document['mode']} on {document['data']}", *lines])


def to_markdown(document: Mapping[str, Any]) -> str:
    """A Markdown table."""
    head = "| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS)
    return "\n".join([head, *("| " + " | ".join(cells(r)) + " |" for r in document["rows"])])


def to_csv(document: Mapping[str, Any]) -> str:
    """CSV with one line a group."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells(r) for r in document["rows"])
    return buffer.getvalue()


def to_html(document: Mapping[str, Any]) -> str:
    """A self-contained page: predicted against measured on logarithmic axes, a plot a family, and the table."""
    from hwsim.report.html import render_page

    return render_page(
        "accuracy.html.j2",
        title=f"Kernel times, {document['mode']}: {document['data']}",
        figures=figures(document["points"]),
        heads=HEADS,
        rows=[cells(row) for row in document["rows"]],
    )


def figures(points: Sequence[Sequence[Any]]) -> list[str]:
    """One plot a family; the plotly library is embedded once."""
    from plotly.graph_objects import Figure, Scatter

    from hwsim.report.html import figure_blocks

    drawn = []
    for family in sorted({p[0] for p in points}):
        mine = [p for p in points if p[0] == family]
        figure = Figure()
        for label in sorted({p[1] for p in mine}):
            part = [p for p in mine if p[1] == label]
            name = html.escape(label)
            figure.add_trace(
                Scatter(x=[p[2] for p in part], y=[p[3] for p in part], mode="markers", name=name, marker={"size": 4})
            )
        ends = [min(min(p[2:]) for p in mine), max(max(p[2:]) for p in mine)]
        figure.add_trace(Scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": "black", "width": 1}))
        figure.update_xaxes(type="log", title="measured, us")
        figure.update_yaxes(type="log", title="predicted, us")
        figure.update_layout(title=family, height=560, template="plotly_white")
        drawn.append((family, figure))
    return figure_blocks(drawn)
