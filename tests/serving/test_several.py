"""Several models behind one front door: dealt by shares or by the trace, each as if it were alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli.main import run as command_line
from hwsim.errors import HwsimError
from hwsim.serving.arrivals import generate
from hwsim.serving.control import Migration, QueueLimit
from hwsim.serving.several import companions_of, dealt
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec
from tests.serving.helpers import replica

COMMON: dict[str, Any] = {"efficiency": "datasheet", "prompt": 300, "output": 30, "rate": 10.0, "requests": 90}
ALSO = "qwen3-8b share=0.3 replicas=2, llama-3.2-1b share=0.2 policy=sarathi chunk=256 prompt=50"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as text:
        return list(csv.DictReader(text))


def served(tmp_path: Path, name: str, rows: list[tuple[Any, ...]], workload: str, **options: Any) -> Any:
    """(document, per-request table) of a trace given as rows (arrival, prompt, output, model)."""
    trace, table = tmp_path / f"{name}.csv", tmp_path / f"{name}-table.csv"
    with trace.open("w", newline="") as text:
        csv.writer(text).writerows([("arrival_s", "input_tokens", "output_tokens", "model"), *rows])
    run = hwsim.simulate(workload, "h100-sxm", trace=trace, table=table, efficiency="datasheet", **options)
    return run.to_dict(), rows_of(table)


def test_each_model_runs_as_if_it_were_alone(tmp_path: Path) -> None:
    made = generate(12.0, 120, seed=4, prompt=("uniform", 400.0), output=("uniform", 60.0))
    names = ["llama-3.1-8b", "big", "llama-3.2-1b"]
    rows = [(t, p, o, names[i % 3]) for i, (t, p, o) in enumerate(zip(*columns(made), strict=True))]
    also = [{"workload": "qwen3-8b", "name": "big", "replicas": 2}, {"workload": "llama-3.2-1b", "policy": "sarathi"}]
    document, together = served(tmp_path, "all", rows, "llama-3.1-8b", also=also)
    assert [m["requests"] for m in document["models"]] == [40, 40, 40]
    assert [m["replicas"] for m in document["models"]] == [1, 2, 1]
    for number, (workload, options) in enumerate(
        [("llama-3.1-8b", {}), ("qwen3-8b", {"replicas": 2}), ("llama-3.2-1b", {"policy": "sarathi"})]
    ):
        _, alone = served(tmp_path, f"only{number}", rows[number::3], workload, **options)
        for column in ("ttft_s", "e2e_s"):
            here = np.array([float(row[column]) for row in together[number::3]])
            assert np.abs(here - [float(row[column]) for row in alone]).max() < 5e-9


def columns(trace: Any) -> tuple[Any, Any, Any]:
    return trace.arrival_s, trace.prompt, trace.output


def test_shares_deal_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--requests", "400", "--rate", "40", "--prompt", "300", "--output", "8", "--efficiency", "datasheet"]
    assert command_line(["simulate", "llama-3.1-8b", "--hw", "h100-sxm", "--also", ALSO, "-q", *arguments]) == 0
    assert "qwen3-8b" in capsys.readouterr().out
    document = hwsim.simulate("llama-3.1-8b", "h100-sxm", also=ALSO, **COMMON).to_dict()
    assert sum(m["finished"] for m in document["models"]) == document["counts"]["finished"] == 90
    json.dumps(document, allow_nan=False)
    trace = generate(1.0, 4000, seed=1)
    given = {"workload": "llama-3.1-8b", "also": ALSO, "seed": 1, "lengths": "fixed"}
    mixed = dealt(given, trace, companions_of(given))
    models = np.array(mixed.models)
    assert np.mean(models == "qwen3-8b") == pytest.approx(0.3, abs=0.03)
    assert set(np.array(mixed.prompt)[models == "llama-3.2-1b"]) == {50}
    assert (np.array(mixed.prompt) == trace.prompt)[models != "llama-3.2-1b"].all()


def test_several_models_in_a_scenario_file_with_failures_and_migration(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        "schema: hwsim/serving-scenario@1\nworkload: llama-3.1-8b\nhw: h100-sxm\nrequests: 60\nrate: 20\n"
        "prompt: 300\noutput: 60\nefficiency: datasheet\nreplicas: 2\nfailures: '0:1s:2s,2:1s:3s'\n"
        "migration: {gap: 0.0001, period: 100 ms}\nalso: [{workload: qwen3-8b, share: 0.4, replicas: 2}]\n"
    )
    document = hwsim.simulate(str(path)).to_dict()
    assert document["counts"]["finished"] == 60


def test_requests_stay_with_their_model_when_moved_and_when_limited() -> None:
    trace = generate(30.0, 120, seed=8, prompt=("uniform", 200.0), output=("uniform", 200.0))
    trace.models = ["small" if i % 3 else "large" for i in range(len(trace))]
    mover = Migration(gap=0.0001, period_s=0.05)
    replicas = [replica(model=m) for m in ("small", "large", "small", "large")]
    result = simulate(trace, ClusterSpec(replicas), prepare=mover.prepare)
    assert mover.moved > 0
    assert all(
        (index % 2 == 0) == (m == "small") for index, m in zip(result.column("replica"), trace.models, strict=True)
    )
    limited = simulate(trace, ClusterSpec(replicas), prepare=QueueLimit(4).prepare)
    rejected = limited.column("state") == 2
    assert 0 < rejected.sum() < len(trace)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"also": "qwen3-8b"}, "share"),
        ({"also": "qwen3-8b share=1.2"}, "between 0 and 1"),
        ({"also": "qwen3-8b share=0.6, llama-3.2-1b share=0.5"}, "leave no requests"),
        ({"also": "qwen3-8b shar=0.5"}, "share"),
        ({"also": "qwen3-8b share"}, "NAME=VALUE"),
        ({"also": "qwen3-8bb share=0.5"}, "qwen3-8b"),
        ({"also": "llama-3.1-8b share=0.5"}, "one name"),
        ({"also": [{"share": 0.5}]}, "workload"),
        ({"also": "qwen3-8b share=0.5 replicas=1.5"}, "replicas"),
        ({"also": "qwen3-8b share=0.5", "autoscale": True}, "one model"),
        ({"also": "qwen3-8b share=0.5 policy=magic"}, "policy"),
        ({"also": "qwen3-8b share=0.5 hw=h100-pcie", "what_if": {"overheads.launch": "1 us"}}, "another"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate("llama-3.1-8b", "h100-sxm", **COMMON, **options)
    assert words in caught.value.render()
