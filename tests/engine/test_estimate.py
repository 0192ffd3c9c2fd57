"""The engine as a whole: closed forms, the published peers' table, laws, and arrays = scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.api import vary
from hwsim.errors import HwsimError, InfeasibleError, InputError
from hwsim.schema.loader import load_accelerator

A100 = "a100-sxm4-80gb"
PEAK, BANDWIDTH = 312e12, 2.039e12
# Style table 3.1: llama-2-7b on A100-80GB, fp16, 1,024 context; closed form max(FLOP/peak, bytes/bandwidth) in ms.
CLOSED_FORM_MS = {("ttft_s", 1): 45.1, ("tpot_s", 1): 6.74, ("ttft_s", 32): 1444.0, ("tpot_s", 32): 14.9}


def datasheet(workload: str = "llama-2-7b", hardware: Any = A100, **scenario: Any) -> Any:
    return hwsim.evaluate(workload, hardware, efficiency="datasheet", check_fit=False, **scenario)


@pytest.mark.parametrize(("metric", "batch"), CLOSED_FORM_MS)
def test_within_two_percent_of_the_closed_form_where_the_peers_agree(metric: str, batch: int) -> None:
    result = datasheet(batch=batch, prompt=1024, output=1)
    assert result.estimate.metrics[metric].value * 1e3 == pytest.approx(CLOSED_FORM_MS[metric, batch], rel=0.02)


def test_decode_is_the_hand_derived_sum() -> None:
    """Weights without the input table + KV cache of 1,025 tokens + one row of it, over the bandwidth."""
    weights = 2 * (6_738_415_616 - 32000 * 4096)
    moved = weights + 1025 * 524_288 + 524_288
    result = datasheet(prompt=1024, output=1)
    assert result.tpot_s == pytest.approx(moved / BANDWIDTH, rel=1e-3)


def test_causal_prefill_is_the_hand_derived_sum() -> None:
    s, layers, d = 1024, 32, 4096
    matrices = 2 * s * (6_738_415_616 - 2 * 32000 * 4096 - (2 * layers + 1) * d)
    attention = 4 * d * layers * s * (s + 1) // 2
    head = 2 * 32000 * 4096
    flop = sum(t["flop"] for t in datasheet(prompt=s).document["phases"][0]["tasks"] if t["unit"] == "tensor")
    assert flop == matrices + attention + head


@pytest.mark.parametrize(
    ("model", "kv_bytes"), [("deepseek-v3", 70_272), ("qwen2.5-72b", 327_680), ("llama-3.1-405b", 516_096)]
)
def test_kv_bytes_per_token_are_exact(model: str, kv_bytes: int) -> None:
    one = datasheet(model, prompt=100, output=1).document["memory"]["kv_cache_bytes"]
    two = datasheet(model, prompt=101, output=1).document["memory"]["kv_cache_bytes"]
    assert two - one == kv_bytes


SCENARIO = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 300),
        "prompt": st.integers(1, 9000),
        "output": st.integers(1, 2000),
        "tp": st.sampled_from([1, 2, 4, 8]),
    }
)
MODELS = st.sampled_from(
    ["llama-2-7b", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v3", "gpt2-xl", "falcon-7b", "gpt-oss-20b"]
)
DEVICES = st.sampled_from([A100, "h100-sxm", "t4", "mi300x", "tpu-v5e", "xeon-8380", "b200-sxm"])


def values(result: Any) -> dict[str, float]:
    return {name: float(metric.value) for name, metric in result.estimate.metrics.items()}


@settings(max_examples=60)
@given(MODELS, DEVICES, SCENARIO, st.sampled_from(["datasheet", "calibrated"]))
def test_law_1_bracket_on_random_points(model: str, device: str, scenario: dict[str, int], efficiency: str) -> None:
    """LAW-1 is asserted inside the engine on every task, phase and metric; a violation raises."""
    try:
        result = hwsim.evaluate(model, device, efficiency=efficiency, check_fit=False, **scenario)
    except InfeasibleError:
        return
    for metric in result.estimate.metrics.values():
        assert np.isfinite(metric.value) and metric.value > 0


@settings(max_examples=40)
@given(MODELS, SCENARIO, st.sampled_from(["batch", "prompt", "output"]), st.integers(1, 500))
def test_law_2_more_work_takes_no_less_time(model: str, scenario: dict[str, int], knob: str, more: int) -> None:
    try:
        small = datasheet(model, **scenario)
        large = datasheet(model, **{**scenario, knob: scenario[knob] + more})
    except InfeasibleError:
        return
    assert large.latency_s >= small.latency_s * (1 - 1e-12)


@settings(max_examples=40)
@given(
    MODELS,
    SCENARIO,
    st.sampled_from(["memories.hbm.read", "compute.tensor.bf16.peak", "links.nvlink.bandwidth"]),
    st.floats(1, 8),
    st.sampled_from(["datasheet", "calibrated"]),
)
def test_law_2_a_better_machine_takes_no_more_time(
    model: str, scenario: dict[str, int], path: str, factor: float, efficiency: str
) -> None:
    device, _ = load_accelerator(A100)
    base = {"memories.hbm.read": BANDWIDTH, "compute.tensor.bf16.peak": PEAK, "links.nvlink.bandwidth": 300e9}[path]
    try:
        slow = hwsim.evaluate(model, device, check_fit=False, efficiency=efficiency, **scenario)
        fast = hwsim.evaluate(
            model, device, check_fit=False, efficiency=efficiency, what_if={path: base * factor}, **scenario
        )
    except InfeasibleError:
        return
    assert fast.latency_s <= slow.latency_s * (1 + 1e-9)


@settings(max_examples=15)
@given(MODELS, st.sampled_from([A100, "h100-sxm", "tpu-v5e"]), st.data(), st.sampled_from(["datasheet", "calibrated"]))
def test_law_8_arrays_equal_scalars(model: str, device: str, data: st.DataObject, efficiency: str) -> None:
    """A grid is the scalar path point by point, to 1e-12."""
    points = data.draw(
        st.lists(st.tuples(st.integers(1, 64), st.integers(1, 4000), st.integers(1, 500)), min_size=2, max_size=5)
    )
    batch, prompt, output = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    grid = hwsim.evaluate(
        model, device, batch=batch, prompt=prompt, output=output, check_fit=False, efficiency=efficiency
    )
    for index, (b, p, o) in enumerate(points):
        point = hwsim.evaluate(model, device, batch=b, prompt=p, output=o, check_fit=False, efficiency=efficiency)
        for name, metric in point.estimate.metrics.items():
            for end in ("value", "low", "high", "floor", "ceiling"):
                scalar, array = getattr(metric, end), getattr(grid.estimate.metrics[name], end)
                if scalar is not None:
                    assert np.broadcast_to(array, batch.shape)[index] == pytest.approx(float(scalar), rel=1e-12), (
                        name,
                        end,
                    )


def test_law_3_operations_of_tasks_are_those_of_the_graph() -> None:
    from hwsim.frontends.catalog import load_model
    from hwsim.frontends.formats import Formats
    from hwsim.ir.mapped import Mapping
    from hwsim.ir.platform import Platform
    from hwsim.mapping.lower import lower

    device, _ = load_accelerator(A100)
    for name in ("llama-2-7b", "mixtral-8x7b", "deepseek-v3", "opt-13b", "gpt-neox-20b"):
        graph = load_model(name).graph("prefill", 3, 257, 0, Formats.of("bf16"))
        whole = lower(graph, Platform("x", device, 8, 8, device.links[0]), Mapping())
        assert sum(t.flop[t.operator.dtype] * t.count for t in whole.tasks) == graph.flop
        for ranks in (2, 4, 8):
            split = lower(graph, Platform("x", device, 8, 8, device.links[0]), Mapping(tensor_parallel=ranks))
            sharded = sum(t.operator.flop * t.count for t in split.tasks if t.operator.shard not in ("replicated",))
            whole_sharded = sum(
                t.operator.flop * t.count for t in whole.tasks if t.operator.shard not in ("replicated",)
            )
            assert sharded * ranks == pytest.approx(whole_sharded, rel=1e-12), (name, ranks)


def test_law_4_energy_and_money_add_up() -> None:
    result = datasheet(batch=4, prompt=300, output=100, tp=2)
    phases, scenario = result.estimate.phases, result.document["scenario"]
    device = result.estimate.platform.device
    tokens = scenario["batch"] * scenario["output_tokens"]
    total = phases[0].energy_j + 99 * phases[1].energy_j
    assert result.energy_j_per_token * tokens == pytest.approx(total, rel=1e-12)
    for phase in phases:
        dynamic = sum(i.cost.energy_j * i.task.count for i in phase.timeline.intervals) * 2
        assert phase.energy_j == pytest.approx(dynamic + 2 * device.power.idle_w * phase.span.value, rel=1e-12)
    price = result.estimate.platform.price
    bill = 2 * price.rate_usd_per_s * result.latency_s + price.energy_usd_per_j * total
    assert result.cost_usd_per_mtok * tokens / 1e6 == pytest.approx(bill, rel=1e-12)


def test_sharded_weights_and_caches_sum_to_the_whole() -> None:
    one = datasheet("llama-3.1-70b", tp=1, batch=8).document["memory"]
    for ranks in (2, 4, 8):
        shard = datasheet("llama-3.1-70b", tp=ranks, batch=8).document["memory"]
        assert shard["kv_cache_bytes"] * ranks == pytest.approx(one["kv_cache_bytes"], rel=1e-12)
        assert shard["weights_bytes"] * ranks == pytest.approx(one["weights_bytes"], rel=2e-3)  # norms are replicated
    sixteen = datasheet("llama-3.1-70b", "dgx-h100", tp=8, pp=1, batch=8).document["memory"]
    assert sixteen["weights_bytes"] == datasheet("llama-3.1-70b", tp=8, batch=8).document["memory"]["weights_bytes"]


def test_more_ranks_than_kv_heads_replicate_the_cache() -> None:
    eight = datasheet("llama-3.1-8b", tp=8).document["memory"]["kv_cache_bytes"]
    sixteen = datasheet("llama-3.1-8b", "dgx-a100-x2", tp=16).document["memory"]["kv_cache_bytes"]
    assert sixteen == eight


def test_does_not_fit_names_the_budget() -> None:
    with pytest.raises(InfeasibleError) as caught:
        hwsim.evaluate("llama-2-70b", A100)
    error = caught.value
    assert error.exit_code == 3 and "GiB too much" in error.what and "weights" in error.seen
    assert error.budget["short_bytes"] == pytest.approx(
        error.budget["weights_bytes"]
        + error.budget["kv_cache_bytes"]
        + error.budget["activations_bytes"]
        - error.budget["usable_bytes"]
    )


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    for prompt, output in ((512, 128), (4000, 100), (20_000, 1)):
        most = datasheet(prompt=prompt, output=output).document["memory"]["max_batch"]
        assert most >= 1
        assert datasheet(batch=most, prompt=prompt, output=output).document["memory"]["fits"]
        assert not datasheet(batch=most + 1, prompt=prompt, output=output).document["memory"]["fits"]


@pytest.mark.parametrize(
    ("scenario", "key"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": -3}, "batch"),
        ({"prompt": 0}, "prompt_tokens"),
        ({"output": float("nan")}, "output_tokens"),
        ({"output": float("inf")}, "output_tokens"),
        ({"batch": "8"}, "batch"),
        ({"tp": 0}, "tp"),
        ({"dp": 1.5}, "dp must be a whole number"),
        ({"memory_fraction": 1.5}, "memory_fraction"),
        ({"weights": "bf61"}, "weights"),
        ({"efficiency": "perfect"}, ""),
        ({"quantum": 3}, ""),
    ],
)
def test_impossible_scenarios_are_input_errors(scenario: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        hwsim.evaluate("llama-2-7b", A100, **scenario)
    assert caught.value.exit_code == 2 and key in caught.value.render()


def test_degrees_that_do_not_divide_are_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="n_heads|equally"):
        datasheet(tp=3)


def test_what_if_paths() -> None:
    device, _ = load_accelerator(A100)
    assert vary(device, {"memories.hbm.read": "3 TB/s"}).main_memory.read_bytes_per_s == 3e12
    assert vary(device, {"power.idle": 10.0}).power.idle_w == 10.0
    for path, value in (
        ("memories.hbn.read", "3 TB/s"),
        ("memory.hbm.read", 1.0),
        ("memories.hbm.read", "3"),
        ("x", 1.0),
    ):
        with pytest.raises(HwsimError) as caught:
            vary(device, {path: value})
        assert caught.value.exit_code == 2


def test_a_pipeline_does_not_shorten_one_request_but_serves_more() -> None:
    one = datasheet("llama-3.1-70b", "dgx-h100", tp=4, batch=64, prompt=512, output=64)
    staged = datasheet("llama-3.1-70b", "dgx-h100", tp=4, pp=2, batch=64, prompt=512, output=64)
    alone = datasheet("llama-3.1-70b", "dgx-h100", tp=4, pp=2, batch=1, prompt=512, output=64)
    single = datasheet("llama-3.1-70b", "dgx-h100", tp=4, batch=1, prompt=512, output=64)
    assert alone.tpot_s >= single.tpot_s
    assert staged.document["memory"]["weights_bytes"] < one.document["memory"]["weights_bytes"] * 0.56


@pytest.mark.parametrize("scenario", [{}, {"tp": 4, "batch": 16}, {"efficiency": "datasheet", "batch": 3}])
def test_law_8_both_engines_agree_where_nothing_contends(scenario: dict[str, Any]) -> None:
    for model in ("llama-2-7b", "mixtral-8x7b", "bert-base"):
        analytic = hwsim.evaluate(model, "dgx-h100", check_fit=False, **scenario)
        events = hwsim.evaluate(model, "dgx-h100", check_fit=False, engine="des", **scenario)
        for name, metric in analytic.estimate.metrics.items():
            assert events.estimate.metrics[name].value == pytest.approx(metric.value, rel=1e-9), (model, name)
