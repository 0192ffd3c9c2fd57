"""Rates under load and with drain, the asked and the drawn rate, names of replicas and what a prefill pool handled."""

from __future__ import annotations

import numpy as np
import pytest

import hwsim
from hwsim.report import serving as report
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from tests.serving.helpers import replica, run, trace_of

FIXED = {"efficiency": "datasheet", "requests": 40}


def test_a_steady_stream_with_one_straggler_keeps_its_rate() -> None:
    rows = [(0.1 * i, 100, 5) for i in range(400)]
    rows[350] = (35.0, 100, 20_000)
    result = run(trace_of(rows), replica(), level=ServiceLevel(ttft_s=10.0))
    metrics = result.metrics()
    assert metrics["under_load_requests_per_s"]["value"] == pytest.approx(10.0, rel=0.02)
    assert metrics["under_load_goodput_requests_per_s"] == metrics["under_load_requests_per_s"]
    assert metrics["throughput_requests_per_s"]["value"] == pytest.approx(400 / result.makespan_s)
    assert metrics["throughput_requests_per_s"]["value"] < 5.0


def test_tokens_under_load_are_those_that_came_out_then() -> None:
    rows = [(0.5 * i, 64, 50 + 7 * i % 90) for i in range(80)]
    result = run(trace_of(rows), replica())
    first, end, out = (result.column(name) for name in ("first_s", "end_s", "output"))
    middle, last = 0.5 * 79 / 2, 0.5 * 79
    tokens = 0.0
    for a, b, n in zip(first, end, out, strict=True):
        tokens += n * max(0.0, min(b, last) - max(a, middle)) / (b - a)
    assert result.metrics()["under_load_tokens_per_s"]["value"] == pytest.approx(tokens / (last - middle), rel=1e-9)


def test_no_rate_under_load_without_a_load() -> None:
    at_once = run(trace_of([(0.0, 100, 5)] * 50), replica())
    few = run(trace_of([(0.1 * i, 100, 5) for i in range(9)]), replica())
    slow = run(trace_of([(0.001 * i, 4000, 200) for i in range(50)]), replica())
    for result in (at_once, few, slow):
        assert "under_load_requests_per_s" not in result.metrics()


def test_warm_up_left_out_does_not_thin_the_load() -> None:
    trace = trace_of([(0.1 * i, 100, 5) for i in range(400)])
    spec = ClusterSpec([replica()])
    plain, steady = simulate(trace, spec).metrics(), simulate(trace, spec, steady=True).metrics()
    assert plain["under_load_requests_per_s"] == steady["under_load_requests_per_s"]


def test_the_headline_says_the_rate_that_was_asked() -> None:
    document = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", **FIXED).to_dict()
    assert document["scenario"]["asked_rate_per_s"] == 1.0
    drawn = document["scenario"]["rate_per_s"]
    assert abs(drawn - 1) > 0.01
    assert report.headline(document).endswith(" at 1/s")
    assert ("arrivals as drawn", f"{drawn:.4g} request/s") in report.scalar_rows(document)
    assert "throughput under load" in report.table_text(document)
    assert "second half of the arrivals" in report.page(document)


def test_a_closed_loop_has_no_rate_to_show() -> None:
    document = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", closed_loop="users=2,turns=3", **FIXED).to_dict()
    assert document["scenario"]["asked_rate_per_s"] is None
    assert report.headline(document).endswith("requests of closed loop")
    assert "arrivals as drawn" not in report.table_text(document)


@pytest.mark.parametrize("pp", [1, 2])
def test_replicas_are_numbered_and_prefill_replicas_count_prompts(pp: int) -> None:
    document = hwsim.simulate(
        "llama-3.1-8b", "a100-sxm4-80gb", rate=4.0, replicas=3, prefill_pool=1, pp=pp, **FIXED
    ).to_dict()
    names = [row["name"] for row in document["replicas"]]
    assert names == [f"a100-sxm4-80gb #{i}" for i in range(3)]
    handed = [row["handed_over"] for row in document["replicas"]]
    more = int(np.sum([row["requests"] for row in document["replicas"][1:]]))
    assert handed == [more, 0, 0]
    text = report.table_text(document)
    assert f"a100-sxm4-80gb #0           {more} prompts handed over, " in text
    assert f"<td>{more} prompts handed over</td>" in report.page(document)
