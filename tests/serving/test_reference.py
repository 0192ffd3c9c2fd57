"""Every policy, budget, number of stages and replicas, and size of memory against a naive reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwsim.cli.main import run as command_line
from hwsim.serving.arrivals import generate
from hwsim.validation.serving import run_case, validate_serving
from tests.serving.helpers import trace_of
from tests.serving.reference import CONSTANTS, Reference, write_cases

Rows = list[tuple[float, int, int]]


def case_of(policy: str, **changes: Any) -> dict[str, Any]:
    """A case as its file would state it."""
    blocks = changes.pop("blocks", 27000)
    scheduler = {
        "name": policy, "batch_size_cap": changes.pop("cap", 64), "block_size": 1 if policy == "lightllm" else 16,
        "watermark_blocks_fraction": 0.01, "num_blocks": blocks * 16 if policy == "lightllm" else blocks,
        "chunk_size": changes.pop("budget", 512), "max_tokens_in_batch": 4096, "max_waiting_iters": 10,
    }  # fmt: skip
    named = {"name": policy, "replicas": 1, "pipeline_stages": 1, "global_scheduler": "round_robin"}
    return {**named, "constants": CONSTANTS, **changes, "scheduler": {**scheduler, **changes.get("scheduler", {})}}


def check(case: dict[str, Any], rows: Rows, share: float = 1.0) -> Reference:
    """Equal times to 1e-9 s and equal restarts for every request."""
    found = run_case(case, trace_of(rows), share if case["pipeline_stages"] > 1 else None)
    wanted = Reference(case, [(t, p, o) for t, p, o in rows]).run()
    for column, name in (("scheduled_s", "scheduled"), ("first_s", "first"), ("end_s", "end")):
        times = np.array([getattr(job, name) for job in wanted.jobs])
        assert np.abs(found.column(column) - times).max() < 1e-9, (column, case)
    assert found.column("restarts").tolist() == [job.restarts for job in wanted.jobs]
    assert sum(replica.iterations for replica in found.cluster.everyone) == wanted.iterations
    return wanted


REQUESTS = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 1500), st.integers(1, 300)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(
    rows=REQUESTS,
    policy=st.sampled_from(["orca", "vllm", "sarathi"]),
    stages=st.sampled_from([1, 2, 4]),
    replicas=st.sampled_from([1, 2, 4]),
    router=st.sampled_from(["round_robin", "lor", "random"]),
    budget=st.sampled_from([64, 256, 1024, 2048]),
    cap=st.sampled_from([4, 8, 64]),
    blocks=st.sampled_from([120, 170, 300, 27000]),
)
def test_schedulers_with_stages_replicas_and_little_memory(
    rows: list[tuple[int, int, int]], policy: str, blocks: int, **changes: Any
) -> None:
    changes["pipeline_stages"], changes["global_scheduler"] = changes.pop("stages"), changes.pop("router")
    blocks = max(blocks, 256) if policy == "orca" else blocks
    check(case_of(policy, blocks=blocks, **changes), sorted((t / 1000, p, o) for t, p, o in rows))


@settings(max_examples=40)
@given(
    rows=REQUESTS,
    replicas=st.sampled_from([1, 2, 4]),
    router=st.sampled_from(["round_robin", "lor", "random"]),
    cap=st.sampled_from([4, 8, 64]),
    blocks=st.sampled_from([120, 200, 27000]),
    patience=st.sampled_from([1, 3, 10]),
    tokens=st.sampled_from([1500, 4096]),
)
@example([(0, 900, 1), (0, 900, 2), (0, 100, 300)], 1, "lor", 8, 120, 3, 4096)
def test_lightllm(
    rows: list[tuple[int, int, int]], replicas: int, router: str, cap: int, blocks: int, patience: int, tokens: int
) -> None:
    scheduler = {"max_waiting_iters": patience, "max_tokens_in_batch": tokens}
    case = case_of(
        "lightllm", replicas=replicas, global_scheduler=router, cap=cap, blocks=blocks, scheduler=scheduler
    )  # fmt: skip
    check(case, sorted((t / 1000, p, o) for t, p, o in rows))


HOT = generate(14.0, 300, seed=7, process="bursty", prompt=("lognormal", 900.0), output=("lognormal", 150.0))
VARIANTS = [
    case_of("lightllm"),
    case_of("lightllm", blocks=500, name="lightllm_lowmem"),
    case_of("sarathi", budget=256, name="sarathi256"),
    case_of("sarathi", budget=2048, blocks=500, name="sarathi2048_lowmem"),
    case_of("sarathi", budget=1024, pipeline_stages=2, name="sarathi1024_pp2"),
    case_of("vllm", pipeline_stages=4, blocks=600, name="vllm_pp4_lowmem"),
    case_of("orca", pipeline_stages=2, time_scale_factor=0.5, name="orca_pp2_hot"),
    case_of("vllm", replicas=8, global_scheduler="lor", time_scale_factor=0.2, name="vllm_lor8"),
    case_of("sarathi", replicas=4, global_scheduler="random", blocks=400, name="sarathi_random4"),
    case_of("lightllm", replicas=2, time_scale_factor=0.25, blocks=700, name="lightllm_hot"),
    case_of("vllm", blocks=400, time_scale_factor=0.4, name="vllm_hot_lowmem"),
]  # fmt: skip


def folder_of(path: Path, cases: list[dict[str, Any]]) -> Path:
    rows = [(round(t, 4), min(p, 3500), min(o, 500)) for t, p, o in zip(*columns(), strict=True)]
    write_cases(path, cases, rows)
    return path


def columns() -> tuple[Any, Any, Any]:
    return HOT.arrival_s, HOT.prompt, HOT.output


def test_a_folder_of_variants_agrees_to_a_microsecond(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, VARIANTS)
    stated = {case["name"]: case for case in json.loads((folder / "cases.json").read_text())["cases"]}
    assert command_line(["validate", "serving", str(folder), "-f", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)["cases"]
    assert [score["name"] for score in scores] == [case["name"] for case in VARIANTS]
    for score in scores:
        assert max(score["ttft_s"], score["e2e_s"], score["delay_s"]) < 1e-9, score
        assert (score["restarts"], score["iterations"]) == (0, stated[score["name"]]["iterations"])
    assert all(stated[name]["restarts"] > 0 for name in ("sarathi2048_lowmem", "vllm_pp4_lowmem", "vllm_hot_lowmem"))


@pytest.mark.parametrize("forecast", [(1, 2), (0, 1), (1, 1)])
def test_readings_of_the_forecast_are_told_apart(tmp_path: Path, forecast: tuple[int, int]) -> None:
    """In little memory the readings give other schedules; the one that the case was made with is found."""
    case = case_of("lightllm", blocks=260, time_scale_factor=0.25, scheduler={"forecast": forecast})
    (score,) = validate_serving(folder_of(tmp_path, [case]))["cases"]
    assert score["passed"]
    assert (score["convention"] == "") == (forecast == (1, 2))


def test_a_case_that_another_scheduler_made_is_a_miss(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, VARIANTS[2:3])
    document = json.loads((folder / "cases.json").read_text())
    document["cases"][0]["scheduler"]["chunk_size"] = 512
    (folder / "cases.json").write_text(json.dumps(document))
    assert not validate_serving(folder)["passed"]
