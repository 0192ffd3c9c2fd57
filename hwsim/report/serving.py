"""Serving documents (`hwsim/serving@1`) as text, CSV and one self-contained HTML page."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hwsim.units import si

if TYPE_CHECKING:
    import plotly.graph_objects as go

Document = Mapping[str, Any]
_LATENCIES: Final = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "itl_s": "inter-token latency",
    "e2e_s": "end to end",
}
_OF_A_MODEL: Final = {"TTFT p50": "ttft_s_p50", "TPOT p50": "tpot_s_p50", "end to end p99": "e2e_s_p99"}
_STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99")
_SCALARS: Final = {
    "under_load_requests_per_s": ("throughput under load", "request/s"),
    "throughput_requests_per_s": ("throughput, with drain", "request/s"),
    "under_load_tokens_per_s": ("output under load", "token/s"),
    "throughput_tokens_per_s": ("output, with drain", "token/s"),
    "under_load_goodput_requests_per_s": ("goodput under load", "request/s"),
    "goodput_requests_per_s": ("goodput, with drain", "request/s"),
    "slo_attainment": ("within the service level", "%"),
    "energy_j_per_token": ("energy", "J/token"),
    "cost_usd_per_mtok": ("cost", "USD/Mtoken"),
}
LOAD_NOTE: Final = (
    "Under load: what came out in the second half of the arrivals, over its length (not shown where fewer than 10 "
    "requests ended there). With drain: all that finished, from the first arrival to the last token."
)
_OF_LIMITS: Final = (
    "under_load_goodput_requests_per_s",
    "goodput_requests_per_s",
    "slo_attainment",
)  # mean nothing where no limit was given


def latency_rows(document: Document) -> list[tuple[str, ...]]:
    """(label, mean, p50, p90, p95, p99) as text; a half-width follows where the run was long enough for one."""
    metrics = document["metrics"]
    return [
        (label, *(_cell(metrics[f"{name}_{statistic}"]) for statistic in _STATISTICS))
        for name, label in _LATENCIES.items()
        if f"{name}_mean" in metrics
    ]


def scalar_rows(document: Document) -> list[tuple[str, str]]:
    """(label, value with unit) of the metrics that are one number."""
    scenario = document["scenario"]
    rows = []
    if scenario.get("asked_rate_per_s") and scenario["rate_per_s"]:
        rows.append(("arrivals as drawn", f"{scenario['rate_per_s']:.4g} request/s"))
    asked = any(limit is not None for limit in document["slo"].values())
    for name, (label, unit) in _SCALARS.items():
        if name not in document["metrics"] or (name in _OF_LIMITS and not asked):
            continue
        value = document["metrics"][name]["value"]
        rows.append((label, f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}"))
    return rows


def _cell(metric: Mapping[str, float]) -> str:
    text = si(metric["value"], "s")
    if "high" in metric:
        text += f" ±{si(metric['high'] - metric['value'], 's')}"
    return text


def headline(document: Document) -> str:
    """One line: what was served on what; a capacity search shows the run at the rate it found.

    The rate is the one asked for; where a trace sets the pace, its own.
    """
    scenario, hardware = document["scenario"], document["hardware"]
    paced = scenario.get("asked_rate_per_s") or scenario["rate_per_s"]
    rate_per_s = document["capacity"]["rate_per_s"] if "capacity" in document else paced
    pool = f", {scenario['prefill_pool']} of them prefill" if scenario["prefill_pool"] else ""
    return (
        f"{document['workload']['name']} on {scenario['replicas']} x {hardware['devices']} {hardware['name']}{pool}: "
        f"{scenario['policy']}, {scenario['requests']} requests of {scenario['trace']}"
        + (f" at {rate_per_s:.3g}/s" if rate_per_s else "")
    )


def count_line(document: Document) -> str:
    """Where the requests ended up."""
    counts = document["counts"]
    parts = [f"{counts['finished']} finished", f"{counts['rejected']} rejected", f"{counts['restarts']} restarts"]
    if counts["unfinished"]:
        parts.append(f"{counts['unfinished']} unfinished (interrupted)")
    if counts["warmup"]:
        parts.append(f"first {counts['warmup']} left out as warm-up")
    return ", ".join(parts) + f"; makespan {si(document['makespan_s'], 's')}"


def table_text(document: Document) -> str:
    """The document for a terminal."""
    lines = [headline(document), count_line(document)]
    if "capacity" in document:
        found = document["capacity"]
        lines.append(
            f"capacity: {found['rate_per_s']:.4g} requests/s ({100 * found['attainment']:.1f} % within limits)"
        )
    rows = [("latency", *_STATISTICS), *latency_rows(document)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines.append("")
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    lines += [f"{label:<28}{value}" for label, value in scalar_rows(document)]
    for model in document.get("models", ()):
        lines.append(_model_line(model))
    for replica in document["replicas"]:
        lines.append(
            f"{replica['name']:<28}{handled(replica)}, {replica['iterations']} iterations, "
            f"busy {100 * replica['busy_share']:.1f} %"
        )
    lines += [f"note: {text}" for text in document["warnings"]]
    return "\n".join(lines)


def handled(replica: Mapping[str, Any]) -> str:
    """What a replica did: requests that ended on it, and prompts that others decoded."""
    given = replica.get("handed_over", 0)
    parts = [f"{replica['requests']} requests"] if replica["requests"] or not given else []
    return ", ".join([*parts, f"{given} prompts handed over"] if given else parts)


def _model_line(model: Mapping[str, Any]) -> str:
    """How one of several models fares."""
    times = [f"{label} {si(model[name], 's')}" for label, name in _OF_A_MODEL.items() if name in model]
    return f"{model['name']:<28}{model['requests']} requests on {model['replicas']} replicas; " + ", ".join(times)


def csv_text(document: Document) -> str:
    """metric, value, low, high: one row a metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("metric", "value", "low", "high"))
    for name, metric in document["metrics"].items():
        writer.writerow((name, metric["value"], metric.get("low", ""), metric.get("high", "")))
    return text.getvalue()


