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
# A timeline longer than this is drawn in milliseconds
_LONG_S: Final = 5e-3


def gantt_figure(document: Document) -> go.Figure:
    """One row a stream, one bar a job; a long timeline opens on its first part (a double click shows all of it)."""
    import plotly.graph_objects as go

    from hwsim.report.figures import PALETTE, _layout

    items = [item for item in document["intervals"] if item["end_s"] > item["start_s"]]
    streams = list(dict.fromkeys(item["stream"] for item in items))
    owners = list(dict.fromkeys(_owner(item) for item in items))
    scale, unit = (1e3, "ms") if max((i["end_s"] for i in items), default=0.0) > _LONG_S else (1e6, "us")
    figure = go.Figure()
    for number, owner in enumerate(owners):
        mine = [item for item in items if _owner(item) == owner]
        figure.add_bar(
            y=[html.escape(item["stream"]) for item in mine],
            x=[scale * (item["end_s"] - item["start_s"]) for item in mine],
            base=[scale * item["start_s"] for item in mine],
            orientation="h",
            name=html.escape(owner),
            marker={"color": PALETTE[number % len(PALETTE)], "line": {"color": "white", "width": 1}},
            text=[html.escape(item["name"]) for item in mine],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"%{{text}}: %{{x:.3g}} {unit} from %{{base:.4g}} {unit}<extra></extra>",
        )
    height = 160 + 60 * len(streams)
    figure.update_layout(
        _layout(
            document.get("title", "timeline"), barmode="overlay", xaxis=_time_axis(items, scale, unit), height=height
        ),
        showlegend=len(owners) > 1 and owners != streams,
        legend={"y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        uniformtext={"minsize": 8, "mode": "hide"},
    )
    return figure


def _time_axis(items: list[Mapping[str, Any]], scale: float, unit: str) -> dict[str, Any]:
    """The axis of a chart; where it opens on the first part it says so."""
    if len(items) <= _FIRST_BARS:
        return {"title": f"time ({unit})"}
    ends = sorted(item["end_s"] for item in items)
    shown = f"the first {scale * ends[_FIRST_BARS]:.3g} of {scale * ends[-1]:.3g} {unit}; a double click shows all"
    return {"title": f"time ({unit}), {shown}", "range": [0, scale * ends[_FIRST_BARS]]}


def _owner(item: Mapping[str, Any]) -> str:
    """What a bar is coloured by: its part of the batch where there are parts, else its stream."""
    part, colon, _ = item["name"].partition(":")
    return f"part {part}" if colon else item["stream"]
