"""Plotly figures of an estimate: roofline, time by operator, memory. Labels are escaped before plotting."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwsim.report import rows
from hwsim.units import si

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Colour-blind safe (Okabe & Ito)
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#555555")
ROOFS: Final = (PALETTE[5], "#222222", PALETTE[2], PALETTE[4])
BOUND_COLORS: Final = {"compute": PALETTE[1], "launch": PALETTE[7], "link": PALETTE[3]}
OTHER_COLORS: Final = tuple(color for color in PALETTE if color not in BOUND_COLORS.values())


def _layout(title: str, **more: Any) -> dict[str, Any]:
    base = {
        "title": {"text": html.escape(title), "x": 0.01, "font": {"size": 15}},
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": 46, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": -0.18},
    }
    return base | more


def roofline_figure(document: rows.Document) -> go.Figure:
    """Attained rate over intensity, with the roofs of each memory level and of each dtype that was used."""
    import plotly.graph_objects as go

    points = rows.roofline_points(document)
    ridge, _, _ = rows.ridge_point(document)
    span = [p.intensity for p in points] + [ridge]
    x = np.geomspace(min(span) / 4, max(span) * 30, 60)
    figure = go.Figure()
    hardware = document["hardware"]
    _add_roofs(figure, document, x)
    for index, phase in enumerate(dict.fromkeys(p.phase for p in points)):
        chosen = [p for p in points if p.phase == phase]
        figure.add_scatter(
            x=[p.intensity for p in chosen],
            y=[p.attained_flop_per_s for p in chosen],
            mode="markers",
            name=html.escape(phase),
            marker={
                "size": _sizes(chosen),
                "color": PALETTE[index],
                "opacity": 0.8,
                "line": {"width": 1, "color": "white"},
            },
            text=[_hover(p) for p in chosen],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_layout(
        _layout(
            f"Roofline: {document['workload']['name']} on {hardware['name']}",
            xaxis={"type": "log", "title": "operations per byte of main memory (FLOP/B)", "dtick": 1},
            yaxis={"type": "log", "title": "attained rate of one device"}
            | _decades([p.attained_flop_per_s for p in points]),
        )
    )
    return figure


def _add_roofs(figure: go.Figure, document: rows.Document, x: Any) -> None:
    """One slope per memory level up to the highest peak, one dashed line per peak from its ridge on."""
    peaks = rows.roofs(document)
    top = max(peaks.values(), default=rows.ridge_point(document)[1])
    for index, (name, memory) in enumerate(_levels(document["hardware"])):
        figure.add_scatter(
            x=x,
            y=np.minimum(x * memory["read_bytes_per_s"], top),
            mode="lines",
            name=html.escape(f"{name} {si(memory['read_bytes_per_s'], 'B/s')}"),
            line={"color": ROOFS[index % len(ROOFS)], "width": 2},
            hoverinfo="name",
        )
    _, _, bandwidth = rows.ridge_point(document)
    for rate in sorted(set(peaks.values()), reverse=True):
        label = html.escape(f"{', '.join(name for name, peak in peaks.items() if peak == rate)} {si(rate, 'FLOP/s')}")
        figure.add_scatter(
            x=[min(rate / bandwidth, x[-1]), x[-1]], y=[rate, rate], mode="lines", hoverinfo="name", name=label,
            line={"color": "#888", "width": 1, "dash": "dash"}, showlegend=False,
        )  # fmt: skip
        figure.add_annotation(
            x=np.log10(x[-1]), y=np.log10(rate), text=label, showarrow=False, xanchor="right", yanchor="top"
        )


def _decades(values: list[float]) -> dict[str, Any]:
    """Ticks at powers of ten, labelled with the unit."""
    low, high = int(np.floor(np.log10(min(values, default=1.0)))), int(np.ceil(np.log10(max(values, default=1.0)))) + 1
    ticks = [10.0**k for k in range(low, high + 1)]
    return {"tickvals": ticks, "ticktext": [si(tick, "FLOP/s") for tick in ticks]}


def _levels(hardware: rows.Document) -> list[tuple[str, Any]]:
    """Device-wide memory levels, nearest first."""
    return [(name, m) for name, m in hardware["memories"].items() if m["scope"] == "device"]


def _sizes(points: list[rows.RooflinePoint]) -> list[float]:
    """Marker area follows the operator's share of the phase's time."""
    longest = max((p.time_s for p in points), default=1.0)
    return [8 + 20 * float(np.sqrt(p.time_s / longest)) for p in points]


def _hover(point: rows.RooflinePoint) -> str:
    of_roof = 100 * point.attained_flop_per_s / point.attainable_flop_per_s
    return (
        f"<b>{html.escape(point.name)}</b> ({html.escape(point.phase)})<br>{point.intensity:.2f} FLOP/B, "
        f"{si(point.attained_flop_per_s, 'FLOP/s')} ({of_roof:.0f} % of the roof)<br>"
        f"{si(point.time_s, 's')}, {point.side}-bound"
    )


def time_figure(document: rows.Document) -> go.Figure:
    """Time of each operator as a share of its phase, coloured by what bounds it; floors as ticks."""
    import plotly.graph_objects as go

    found = rows.task_rows(document)
    colors = _bound_colors(document, [r.bound for r in found])
    figure = go.Figure()
    labels = [html.escape(f"{r.phase}: {r.name}") for r in found]
    for bound in colors:
        chosen = [(label, r) for label, r in zip(labels, found, strict=True) if r.bound == bound]
        figure.add_bar(
            y=[label for label, _ in chosen],
            x=[100 * r.share for _, r in chosen],
            orientation="h",
            name=html.escape(bound),
            marker_color=colors[bound],
            text=[si(r.time_s, "s") for _, r in chosen],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1f} % of the phase, %{text}<extra></extra>",
        )
    figure.update_layout(
        _layout(
            "Time by operator, colour = what bounds it",
            height=max(320, 24 * len(found) + 120),
            barmode="stack",
            xaxis={"title": "share of its phase (%)"},
            yaxis={"autorange": "reversed", "categoryorder": "array", "categoryarray": labels, "automargin": True},
        )
    )
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0.5})
    return figure


def _bound_colors(document: rows.Document, bounds: list[str]) -> dict[str, str]:
    """A colour of its own for each bound, the same on every page of a device: memories by their place."""
    names = [*reversed(document["hardware"]["memories"]), *bounds]
    others = [name for name in dict.fromkeys(names) if name not in BOUND_COLORS]
    palette = BOUND_COLORS | {name: OTHER_COLORS[i % len(OTHER_COLORS)] for i, name in enumerate(others)}
    return {bound: palette[bound] for bound in dict.fromkeys(bounds)}


def memory_figure(document: rows.Document) -> go.Figure:
    """The memory budget of one device as one stacked bar against usable and full capacity."""
    import plotly.graph_objects as go

    memory = document["memory"]
    figure = go.Figure()
    for index, name in enumerate(("weights", "kv_cache", "activations")):
        size = memory[f"{name}_bytes"] / 2**30
        figure.add_bar(
            y=["one device"], x=[size], orientation="h", name=name.replace("_", " "), marker_color=PALETTE[index],
            hovertemplate=f"{name}: %{{x:.2f}} GiB<extra></extra>",
        )  # fmt: skip
    for name, dash in (("usable", "dash"), ("capacity", "solid")):
        figure.add_vline(x=memory[f"{name}_bytes"] / 2**30, line={"dash": dash, "color": "#333"}, annotation_text=name)
    figure.update_layout(_layout("Memory of one device", height=230, barmode="stack", xaxis={"title": "GiB"}))
    figure.update_layout(legend={"orientation": "h", "y": -0.6})
    return figure
