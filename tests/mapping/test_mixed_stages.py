"""Pipelines over different devices: the split of layers, against brute force and against equal devices."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from typer.testing import CliRunner

import hwsim
from hwsim.api import prepare
from hwsim.cli.main import app
from hwsim.errors import HwsimError, InfeasibleError, InputError
from hwsim.explore import mixed_stages
from hwsim.explore.mixed_stages import Stage, parse_stage, split_stages
from hwsim.frontends.formats import Formats


def document(workload: str, stages: list[str], **options: Any) -> dict[str, Any]:
    return hwsim.plan_stages(workload, stages, **options).document


def test_equal_devices_are_what_evaluate_says_up_to_whole_layers() -> None:
    """Two H100 of 32 layers: the mean stage is the column's, so the figures bracket it within one layer."""
    found = document("llama-3.1-8b", ["h100-sxm", "h100-sxm"], batch=16)
    alone = hwsim.evaluate("llama-3.1-8b", "h100-sxm", pp=2, batch=16)
    for name in ("ttft_s", "tpot_s", "latency_s"):
        assert found["metrics"][name] == pytest.approx(getattr(alone, name), rel=0.04), name
        assert found["metrics"][name] >= getattr(alone, name) * 0.99
    assert sum(stage["layers"] for stage in found["stages"]) == 32


def test_the_faster_device_takes_more_layers_and_it_pays() -> None:
    found = document("llama-3.1-8b", ["h100-sxm", "l40s"], batch=8)
    fast, slow = (stage["layers"] for stage in found["stages"])
    assert fast > 2 * slow
    assert found["metrics"]["latency_s"] < 0.85 * found["equal_shares"]["latency_s"]


def test_the_order_of_stages_does_not_change_the_work_of_equal_layers() -> None:
    one = document("llama-3.1-8b", ["h100-sxm", "l40s", "a100-sxm4-80gb"], batch=6)
    other = document("llama-3.1-8b", ["a100-sxm4-80gb", "l40s", "h100-sxm"], batch=6)
    assert one["metrics"]["latency_s"] == pytest.approx(other["metrics"]["latency_s"], rel=0.1)


def test_the_split_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cut of 24 layers over three devices, priced by the same loads: none has a quicker slowest stage."""
    seen: list[Any] = []
    honest = mixed_stages.balance
    monkeypatch.setattr(mixed_stages, "balance", lambda loads: seen.append(loads) or honest(loads))
    found = document("gpt2-medium", ["h100-sxm", "l4", "a10"], batch=12)
    loads = seen[0]
    best = min(
        mixed_stages.stage_loads(loads, (0, a, b, 24)).max()
        for a, b in itertools.combinations(range(1, 24), 2)
        if (mixed_stages.stage_bytes(loads, (0, a, b, 24)) <= loads.capacity_bytes).all()
    )
    cuts = [0, *itertools.accumulate(stage["layers"] for stage in found["stages"])]
    assert mixed_stages.stage_loads(loads, tuple(cuts)).max() == pytest.approx(best, rel=1e-12)


def test_memory_binds_before_speed() -> None:
    """70B on an H100 pair and one big slow pair: what does not fit the fast one goes to the slow one."""
    found = document("llama-3.1-70b", ["h100-sxm:2", "a100-sxm4-80gb:2"], batch=2)
    for stage in found["stages"]:
        assert stage["memory_bytes"] <= stage["room_bytes"]
    with pytest.raises(InfeasibleError, match="no partition of 80 layers into 2 stages") as error:
        document("llama-3.1-70b", ["h100-sxm", "l40s"])
    assert error.value.budget["short_bytes"] > 0


def test_one_stage_is_no_pipeline() -> None:
    found = document("llama-3.1-8b", ["h100-sxm:2"], batch=4)
    alone = hwsim.evaluate("llama-3.1-8b", "h100-sxm", tp=2, batch=4)
    assert found["metrics"]["latency_s"] == pytest.approx(alone.latency_s, rel=1e-12)
    assert found["metrics"]["tokens_per_s"] == pytest.approx(alone.throughput_tokens_per_s, rel=1e-12)


@pytest.mark.parametrize(
    ("stages", "kind"),
    [([], InputError), (["h100-sxm:0"], InputError), ([":4"], InputError), (["nothing:2"], InputError),
     (["h100-sxm:7"], InfeasibleError)],
)  # fmt: skip
def test_bad_stages_are_refused(stages: list[str], kind: type[HwsimError]) -> None:
    with pytest.raises(kind):
        document("llama-3.1-8b", stages)


def test_names_of_stages() -> None:
    assert parse_stage("h100-sxm:4") == ("h100-sxm", 4)
    assert parse_stage(" l40s ") == ("l40s", 1)


def test_too_many_stages_are_refused() -> None:
    model, platform, scenario, _ = prepare("gpt2-medium", "l4", 1, 16, 2, None, {})
    many = [Stage("l4", 1, platform)] * (mixed_stages.MOST_STAGES + 1)
    with pytest.raises(InputError, match="1 to 128 stages"):
        split_stages(model.model, many, scenario, Formats.of("fp16"), {})


def test_cli() -> None:
    base = ["map", "llama-3.1-8b", "--mapper", "parallelism", "--stage", "h100-sxm", "--stage", "l40s"]
    result = CliRunner().invoke(app, [*base, "--batch", "8"])
    assert result.exit_code == 0, result.output
    assert "equal shares" in result.output
    for extra in (["--hw", "l4"], ["--devices", "2"], ["--batch", "1", "--batch", "2"]):
        bad = CliRunner().invoke(app, [*base, *extra])
        assert isinstance(bad.exception, InputError) or bad.exit_code == 2
