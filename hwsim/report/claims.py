"""Table and page of a `hwsim/reproduction@1` document."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_HEADS = ("claim", "metric", "published", "predicted", "error", "tolerance", "verdict", "provenance or reason")


def table(document: Mapping[str, Any]) -> str:
    """Aligned text: the claims of each system, then totals."""
    lines: list[str] = []
    for system in document["systems"]:
        rows = [_cells(r) for r in document["rows"] if r["system"] == system["system"]]
        lines += ["", f"{system['system']}: {_summary(system)}"]
        widths = [max(len(row[i]) for row in (_HEADS, *rows)) for i in range(len(_HEADS))]
        lines += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in (_HEADS, *rows)
        ]
    return "\n".join([*lines, "", f"all: {_summary(document['total'])}"]).lstrip("\n")


def page(document: Mapping[str, Any]) -> str:
    """A self-contained HTML page."""
    body = []
    for system in document["systems"]:
        body.append(f"<h2>{html.escape(system['system'])}</h2><p>{html.escape(_summary(system))}</p><table><tr>")
        body += [f"<th>{head}</th>" for head in _HEADS]
        body.append("</tr>")
        for row in (r for r in document["rows"] if r["system"] == system["system"]):
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
            kind = row["verdict"].replace(" ", "-")
            body.append(f'<tr class="{kind}" title="{html.escape(row["claim"])}">{cells}</tr>')
        body.append("</table>")
    style = (
        "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left;"
        "border-bottom:1px solid #ddd}.fail,.unmapped,.error{background:#fdd}.pass{background:#efe}"
        ".needs-data{color:#888}"
    )
    head = f"<!doctype html><meta charset=utf-8><title>hwsim: published claims</title><style>{style}</style>"
    return f"{head}<h1>Published claims</h1><p>{html.escape(_summary(document['total']))}</p>{''.join(body)}\n"


def _summary(totals: Mapping[str, Any]) -> str:
    parts = [f"{totals['pass'] + totals['in band']} of {totals['scored']} pass"]
    if totals["pass_rate"] is not None:
        parts[0] += f" ({totals['pass_rate']:.0%})"
    if totals["median_error"] is not None:
        parts.append(f"median error {totals['median_error']:.1%}")
    if totals["orderings"]:
        parts.append(f"{totals['orderings_right']} of {totals['orderings']} orderings right")
    parts += [f"{totals[k]} {k}" for k in ("in band", "unmapped", "error", "needs data", "not evidence") if totals[k]]
    return ", ".join(parts)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    band = f"[{row['low']:.4g}, {row['high']:.4g}]" if row["low"] is not None else "-"
    shown = band if row["predicted"] is None else _number(row["predicted"])
    error = "-" if row["relative_error"] is None else f"{row['relative_error']:+.1%}"
    return (
        row["id"],
        row["metric"],
        f"{_published(row['published'])} {row['unit']}",
        shown,
        error,
        f"{row['tolerance']:.0%}",
        row["verdict"],
        (row["reason"] or row["provenance"])[:100],
    )


def _published(value: Any) -> str:
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, list) else f"{value:g}"


def _number(value: float) -> str:
    """Four digits, without an exponent up to a million."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
