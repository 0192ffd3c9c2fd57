"""Timelines (`hwsim/timeline@1`) as Chrome/Perfetto traces and Plotly Gantt charts."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import plotly.graph_objects as go

Document = Mapping[str, Any]


def chrome_trace(document: Document) -> dict[str, Any]:
    """Trace Event Format: one thread a stream, complete events in microseconds; opens in Perfetto."""
    streams = list(dict.fromkeys(item["stream"] for item in document["intervals"]))
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": document.get("title", "hwsim")}}
    ]
    for number, stream in enumerate(streams):
        events.append({"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": stream}})
    for item in document["intervals"]:
        events.append(
            {
                "name": item["name"],
                "ph": "X",
                "pid": 1,
                "tid": streams.index(item["stream"]),
                "ts": item["start_s"] * 1e6,
                "dur": (item["end_s"] - item["start_s"]) * 1e6,
                "args": {f"{name} share": share for name, share in item["use"].items()},
            }
        )
    return {"displayTimeUnit": "ms", "traceEvents": events}


def chrome_trace_text(document: Document) -> str:
    """The trace as JSON text."""
    return json.dumps(chrome_trace(document), allow_nan=False)


# Bars that a chart shows legibly at first sight; the rest is a drag or a double click away.
_FIRST_BARS: Final = 120


def gantt_figure(document: Document) -> go.Figure:
    """One row a stream, one bar a job; a long timeline opens on its first part (a double click shows all of it)."""
    import plotly.graph_objects as go

    from hwsim.report.figures import PALETTE, _layout

    items = [item for item in document["intervals"] if item["end_s"] > item["start_s"]]
    streams = list(dict.fromkeys(item["stream"] for item in items))
    owners = list(dict.fromkeys(_owner(item) for item in items))
    figure = go.Figure()
    for number, owner in enumerate(owners):
        mine = [item for item in items if _owner(item) == owner]
        figure.add_bar(
            y=[html.escape(item["stream"]) for item in mine],
            x=[1e6 * (item["end_s"] - item["start_s"]) for item in mine],
            base=[1e6 * item["start_s"] for item in mine],
            orientation="h",
            name=html.escape(owner),
            marker={"color": PALETTE[number % len(PALETTE)], "line": {"color": "white", "width": 1}},
            text=[html.escape(item["name"]) for item in mine],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{text}: %{x:.3g} us from %{base:.4g} us<extra></extra>",
        )
    axis: dict[str, Any] = {"title": "time (us)"}
    if len(items) > _FIRST_BARS:
        axis["range"] = [0, 1e6 * sorted(item["end_s"] for item in items)[_FIRST_BARS]]
    height = 160 + 60 * len(streams)
    figure.update_layout(
        _layout(document.get("title", "timeline"), barmode="overlay", showlegend=False, xaxis=axis, height=height),
        uniformtext={"minsize": 8, "mode": "hide"},
    )
    return figure


def _owner(item: Mapping[str, Any]) -> str:
    """What a bar is coloured by: its part of the batch where there are parts, else its stream."""
    part, colon, _ = item["name"].partition(":")
    return f"part {part}" if colon else item["stream"]
