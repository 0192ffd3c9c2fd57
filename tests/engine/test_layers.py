"""Layer-by-layer timelines: equal to the analytic engine in turn, and what overlap may and may not save."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.engine.des_fluid import execute
from hwsim.engine.des_layers import Layout, offloaded, staged, together, unfold
from hwsim.errors import InputError, UnknownNameError
from hwsim.ir.result import Timeline


def phases(model: str = "llama-3.1-70b", hardware: str = "dgx-h100", **options: object) -> dict[str, Timeline]:
    found = hwsim.evaluate(model, hardware, **{"tp": 8, "batch": 16, **options})  # type: ignore[arg-type]
    return {phase.name: phase.timeline for phase in found.estimate.phases}


@pytest.mark.parametrize("model", ["llama-3.1-70b", "mixtral-8x7b", "gemma-2-9b", "deepseek-v3"])
def test_one_stream_takes_the_analytic_time(model: str) -> None:
    for timeline in phases(model, check_fit=False).values():
        schedule = execute(unfold(timeline, layout=Layout("device")))
        assert schedule.makespan_s == pytest.approx(float(timeline.time_s), rel=1e-9)
        assert len(schedule.spans) == 1 + sum(i.task.count for i in timeline.intervals)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 64), st.integers(2, 5), st.sampled_from(["device", "links", "kinds"]), st.floats(0, 0.3))
def test_parts_stay_between_the_longest_part_and_their_sum(batch: int, parts: int, streams: str, units: float) -> None:
    one = phases(batch=-(-batch // parts))["decode"]
    schedule = execute(together([one] * parts, Layout(streams, units)))
    assert schedule.critical_path_s <= schedule.makespan_s * (1 + 1e-9)
    assert float(one.time_s) <= schedule.makespan_s * (1 + 1e-9)
    assert schedule.makespan_s <= parts * float(one.time_s) * (1 + 1e-9)
    assert all(schedule.utilization(name) <= 1 + 1e-9 for name in schedule.busy_s)


def test_splitting_a_prefill_hides_collectives_and_splitting_a_small_decode_loses() -> None:
    """TokenWeave's case gains; a decode step reads every weight twice (its own counter-example)."""
    gained = hwsim.timeline(
        "llama-3.1-70b", "dgx-h100", phase="prefill", tp=8, batch=64, technique={"parts": 2, "streams": "kinds"}
    ).document
    links = gained["utilization"]["link"] * gained["makespan_s"]
    assert gained["makespan_s"] < gained["in_turn_s"] - 0.5 * links
    lost = hwsim.timeline("llama-2-7b", "a100", batch=2, technique={"parts": 2}).document
    assert lost["makespan_s"] > 1.5 * lost["in_turn_s"]


def test_a_collective_that_takes_units_never_helps() -> None:
    half = phases(batch=8)["prefill"]
    free, taking = (execute(together([half, half], Layout("kinds", share))).makespan_s for share in (0.0, 0.25))
    assert taking > free


@pytest.mark.parametrize(("stages", "batches"), [(2, 1), (2, 4), (4, 8)])
def test_pipeline_of_nearly_even_stages_has_the_bubbles_of_gpipe(stages: int, batches: int) -> None:
    timeline = phases(tp=8, pp=1)["prefill"]
    schedule = execute(staged(timeline, stages, batches))
    even = float(timeline.time_s) * (stages + batches - 1) / stages
    assert even * (1 - 1e-9) <= schedule.makespan_s < 1.1 * even


@pytest.mark.parametrize("rate", [1e9, 25e9, 1e12, 1e15])
def test_prefetch_takes_at_least_the_slower_of_load_and_compute(rate: float) -> None:
    timeline = phases("llama-2-7b", "a100", tp=1, batch=1)["prefill"]
    schedule = execute(offloaded(timeline, rate, 1))
    loads = sum(s.end_s - s.start_s for s in schedule.spans if s.job.stream == "host-link")
    compute = float(timeline.time_s - timeline.overhead_s)
    assert max(loads, compute) <= schedule.makespan_s * (1 + 1e-9)
    assert schedule.makespan_s <= (loads + compute) * (1 + 1e-9)
    if rate == 1e15:
        assert schedule.makespan_s == pytest.approx(compute, rel=1e-3)


def test_half_a_link_doubles_what_waits_for_it() -> None:
    asked = {"prefetch": "pcie"}
    full = hwsim.timeline("llama-2-7b", "a100", technique=asked).document
    half = hwsim.timeline("llama-2-7b", "a100", technique={**asked, "capacity": {"host-link": 0.5}}).document
    assert half["makespan_s"] == pytest.approx(2 * full["makespan_s"], rel=0.05)


def test_trace_opens_as_trace_events_and_covers_the_makespan() -> None:
    found = hwsim.timeline("llama-3.1-70b", "dgx-h100", phase="prefill", tp=8, batch=4, technique={"parts": 2})
    events = [event for event in json.loads(found.trace())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == found.document["jobs"]
    assert max(e["ts"] + e["dur"] for e in events) == pytest.approx(found.document["makespan_s"] * 1e6)


@pytest.mark.parametrize(
    ("technique", "error"),
    [
        ({"streams": "kind"}, UnknownNameError),
        ({"prefetch": "pci"}, UnknownNameError),
        ({"capacity": {"hbn": 0.5}}, UnknownNameError),
        ({"capacity": {"hbm": 0.0}}, InputError),
        ({"parts": 2}, InputError),
        ({"parts": 0}, InputError),
        ({"unit_share": 1.0}, InputError),
        ({"micro_batches": 2}, InputError),
        ({"prefetch": "pcie", "depth": 0}, InputError),
        ({"part": 2}, UnknownNameError),
    ],
)
def test_techniques_that_do_not_apply_are_refused(technique: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        hwsim.timeline("llama-2-7b", "a100", technique=technique)