def series_figure(document: Document, series: str, title: str, axis: str) -> go.Figure:
    """One line a replica of ``queued``, ``running``, ``kv_share`` or ``power_w`` over simulated time."""
    import plotly.graph_objects as go

    from hwsim.report.figures import PALETTE, _layout

    figure = go.Figure()
    for index, replica in enumerate(document["replicas"]):
        data = replica["series"]
        if not data[series]:
            continue
        figure.add_scatter(
            x=data["power_time_s" if series == "power_w" else "time_s"],
            y=data[series],
            mode="lines",
            name=html.escape(replica["name"]),
            line={"width": 1, "color": PALETTE[index % len(PALETTE)], "shape": "hv"},
        )
    lines = len(figure.data)
    below = 24 * -(-lines // 6) if lines > 1 else 0  # room for the legend under the title of the axis
    yaxis: dict[str, Any] = {"title": axis, "rangemode": "tozero"}
    if not any(any(line.y) for line in figure.data):
        yaxis["range"] = [0, 1]
    base = _layout(title, xaxis={"title": "simulated time (s)"}, yaxis=yaxis, height=300 + below, showlegend=lines > 1)
    figure.update_layout(base, margin_b=60 + below, legend={"y": -0.3, "yanchor": "top"})
    return figure


def page(document: Document) -> str:
    """The run as one HTML page with time series of queue, batch, memory and power."""
    from hwsim.report.html import figure_blocks, render_page

    drawn = [
        ("queued", series_figure(document, "queued", "Waiting requests", "requests")),
        ("running", series_figure(document, "running", "Running requests", "requests")),
        ("kv", series_figure(document, "kv_share", "KV cache in use", "share of blocks")),
    ]
    if any(replica["series"]["power_w"] for replica in document["replicas"]):
        drawn.append(("power", series_figure(document, "power_w", "Power", "W")))
    return render_page(
        "serving.html.j2",
        title=headline(document),
        counts=count_line(document),
        statistics=_STATISTICS,
        latencies=latency_rows(document),
        scalars=scalar_rows(document),
        handled=[handled(replica) for replica in document["replicas"]],
        load_note=LOAD_NOTE,
        document=document,
        figures=figure_blocks(drawn),
    )
