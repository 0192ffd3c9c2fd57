"""Options of a run: fields, length statistics, limits on metrics, pools, scenario files, applications, slowdowns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.api import SIMULATE_DEFAULTS
from hwsim.cli.main import run as command_line
from hwsim.errors import HwsimError, InputError, UnknownNameError
from hwsim.serving.arrivals import Lengths, generate
from hwsim.serving.capacity import search_capacity
from hwsim.serving.control import Migration
from hwsim.serving.disaggregate import Disaggregation
from hwsim.serving.features import outages
from hwsim.serving.fields import fields_of
from hwsim.serving.scenario import read_scenario
from hwsim.serving.session import limits_of
from hwsim.serving.simulate import simulate
from hwsim.serving.slowdown import slowdowns
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from tests.serving.helpers import TIME, replica, trace_of

CHAIN = """schema: hwsim/serving-scenario@1
workload: llama-2-7b
hw: a100-sxm4-80gb
requests: 2
rate: 0.1
application:
  - {name: plan, prompt: 500, output: 60}
  - {name: act, prompt: 900, output: 40, after: [plan], delay: 400 ms}
"""


def test_fields_of_text_and_mappings_agree() -> None:
    known = {"gap": "number", "period": "time", "bandwidth": "bytes_per_s"}
    text = fields_of("gap=0.2,period=200ms,bandwidth=8GB/s", known, "--migration")
    assert text == fields_of({"gap": 0.2, "period": "0.2 s", "bandwidth": 8e9}, known, "--migration")
    assert text == {"gap": 0.2, "period": 0.2, "bandwidth": 8e9}
    assert fields_of(True, known, "x") == {}


@pytest.mark.parametrize("text", ["gap", "gap=x", "gap=nan", "gapp=1", "period=3 GB", {"gap": None}, {"gap": True}])
def test_bad_fields_are_refused(text: Any) -> None:
    with pytest.raises(HwsimError):
        fields_of(text, {"gap": "number", "period": "time"}, "--migration")


def test_unknown_fields_propose_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="turns"):
        fields_of("turnz=3", {"turns": "number"}, "--closed-loop")


@settings(max_examples=20, deadline=None)
@given(st.floats(10, 4000), st.floats(1.2, 8.0), st.integers(0, 50))
def test_lengths_keep_published_median_and_percentile(median: float, spread: float, seed: int) -> None:
    sizes = Lengths.of({"median": median, "p90": median * spread}, "--prompt").draw("lognormal", 20000, seed, 2)
    assert np.median(sizes) == pytest.approx(median, rel=0.08, abs=1)
    assert np.percentile(sizes, 90) == pytest.approx(median * spread, rel=0.1, abs=1)


def test_lengths_keep_published_mean_and_median_and_the_most() -> None:
    sizes = Lengths.of("mean=256,median=100", "--prompt").draw("lognormal", 40000, 3, 2)
    assert sizes.mean() == pytest.approx(256, rel=0.06)
    assert np.median(sizes) == pytest.approx(100, rel=0.05)
    assert Lengths.of("mean=256,median=100,max=300", "x").draw("lognormal", 4000, 3, 2).max() == 300
    assert Lengths.of("512", "x") == Lengths.of(512, "x") == Lengths(512.0)


@pytest.mark.parametrize(
    "text", ["median=100", "median=100,p90=50", "median=100,mean=90", "p90=4", "median=-1,p90=4", ""]
)
def test_lengths_that_say_too_little_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        Lengths.of(text, "--prompt")


def capacity(policy: str, limit_s: float, **options: int) -> float:
    trace = generate(1.0, 250, prompt=("lognormal", 900.0), output=("lognormal", 120.0), seed=1)
    spec = ClusterSpec([replica(policy, options={"cap": 64, **options}, kv_blocks=20000)])
    limits = {"itl_s_p99": limit_s, "delay_s_p50": 2.0}
    return search_capacity(trace, spec, ServiceLevel(), limits=limits, tolerance=0.05).rate_per_s


def test_capacity_under_a_limit_on_token_gaps_grows_with_the_limit_and_with_chunking() -> None:
    tight, loose = (capacity("sarathi", limit, chunk=256) for limit in (0.02, 0.1))
    assert tight <= loose
    assert tight > 1.2 * capacity("vllm", 0.02, max_tokens=16384)  # whole prompts stall every decode
    assert tight > 1.2 * capacity("sarathi", 0.02, chunk=16384)  # so do whole prompts beside decodes


def test_unknown_limits_are_named() -> None:
    with pytest.raises(UnknownNameError, match="itl_s_p99"):
        search_capacity(
            trace_of([(0.0, 9, 9), (1.0, 9, 9)]), ClusterSpec([replica()]), ServiceLevel(), limits={"itl_p99": 1}
        )
    assert limits_of("itl_s_p99=200ms,ttft_slowdown_p50=2") == {"itl_s_p99": 0.2, "ttft_slowdown_p50": 2.0}


def test_adapters_of_two_prefill_replicas_do_not_share() -> None:
    ends = {}
    for links in ("replica", "fabric"):
        pools = Disaggregation(2, 1e5, 1e9, 0.0, links=links)
        result = simulate(
            trace_of([(0.0, 1000, 2), (0.0, 1000, 2)]), ClusterSpec([replica()] * 4), prepare=pools.prepare
        )
        ends[links] = result.e2e_s
    alone = TIME.iteration_s(0, 0, [(1000, 0)]) + 0.1 + TIME.iteration_s(1, 1001, [])
    assert ends["replica"] == pytest.approx([alone, alone], rel=1e-9)
    assert ends["fabric"] == pytest.approx([alone + 0.1, alone + 0.1], rel=1e-9)


def test_migration_from_several_full_replicas_shortens_the_tail() -> None:
    rows = [(0.02 * i, 400, 800 if i % 4 < 2 else 2) for i in range(160)]  # round robin fills replicas 0 and 1
    spec = ClusterSpec([replica(kv_blocks=1500)] * 4)
    mover = Migration(gap=0.05, period_s=0.1)
    still, moved = (simulate(trace_of(rows), spec, prepare=p) for p in (None, mover.prepare))
    assert mover.moved > 10
    assert moved.counts()["finished"] == still.counts()["finished"] == 160
    assert np.percentile(moved.e2e_s, 99) < np.percentile(still.e2e_s, 99)


def test_a_request_alone_has_no_slowdown() -> None:
    result = simulate(trace_of([(100.0 * i, 700, 1 + 9 * (i % 2)) for i in range(6)]), ClusterSpec([replica()]))
    found = slowdowns(result, TIME)
    assert found["ttft_slowdown"] == pytest.approx(1.0)
    assert found["e2e_slowdown"] == pytest.approx(1.0, rel=1e-4)
    assert len(found["tpot_slowdown"]) == 3


def test_outages() -> None:
    assert outages("0:10s:60s,2:30s") == outages([(0, 10, 60), (2, 30)]) == [(0, 10.0, 60.0), (2, 30.0, None)]
    with pytest.raises(InputError, match="REPLICA:DOWN"):
        outages("0")


def test_scenario_file_runs_an_application_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    assert command_line(["simulate", str(path), "-q", "--efficiency", "datasheet", "-f", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    metrics = document["metrics"]
    assert document["counts"]["finished"] == 4
    calls_s = 2 * metrics["e2e_s_mean"]["value"]  # two calls one after another, and the tool between them
    assert metrics["application_s_mean"]["value"] == pytest.approx(calls_s + 0.4, rel=1e-9)
    assert hwsim.simulate(str(path), efficiency="datasheet").to_dict()["metrics"] == metrics


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHAIN.replace("requests", "reqests"), "requests"),
        (CHAIN.replace("workload: llama-2-7b\n", ""), "workload"),
        (CHAIN.replace("output: 60", "outptu: 60"), "output"),
        (CHAIN.replace("[plan]", "[plam]"), "predecessors"),
        (CHAIN + "closed_loop: {users: 2}\n", "not both"),
        (CHAIN.replace("hw: a100-sxm4-80gb\n", ""), "hardware"),
        (CHAIN + "replicas: many\n", "whole number"),
        (CHAIN + "max_batch: 2.5\n", "whole number"),
        (CHAIN + "steady: 3\n", "true or false"),
        (CHAIN + "policy: 3\n", "text"),
    ],
)
def test_bad_scenarios_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate(str(path))
    assert words in caught.value.render()


def test_options_given_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("schema: hwsim/serving-scenario@1\nworkload: llama-2-7b\nhw: a100-sxm4-80gb\nrequests: 5\n")
    assert read_scenario(path, SIMULATE_DEFAULTS)["requests"] == 5
    run = hwsim.simulate(str(path), requests=7, efficiency="datasheet", lengths="fixed", prompt=64, output=4)
    assert run.to_dict()["counts"]["finished"] == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "share=0.5", "replicas": 2}, "splits one replica"),
        ({"decode_hw": "h100-sxm"}, "prefill pool"),
        ({"kv_transfer": "magic", "prefill_pool": 1, "replicas": 2}, "layerwise"),
        ({"queue_limit": 0}, "from 1"),
        ({"migration": "gap=-1", "replicas": 2}, "too small"),
        ({"autoscale": "most=0"}, "too small"),
        ({"partition": "share=0.5", "pp": 2}, "pipeline stages"),
        ({"autoscale": "mots=3"}, "most"),
        ({"closed_loop": "users=2", "capacity": True}, "no trace and no capacity"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate("llama-2-7b", "a100-sxm4-80gb", requests=5, efficiency="datasheet", **options)
    assert words in caught.value.render()


def test_every_feature_keeps_every_request() -> None:
    common: dict[str, Any] = {"requests": 60, "rate": 8.0, "prompt": 200, "output": 40, "efficiency": "datasheet"}
    for options in (
        {"replicas": 3, "migration": "gap=0.01,period=100ms", "router": "least_loaded"},
        {"replicas": 2, "failures": "0:1s:3s"},
        {"autoscale": {"most": 3, "startup": "1 s", "high": 2}},
        {"partition": "share=0.5,dynamic=1", "slo": "ttft=1s,tpot=50ms"},
        {"replicas": 3, "prefill_pool": 1, "decode_hw": "h100-sxm", "kv_link": "25 GB/s", "mixed": 2},
        {"closed_loop": "users=6,turns=10,think=100ms,history=1"},
        {"reference": "a100-sxm4-80gb", "queue_limit": 500},
    ):
        counts = hwsim.simulate("llama-2-7b", "a100-sxm4-80gb", **common, **options).to_dict()["counts"]
        assert counts["finished"] == 60, options
