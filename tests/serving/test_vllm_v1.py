"""vLLM's V1 engine: scheduling one iteration ahead, limits by device, time outside the engine loop."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.frontends.formats import Formats
from hwsim.serving.arrivals import generate
from hwsim.serving.engine_time import from_engine
from hwsim.serving.engines import FRONT_END_S, LARGE, SMALL, vllm_limits
from hwsim.serving.front import engine_replica
from hwsim.serving.resolve import resolve
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec
from tests.serving.helpers import TIME, replica, run, trace_of


def v1(**options: int) -> object:
    return replica("vllm_v1", watermark=0.0, options={"cap": 32, "chunk": 512, **options})


def test_a_request_that_arrives_in_iteration_k_joins_k_plus_two() -> None:
    """By hand: the first decodes when the second comes; one more iteration passes before its prompt runs."""
    first = TIME.iteration_s(0, 0, [(100, 0)])
    decode = [TIME.iteration_s(1, 101 + i, []) for i in range(3)]
    trace = trace_of([(0.0, 100, 50), (first + decode[0] / 2, 200, 5)])
    result = run(trace, v1())
    own = TIME.iteration_s(1, 103, [(200, 0)])
    end_of_k = first + decode[0]
    assert result.column("first_s")[1] == pytest.approx(end_of_k + decode[1] + own, rel=1e-12)
    assert result.column("scheduled_s")[1] == pytest.approx(end_of_k, rel=1e-12)
    behind = run(trace, v1(ahead=0))
    assert behind.column("first_s")[1] == pytest.approx(end_of_k + TIME.iteration_s(1, 102, [(200, 0)]), rel=1e-12)


def test_an_idle_engine_takes_a_request_at_once() -> None:
    result = run(trace_of([(0.0, 100, 3), (9.0, 100, 3)]), v1())
    assert result.ttft_s[1] == pytest.approx(TIME.iteration_s(0, 0, [(100, 0)]), rel=1e-9)


def test_without_looking_ahead_it_is_sarathi_without_a_watermark() -> None:
    trace = generate(8.0, 400, seed=3)
    one = run(trace, v1(ahead=0))
    other = run(trace, replica("sarathi", watermark=0.0, options={"cap": 32, "chunk": 512}))
    for name in ("scheduled_s", "first_s", "end_s"):
        assert np.array_equal(one.column(name), other.column(name))
    assert run(trace, v1()).ttft_s.mean() > one.ttft_s.mean()


@pytest.mark.parametrize("blocks", [120, 4000])
def test_two_replicas_and_little_memory_end_with_every_request(blocks: int) -> None:
    trace = generate(20.0, 300, seed=5, prompt=("uniform", 300.0), output=("uniform", 100.0))
    spec = v1()
    result = run(trace, spec.with_(kv_blocks=blocks), 2, "least_outstanding")  # type: ignore[attr-defined]
    assert result.counts()["finished"] == 300
    assert (result.column("scheduled_s") <= result.column("first_s")).all()


def test_the_front_end_shifts_every_answer_alike() -> None:
    trace = generate(5.0, 100, seed=1)
    plain = run(trace, v1())
    late = simulate(trace, ClusterSpec([v1().with_(front_end_s=0.01)]))  # type: ignore[attr-defined]
    assert np.allclose(late.ttft_s - plain.ttft_s, 0.01)
    assert np.allclose(late.e2e_s - plain.e2e_s, 0.01)
    assert np.allclose(late.tpot_s, plain.tpot_s)


def test_the_tokenizer_takes_its_time_a_prompt_token() -> None:
    trace = generate(5.0, 100, seed=1)
    plain = run(trace, v1())
    late = simulate(trace, ClusterSpec([v1().with_(front_end_s=0.01, front_end_token_s=1e-5)]))  # type: ignore[attr-defined]
    assert np.allclose(late.ttft_s - plain.ttft_s, 0.01 + 1e-5 * np.array(trace.prompt))
    assert np.allclose(late.tpot_s, plain.tpot_s)


@pytest.mark.parametrize(("model", "slower"), [("qwen3-30b-a3b", True), ("llama-3.2-1b", False)])
def test_experts_of_prompts_are_slower_beyond_the_reading_of_their_weights(model: str, slower: bool) -> None:
    loaded, platform, scenario, _ = resolve(model, "h100", {"efficiency": "datasheet"})
    formats = Formats.of(scenario.weights, None, None)
    plain, slow = (
        from_engine(loaded, platform, scenario, formats, max_batch=8, max_tokens=8192, prompt_experts=k).time
        for k in (1.0, 2.0)
    )
    assert slow.decode_line(4, 4000) == plain.decode_line(4, 4000)
    longer = slow.iteration_s(0, 0, [(8192, 0)]) / plain.iteration_s(0, 0, [(8192, 0)])
    assert (1.05 < longer < 2.0) if slower else longer == 1.0


@pytest.mark.parametrize(("hardware", "limits"), [("h100", LARGE), ("rtx4090", SMALL), ("a100", SMALL)])
def test_limits_that_vllm_takes_by_itself(hardware: str, limits: tuple[int, int]) -> None:
    model, platform, scenario, _ = resolve("llama-3.2-1b", hardware, {"efficiency": "datasheet"})
    formats = Formats.of(scenario.weights, None, None)
    engine = engine_replica(model, platform, scenario, formats, policy="vllm_v1").replica
    assert (engine.options["chunk"], engine.options["cap"]) == limits
    assert engine.front_end_s == FRONT_END_S["vllm_v1"]
    assert engine.watermark == 0.0
    assert (
        engine_replica(model, platform, scenario, formats, policy="vllm_v1", options={"chunk": 99}).replica.options[
            "chunk"
        ]
        == 99
    )
    assert vllm_limits("a100-sxm4-80gb", 80 * 2**30) == SMALL
