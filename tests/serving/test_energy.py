"""Energy of replicas: integral of the power trace, sums over the iterations that really ran, limits, phases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.frontends.formats import Formats
from hwsim.serving.arrivals import generate
from hwsim.serving.energy import IterationEnergy, spread
from hwsim.serving.engine_time import Pricer
from hwsim.serving.front import Engine, engine_replica
from hwsim.serving.resolve import resolve
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec
from tests.serving.helpers import replica, run, trace_of

OPTIONS: dict[str, Any] = {"rate": 6.0, "requests": 150}


def engine(workload: str = "llama-3.1-8b", policy: str = "vllm", options: Any = None) -> tuple[Engine, Pricer]:
    model, platform, scenario, _ = resolve(workload, "a100-sxm4-80gb", {})
    formats = Formats.of("bf16", None, None)
    made = engine_replica(
        model, platform, scenario, formats, policy=policy, options=options or {"cap": 64}, longest=4096
    )
    return made, Pricer(model, platform, scenario, formats)


class Ran:
    """Sums what each iteration takes, one by one, on the clock."""

    def __init__(self, energy: IterationEnergy) -> None:
        self.energy, self.joules = energy, 0.0

    def __call__(self, cluster: Any) -> None:
        cluster.dynamic = True
        (one,) = cluster.everyone
        advance = one._advance

        def noted(now_s: float) -> None:
            if one._count:
                self.note(one)
            advance(now_s)

        one._advance = noted

    def note(self, one: Any) -> None:
        if one._decoding and one.decodes:
            steps = np.arange(one._count)
            mean = one.context / one.decodes + steps
            self.joules += float(self.energy.of_decodes(np.full(len(steps), float(one.decodes)), mean).sum())
        elif one._chunks:
            self.joules += self.energy.pass_j
        for request, tokens in one._chunks:
            ends = np.array([request.processed + tokens, request.processed])
            done = self.energy.of_prompts(ends)
            self.joules += float(done[0] - done[1]) if request.processed else float(done[0])


@pytest.mark.parametrize("policy", ["vllm", "sarathi", "vllm_v1"])
@pytest.mark.parametrize("rate", [0.5, 4.0, 12.0])
def test_energy_is_the_sum_of_the_iterations_that_ran(policy: str, rate: float) -> None:
    options = {"cap": 64} if policy == "vllm" else {"cap": 64, "chunk": 512}
    made, _ = engine(policy=policy, options=options)
    spec = made.replica
    assert spec.energy is not None
    trace, ran = generate(rate, 200), Ran(spec.energy)
    result = simulate(trace, ClusterSpec([spec]), prepare=ran)
    (one,) = result.cluster.everyone
    static = spec.idle_w * result.up_s(one) + (spec.running_w - spec.idle_w) * one.busy_s
    dynamic = result.metrics()["energy_j"]["value"] - static
    assert dynamic == pytest.approx(ran.joules, rel=1e-3)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"replicas": 3, "prefill_pool": 1},
        {"replicas": 2, "failures": "0:5s:9s"},
        {"autoscale": "most=3,least=1,period=1s"},
        {"partition": True},
        {"pp": 2},
        {"migration": True, "replicas": 2},
        {"policy": "vllm_v1"},
        {"prefix_cache": True, "closed_loop": "users=5,turns=4,history=1"},
    ],
)
def test_the_integral_of_the_power_traces_is_the_energy(more: dict[str, Any]) -> None:
    document = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", **OPTIONS, **more).to_dict()
    total = []
    for row in document["replicas"]:
        edges, power = np.array(row["series"]["power_time_s"]), np.array(row["series"]["power_w"])
        total.append(float(np.sum(np.diff(edges) * power[:-1])))
        assert total[-1] == pytest.approx(row["energy_j"], rel=1e-9)
        assert np.all(np.diff(edges) > 0)
        assert power.min() > 0
        assert power.max() <= 400 * (2 if "pp" in more else 1) * (1 + 1e-9)
    assert document["metrics"]["energy_j"]["value"] == pytest.approx(math.fsum(total), rel=1e-9)


def test_prefill_and_decode_draw_different_power_and_batches_too() -> None:
    document = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", rate=8.0, requests=300).to_dict()
    (row,) = document["replicas"]
    assert len({round(power, 3) for power in row["series"]["power_w"]}) > 20
    energy = engine()[0].replica.energy
    assert energy is not None
    one, many = energy.of_decodes(np.array([1.0, 64.0]), np.array([512.0, 512.0]))
    assert one < many < 64 * one


def test_tables_hold_the_joules_of_the_cost_model() -> None:
    made, pricer = engine()
    energy = made.replica.energy
    assert energy is not None
    batch, context = float(energy.sequences[20]), float(energy.contexts[30])
    _, _, joules, _ = pricer.split_s("decode", int(batch), 1, int(context) - 1)
    assert energy.of_decodes(np.array([batch]), np.array([context]))[0] == pytest.approx(float(joules), rel=1e-9)
    _, _, joules, _ = pricer.split_s("prefill", 1, 1024, 0)
    both = energy.pass_j + energy.of_prompts(np.array([1024]))[0]
    assert both == pytest.approx(float(joules), rel=1e-9)
    _, _, two, _ = pricer.split_s("prefill", 2, 1024, 0)
    assert both + energy.of_prompts(np.array([1024]))[0] == pytest.approx(float(two), rel=0.02)


def test_one_level_without_energies_of_passes() -> None:
    trace = trace_of([(0.5 * i, 200, 20) for i in range(40)])
    result = run(trace, replica(busy_w=300.0, idle_w=50.0))
    (one,) = result.cluster.everyone
    idle_s = result.makespan_s - one.busy_s
    assert result.metrics()["energy_j"]["value"] == pytest.approx(300 * one.busy_s + 50 * idle_s, rel=1e-9)


def test_spread_is_the_sum_over_pairs() -> None:
    stream = np.random.default_rng(3)
    begin = stream.uniform(0, 10, 200)
    end = begin + stream.uniform(0, 4, 200) * (stream.random(200) < 0.8)
    amount, edges = stream.uniform(0, 5, 200), np.sort(stream.uniform(-1, 15, 40))
    brute = np.zeros(39)
    for b, e, a in zip(begin, end, amount, strict=True):
        inside = np.minimum(e, edges[1:]) - np.maximum(b, edges[:-1])
        here = (edges[:-1] < b) & (b <= edges[1:])
        brute += a * (np.maximum(inside, 0.0) / (e - b) if e > b else here)
    assert spread(begin, end, amount, edges) == pytest.approx(brute, abs=1e-6)
