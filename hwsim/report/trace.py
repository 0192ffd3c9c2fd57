"""Timelines (`hwsim/timeline@1`) as Chrome/Perfetto traces and Plotly Gantt charts."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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


def gantt_figure(document: Document) -> go.Figure:
    """One row a stream, one bar a job."""
    import plotly.graph_objects as go

    from hwsim.report.figures import PALETTE, _layout

    items = document["intervals"]
    streams = list(dict.fromkeys(item["stream"] for item in items))
    figure = go.Figure()
    for number, stream in enumerate(streams):
        mine = [item for item in items if item["stream"] == stream]
        label = html.escape(stream)
        figure.add_bar(
            y=[label] * len(mine),
            x=[1e6 * (item["end_s"] - item["start_s"]) for item in mine],
            base=[1e6 * item["start_s"] for item in mine],
            orientation="h",
            name=label,
            marker={"color": PALETTE[number % len(PALETTE)], "line": {"color": "white", "width": 1}},
            text=[html.escape(item["name"]) for item in mine],
            hovertemplate="%{text}: %{x:.3g} us from %{base:.4g} us<extra></extra>",
        )
    figure.update_layout(
        _layout(document.get("title", "timeline"), barmode="overlay", showlegend=False, xaxis={"title": "time (us)"})
    )
    return figure
