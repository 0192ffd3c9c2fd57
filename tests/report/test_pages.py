"""Pages say what they show: limits only where asked, the rate of a capacity search, parts of long timelines."""

from __future__ import annotations

from typing import Any

import pytest

import hwsim
from hwsim.report import serving
from hwsim.report.trace import gantt_figure


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    return hwsim.simulate("llama-2-7b", "a100", rate=8.0, requests=12, replicas=7).document


def test_no_verdict_on_limits_that_nobody_set(served: dict[str, Any]) -> None:
    labels = {label for label, _ in serving.scalar_rows(served)}
    assert not labels & {"goodput under load", "goodput, with drain", "within the service level"}
    asked = served | {"slo": served["slo"] | {"ttft_s": 1.0}}
    assert {"goodput, with drain", "within the service level"} <= {label for label, _ in serving.scalar_rows(asked)}


def test_a_capacity_search_is_headed_by_the_rate_it_found(served: dict[str, Any]) -> None:
    found = served | {"capacity": {"rate_per_s": 4.72, "attainment": 0.9}}
    assert "at 4.72/s" in serving.headline(found)


def test_series_start_at_zero_and_leave_room_for_the_legend(served: dict[str, Any]) -> None:
    idle = {"name": "r", "series": {"time_s": [0.0, 1.0], "queued": [0, 0]}}
    figure = serving.series_figure(served | {"replicas": [idle]}, "queued", "Waiting", "requests")
    assert figure.layout.yaxis.range == (0, 1)
    assert figure.layout.showlegend is False
    many = serving.series_figure(served, "running", "Running", "requests")
    assert many.layout.yaxis.rangemode == "tozero"
    assert many.layout.margin.b > figure.layout.margin.b


@pytest.mark.parametrize(
    ("jobs", "each_s", "title"), [(3, 1e-6, "time (us)"), (500, 1e-3, "time (ms), the first 121 of 500 ms")]
)
def test_a_chart_says_its_unit_and_what_it_leaves_out(jobs: int, each_s: float, title: str) -> None:
    bars = [{"name": f"job#{i}", "stream": "s", "start_s": i * each_s, "end_s": (i + 1) * each_s} for i in range(jobs)]
    axis = gantt_figure({"title": "t", "intervals": bars}).layout.xaxis
    assert axis.title.text.startswith(title)
    assert (axis.range is None) == (jobs == 3)
