"""The discrete-event operator engine: brackets, fairness, known schedules, equality with the analytic engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.engine import analytic, des
from hwsim.engine.des_fluid import Job, execute, require_work_conserving, speeds
from hwsim.engine.des_patterns import nano_batches, overlapped_halves, pipeline, prefetched, sharers
from hwsim.errors import InputError
from hwsim.ir.mapped import MappedGraph, Mapping, Task
from hwsim.ir.platform import ComputeUnit, Device, Memory, Platform, Power
from hwsim.ir.workload import Operator
from hwsim.report.trace import chrome_trace

DEVICE = Device(
    "toy",
    "tpu",
    "toy",
    (ComputeUnit("tensor", "fp16", 100e12), ComputeUnit("vector", "fp32", 10e12)),
    (Memory("hbm", 80e9, 2e12, 2e12),),
    power=Power(100.0),
)


def graph_of(sizes: list[tuple[int, int, int]]) -> MappedGraph:
    """A chain of GEMM tasks with (m, n, count) at k = 512."""
    tasks = []
    for index, (m, n, count) in enumerate(sizes):
        flop = 2 * m * n * 512
        operator = Operator(f"op{index}", "gemm", "matmul", {"batch": 1, "m": m, "n": n, "k": 512}, flop, "fp16")
        depends = (f"op{index - 1}",) if index else ()
        traffic = {"hbm": 2 * (m * 512 + n * 512 + m * n)}
        tasks.append(Task(f"op{index}", operator, count, {"fp16": flop}, traffic, depends=depends))
    return MappedGraph("toy", "forward", Platform("toy", DEVICE), Mapping(), tuple(tasks))


@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 80)), min_size=1, max_size=12))
def test_equals_the_analytic_engine_without_contention(sizes: list[tuple[int, int, int]]) -> None:
    graph = graph_of(sizes)
    one, other = analytic.run(graph, "datasheet"), des.run(graph, "datasheet")
    assert other.time_s == pytest.approx(one.time_s, rel=1e-9)
    assert [i.task.name for i in other.intervals] == [i.task.name for i in one.intervals]


JOBS = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, 3), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)),
    min_size=1,
    max_size=20,
)


@given(JOBS)
def test_makespan_lies_in_its_bracket_and_no_time_is_wasted(rows: list[tuple[float, int, float, float, int]]) -> None:
    jobs = []
    for index, (work, stream, hbm, sm, back) in enumerate(rows):
        depends = (f"j{index - back}",) if 0 < back <= index else ()
        jobs.append(Job(f"j{index}", work, f"s{stream}", {"hbm": hbm, "sm": sm}, depends))
    schedule = execute(jobs)
    assert schedule.critical_path_s <= schedule.makespan_s * (1 + 1e-9)
    assert schedule.makespan_s <= schedule.serial_s * (1 + 1e-9)
    require_work_conserving(schedule)
    ends = {span.job.name: span for span in schedule.spans}
    for job in jobs:
        assert all(ends[name].end_s <= ends[job.name].start_s * (1 + 1e-12) for name in job.depends)
    for resource in ("hbm", "sm"):
        assert schedule.utilization(resource) <= 1 + 1e-9
        used = sum(job.work_s * job.use[resource] for job in jobs)
        assert schedule.busy_s.get(resource, 0.0) == pytest.approx(used, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_speeds_are_feasible_and_max_min_fair(rows: list[tuple[float, float]]) -> None:
    uses = [{"a": a, "b": b} for a, b in rows]
    found = speeds(uses, {})
    for name in ("a", "b"):
        assert sum(s * u[name] for s, u in zip(found, uses, strict=True)) <= 1 + 1e-9
    assert sum(found) >= 1 - 1e-9
    for speed, use in zip(found, uses, strict=True):
        full = [n for n in use if sum(s * u[n] for s, u in zip(found, uses, strict=True)) > 1 - 1e-6]
        stopped_by = [n for n in full if use[n] > 0]
        assert speed > 1 - 1e-6 or any(
            speed >= max(s for s, u in zip(found, uses, strict=True) if u[n] > 1e-9) - 1e-6 for n in stopped_by
        )


def test_pipeline_of_equal_micro_batches_has_the_gpipe_bubble() -> None:
    assert execute(pipeline([[1.0] * 4] * 8)).makespan_s == pytest.approx(8 + 4 - 1)
    uneven = [[1.0] * 4] * 7 + [[2.0] * 4]
    assert execute(pipeline(uneven)).makespan_s > 8 + 4 - 1 + 1


def test_two_transfers_share_a_link_equally() -> None:
    ends = {span.job.name: span.end_s for span in execute(sharers([1, 2], "cxl", [1, 1])).spans}
    assert ends == {"cxl0": pytest.approx(2.0), "cxl1": pytest.approx(3.0)}


def test_half_used_links_do_not_slow_each_other() -> None:
    assert execute(sharers([1, 1], "cxl", [0.5, 0.5])).makespan_s == pytest.approx(1.0)


def test_overlap_hides_communication_behind_compute() -> None:
    serial = 10 * (2.0 + 1.0)
    schedule = execute(overlapped_halves(2.0, 1.0, 10))
    assert schedule.makespan_s == pytest.approx(10 * 2.0 + 0.5)
    stolen = execute(overlapped_halves(2.0, 1.0, 10, sm_share=0.1)).makespan_s
    assert schedule.makespan_s < stolen < serial


def test_prefetch_is_bound_by_the_slower_of_load_and_compute() -> None:
    assert execute(prefetched([1.0] * 5, [0.5] * 5)).makespan_s == pytest.approx(5.5)
    assert execute(prefetched([0.5] * 5, [1.0] * 5)).makespan_s == pytest.approx(5.5)


def test_nano_batches_beat_the_serial_chain_but_not_the_busiest_resource() -> None:
    operations = [
        Job("gemm", 3.0, "compute", {"sm": 0.9}),
        Job("attention", 1.0, "memory", {"hbm": 0.9}),
        Job("net", 0.6, "net", {"link": 1.0}),
        Job("ffn", 4.0, "compute", {"sm": 0.9}),
    ]
    makespan = execute(nano_batches(operations, 2)).makespan_s
    assert 7.0 <= makespan < 8.6
    assert execute(nano_batches(operations, 2, reload=0.3)).makespan_s > makespan


def test_cycles_and_bad_fractions_are_named() -> None:
    with pytest.raises(InputError, match="wait for each other"):
        execute([Job("a", 1.0, "x", {}, ("b",)), Job("b", 1.0, "y", {}, ("a",))])
    with pytest.raises(InputError, match="fraction"):
        execute([Job("a", 1.0, "x", {"hbm": 1.5})])
    with pytest.raises(InputError, match="unknown job"):
        execute([Job("a", 1.0, "x", {}, ("z",))])


def test_chrome_trace_has_one_thread_a_stream_and_microseconds() -> None:
    schedule = execute([Job("a", 1e-3, "x"), Job("b", 2e-3, "y", {}, ("a",))])
    trace = chrome_trace(des.document(schedule))
    complete = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], round(e["ts"]), round(e["dur"])) for e in complete] == [("a", 0, 1000), ("b", 1000, 2000)]
    assert len({e["tid"] for e in complete}) == 2
