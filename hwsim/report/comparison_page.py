"""A `hwsim/comparison@1` document as one self-contained HTML page: table, bars with bands, bounds, refusals, prices."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hwsim.report import comparison as compared
from hwsim.report import rows

if TYPE_CHECKING:
    import plotly.graph_objects as go

DRAWN: Final = (
    "ttft_s", "tpot_s", "latency_s", "decode_throughput_tokens_per_s", "energy_j_per_token", "cost_usd_per_mtok",
)  # fmt: skip
_WIDE: Final = 12.0  # largest over smallest value from which bars need a logarithmic axis to be seen at all
_ROOM: Final = 0.45  # of the longest bar: for the label beyond its band
_ACROSS: Final = 2  # charts side by side


def comparison_page(comparison: rows.Document) -> str:
    """One page of a ``hwsim/comparison@1`` document (about 5 MB: plotly is inside)."""
    from hwsim.report.html import figure_blocks, render_page

    columns = comparison["columns"]
    good = compared.able(comparison)
    drawn = [("comparison", bars_figure(comparison))] if good else []
    facts = (
        ("bound by", [compared.phase_bounds(c) for c in columns]),
        ("memory used, one device", [compared.memory_share(c) for c in columns]),
        ("largest batch", [compared.largest_batch(c) for c in columns]),
    )
    return render_page(
        "comparison.html.j2",
        title=_title(comparison),
        scenario=compared.headline(comparison),
        machines=[_machine(c) for c in columns],
        table=compared.metric_rows(comparison),
        facts=facts,
        refusals=compared.refusals(comparison),
        differences=compared.differences(good),
        warnings=compared.warnings(comparison),
        figures=figure_blocks(drawn),
        bindings=compared.bindings(comparison),
        prices=compared.prices(comparison),
        provenance=_provenance(good),
    )


def _title(comparison: rows.Document) -> str:
    names = [c["hardware"]["name"] for c in comparison["columns"]]
    good = compared.able(comparison)
    workload = good[0]["workload"]["name"] if good else "comparison"
    return f"{workload} on {', '.join(names[:-1])} and {names[-1]}"


def _machine(column: rows.Document) -> dict[str, str]:
    """Name, what it is, and how its time is known."""
    hardware = column["hardware"]
    if "metrics" not in column:
        return {"name": hardware["name"], "title": "cannot run it", "basis": ""}
    devices = f"{hardware['devices']} x " if hardware["devices"] > 1 else ""
    return {"name": hardware["name"], "title": devices + hardware["title"], "basis": _basis(column)}


def _basis(column: rows.Document) -> str:
    if column["scenario"]["efficiency"] == "datasheet":
        return "bare roofline"
    calibration = column["provenance"]["calibration"]
    if calibration is None:
        return f"{column['hardware']['kind']} model, {column['hardware']['status']}"
    return f"kernels {calibration['kind']}" + (
        f" ({calibration['name']})" if calibration["kind"] != "measured" else f", {calibration['rows']:,} runs"
    )


def _provenance(columns: Sequence[rows.Document]) -> dict[str, Any]:
    """Versions, and every input file with its digest, once."""
    if not columns:
        return {}
    inputs = {name: digest for c in columns for name, digest in c["provenance"]["inputs"].items()}
    return {**columns[0]["provenance"], "inputs": inputs}


def bars_figure(comparison: rows.Document) -> go.Figure:
    """A chart a metric: a bar a machine, its 80 % band as whiskers, the best in blue; log axes are said so."""
    from plotly.subplots import make_subplots

    from hwsim.report.figures import PALETTE, _layout

    columns = compared.able(comparison)
    found = {row.name: row for row in compared.metric_rows(comparison)}
    names = [name for name in DRAWN if name in found]
    lines = math.ceil(len(names) / _ACROSS)
    height = 78 + 26 * len(columns)
    figure = make_subplots(
        rows=lines, cols=_ACROSS, horizontal_spacing=0.18, vertical_spacing=min(60 / (lines * height), 1 / lines),
        subplot_titles=[_chart_title(name, columns) for name in names],
    )  # fmt: skip
    for index, name in enumerate(names):
        place = {"row": index // _ACROSS + 1, "col": index % _ACROSS + 1}
        _add_bars(figure, name, columns, (PALETTE[0], "#a9b8c4"), place)
    figure.update_layout(
        _layout(
            "Bars: value; whiskers: 80 % band; blue: best", height=lines * height + 90, showlegend=False, bargap=0.35,
            margin={"l": 130, "r": 20, "t": 80, "b": 30},
        )
    )  # fmt: skip
    return figure


def _chart_title(name: str, columns: Sequence[rows.Document]) -> str:
    label, unit, _ = rows.METRICS[name]
    return f"{label} ({unit}{', log scale' if _is_wide(_values(name, columns)) else ''})"


def _values(name: str, columns: Sequence[rows.Document]) -> list[float]:
    return [float(c["metrics"][name]["value"]) for c in columns if name in c["metrics"]]


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > _WIDE * min(values)


def _add_bars(
    figure: go.Figure, name: str, columns: Sequence[rows.Document], colors: tuple[str, str], place: dict[str, int]
) -> None:
    shown = [c for c in columns if name in c["metrics"]]
    metrics = [c["metrics"][name] for c in shown]
    values = _values(name, columns)
    highs = [max(float(m.get("high", v)), v) for m, v in zip(metrics, values, strict=True)]
    lows = [min(float(m.get("low", v)), v) for m, v in zip(metrics, values, strict=True)]
    best = [cell.best for cell in compared.metric_row(name, shown).cells]
    labels = _labels(shown)
    unit = rows.METRICS[name][1]
    texts = [rows.quantity(v, unit) for v in values]
    figure.add_bar(
        y=labels, x=values, orientation="h", marker_color=[colors[0] if b else colors[1] for b in best],
        error_x={
            "type": "data", "visible": lows != highs, "symmetric": False, "thickness": 1.4, "width": 4, "color": "#333",
            "array": [h - v for h, v in zip(highs, values, strict=True)],
            "arrayminus": [v - low for low, v in zip(lows, values, strict=True)],
        },
        text=[f"{t} [{rows.span(low, h, unit) or 'no band'}]" for t, low, h in zip(texts, lows, highs, strict=True)],
        textposition="none", hovertemplate="%{y}: %{text}<extra></extra>", **place,
    )  # fmt: skip
    figure.add_scatter(
        y=labels, x=highs, mode="text", text=[f"  {t}" for t in texts], textposition="middle right",
        cliponaxis=False, hoverinfo="skip", **place,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", **place)
    figure.update_xaxes(**_axis(values, lows, highs), **place)


def _axis(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> dict[str, Any]:
    """From zero, or logarithmic from below the least, with room for the labels."""
    top = max(highs) or 1.0
    if not _is_wide(values):
        return {"range": [0.0, top * (1 + _ROOM)], "exponentformat": "SI"}
    low, high = math.log10(min(lows) / 2), math.log10(top)
    return {"type": "log", "range": [low, high + _ROOM * (high - low)], "dtick": 1, "exponentformat": "SI"}


def _labels(columns: Sequence[rows.Document]) -> list[str]:
    """Names as labels, made distinct where a machine is named twice."""
    labels: list[str] = []
    for column in columns:
        name = html.escape(column["hardware"]["name"])
        labels.append(f"{name} ({len(labels) + 1})" if name in labels else name)
    return labels
