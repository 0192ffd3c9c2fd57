"""LAW-1 at the datasheet: no operator of any shipped device is faster than the unit and the memory that it uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim import content
from hwsim.api import Evaluation, evaluate
from hwsim.cost import cpu
from hwsim.cost.roofline import floor_parts
from hwsim.errors import InfeasibleError, LawViolation
from hwsim.ir.mapped import Task
from hwsim.ir.platform import Platform
from hwsim.ir.result import Interval, TaskCost
from hwsim.report.explain import explain
from hwsim.report.rows import roofline_points, task_rows

DEVICES = sorted(path.stem for path in (content.root() / "hardware" / "accelerators").glob("*.yaml"))
# families that restate a part of an operator's demand, each with its mechanism
RESTATING = {"fpga", "flash", "hybrid", "npu", "pim", "split"}
SLACK = 1 + 1e-9


def points(device: str, model: str = "llama-2-7b", **options: Any) -> list[Evaluation]:
    """Estimates of a device at one and sixteen sequences, where it takes the model at all."""
    found = []
    for batch in (1, 16):
        try:
            found.append(evaluate(model, device, batch=batch, check_fit=False, **options))
        except InfeasibleError:
            continue
    return found


def require_roofs(result: Evaluation) -> None:
    for point in roofline_points(result.document):
        assert point.attained_flop_per_s <= point.attainable_flop_per_s * SLACK, point
    for phase in result.estimate.phases:
        for interval in phase.timeline.intervals:
            require_demand(interval, result.estimate.platform)


def require_demand(interval: Interval, platform: Platform) -> None:
    """Each part of the demand at datasheet rates is waited for, or the family says by which mechanism it is not."""
    cost, said = interval.cost, {**interval.cost.instead, **interval.cost.beside}
    assert not said or platform.device.kind in RESTATING
    assert all(len(why) > 20 for why in said.values())
    for name, seconds in floor_parts(interval.task, platform).items():
        assert name in said or np.all(seconds <= np.asarray(cost.time_s) * SLACK), (interval.task.name, name)
    for name, seconds in cost.floor_parts_s.items():
        assert name in cost.beside or np.all(seconds <= np.asarray(cost.time_s) * SLACK), (interval.task.name, name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("efficiency", ["calibrated", "datasheet"])
def test_no_operator_lies_above_its_own_roof(device: str, efficiency: str) -> None:
    found = points(device, efficiency=efficiency)
    assert found, "the device takes neither batch"
    for result in found:
        require_roofs(result)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_no_operator_of_other_models_and_formats_lies_above_its_own_roof(device: str) -> None:
    for model in ("mixtral-8x7b", "gemma-2b"):
        for options in ({}, {"weights": "int8", "activations": "int8"}, {"weights": "int4"}, {"prompt": 4096}):
            for result in points(device, model, **options):
                require_roofs(result)


@pytest.mark.parametrize(("device", "free"), [("sail", False), ("neoverse-n1-16t", False), ("hexagon", False)])
def test_norms_and_rotary_embeddings_take_time(device: str, free: bool) -> None:
    rows = [r for r in task_rows(points(device)[1].document) if r.name in ("block.norm1", "block.rope")]
    assert len(rows) == 4
    assert all((r.time_s == 0) is free for r in rows)


def test_explain_and_roofline_name_the_same_rates() -> None:
    document = points("neoverse-n1-16t")[1].document
    task = next(t for t in document["phases"][0]["tasks"] if t["name"] == "block.norm1")
    longest = max(task["floor_parts_s"], key=lambda name: task["floor_parts_s"][name])
    assert task["floor_s"] == pytest.approx(task["floor_parts_s"][longest])
    assert task["time_s"] >= task["floor_s"]
    text = explain(document, "prefill.block.norm1")
    assert all(f"{name}:" in text for name in ("compute", "ddr", "llc"))


@pytest.mark.parametrize(("device", "far"), [("a40-offload", "link"), ("rtx4090-flash", "flash")])
def test_operators_that_wait_for_bytes_from_beyond_the_memory_are_not_called_compute_bound(
    device: str, far: str
) -> None:
    sides = {p.name: p.side for p in roofline_points(points(device)[0].document) if p.phase == "decode"}
    assert sides["block.gate_up"] == far


def test_what_a_mechanism_frees_is_said() -> None:
    text = explain(points("a40-offload")[0].document, "decode.block.attention")
    assert "runs on the CPU at the rate of the host memory" in text
    assert "the whole pass waits" in text


@pytest.mark.parametrize("part", ["compute", "ddr", "llc"])
def test_a_family_that_sets_its_floor_below_the_datasheet_is_caught(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(task: Task, platform: Platform) -> TaskCost:
        cost = honest(task, platform)
        return replace(cost, floor_parts_s={n: s for n, s in cost.floor_parts_s.items() if n != part})

    honest = cpu.task_cost
    monkeypatch.setattr(cpu, "task_cost", lower)
    with pytest.raises(LawViolation, match=f"LAW-1.*{part}"):
        evaluate("llama-2-7b", "neoverse-n1-16t")


def test_a_hosted_pass_charges_the_gpu_first_and_then_the_wait() -> None:
    step = evaluate("mixtral-8x7b", "a40-offload", batch=64, check_fit=False).estimate.phases[0].timeline
    for interval in step.intervals:
        assert np.all(np.asarray(interval.cost.time_s) * SLACK >= interval.cost.parts_s["gpu"])
    assert step.time_s == pytest.approx(max(float(np.asarray(v)) for v in step.busy_s.values()))
