"""Laws of the families beyond the GPU, over models, lengths, batches and formats that no claim names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.api import Evaluation, evaluate
from hwsim.errors import InfeasibleError

BATCH = np.array([1, 2, 7, 16, 64]).reshape(-1, 1)
PROMPT = np.array([1, 17, 128, 511, 512, 2048, 8192, 32768]).reshape(1, -1)
FAMILIES = {
    "u280": {},
    "vhk158": {},
    "stratix10-d5005": {},
    "wse2": {"mesh.layer_scaled": True},
    "sail-neoverse-n1": {},
    "neoverse-n1-16t": {},
    "hexagon-8gen3": {},
    "m1-max-with-flash": {},
    "rtx4090-flash": {},
    "a40-offload": {},
    "lamina-h100-2xh20": {},
    "cxl-finetune-host": {},
}
MODELS = ("opt-6.7b", "llama-3-8b", "qwen2-72b", "gemma-2b", "mixtral-8x7b", "mistral-7b", "gpt-oss-20b")


def ask(model: str, hardware: str, what_if: dict[str, Any] | None = None, **options: Any) -> Evaluation:
    return evaluate(model, hardware, what_if=what_if or None, check_fit=False, **options)


def grid_of(model: str, hardware: str) -> Evaluation:
    return ask(model, hardware, FAMILIES[hardware], batch=BATCH, prompt=PROMPT, output=128)


def values(result: Evaluation, metric: str) -> np.ndarray:
    return np.broadcast_to(np.asarray(result.estimate.metrics[metric].value, float), (BATCH.size, PROMPT.size))


def metric(result: Evaluation, name: str) -> float:
    return float(np.asarray(result.estimate.metrics[name].value))


def grows(found: np.ndarray) -> bool:
    slack = 1 - 1e-9
    return bool(np.all(found[1:] >= found[:-1] * slack) and np.all(found[:, 1:] >= found[:, :-1] * slack))


@pytest.mark.parametrize("hardware", FAMILIES)
@pytest.mark.parametrize("model", MODELS)
def test_more_work_takes_longer_and_no_rate_is_exceeded(model: str, hardware: str) -> None:
    result = grid_of(model, hardware)
    for name in ("ttft_s", "tpot_s"):
        found = values(result, name)
        assert np.all(np.isfinite(found)) and np.all(found > 0)
        assert grows(found), name
    step = values(result, "tpot_s")
    doubled = np.array([2, 3.5, 16 / 7, 4]).reshape(-1, 1)  # growth of the batch from row to row
    assert np.all(step[1:] <= step[:-1] * doubled * 1.1)  # a batch never costs more than its sequences apart
    for name in ("mfu", "mbu"):
        assert np.all(values(result, name) <= 1 + 1e-9), name


@pytest.mark.parametrize("hardware", FAMILIES)
def test_energy_covers_what_idling_takes(hardware: str) -> None:
    result = grid_of("llama-2-7b", hardware)
    idle = float(np.max(result.estimate.platform.device.power.idle_w))
    assert np.all(values(result, "average_power_w") >= idle * (1 - 1e-9))
    assert np.all(values(result, "average_power_w") <= 4 * float(np.max(result.estimate.platform.device.power.tdp_w)))


@pytest.mark.parametrize("hardware", FAMILIES)
def test_a_grid_equals_its_points(hardware: str) -> None:
    whole = grid_of("mixtral-8x7b", hardware)
    for i, j in ((0, 1), (2, 4), (4, 6)):
        point = ask("mixtral-8x7b", hardware, FAMILIES[hardware], batch=int(BATCH[i, 0]), prompt=int(PROMPT[0, j]))
        for name in ("ttft_s", "tpot_s", "energy_j_per_token"):
            assert metric(point, name) == pytest.approx(values(whole, name)[i, j], rel=1e-9), name


@pytest.mark.parametrize(
    ("hardware", "memory"),
    [("u280", "hbm"), ("vhk158", "hbm"), ("sail-neoverse-n1", "ddr"), ("neoverse-n1-16t", "ddr"), ("d5005", "ddr")],
)
def test_tokens_times_bytes_stay_under_the_memory_rate_and_faster_memory_helps(hardware: str, memory: str) -> None:
    plain = ask("llama-2-13b", hardware, prompt=1500, output=64)
    rate = float(plain.estimate.platform.device.main_memory.read_bytes_per_s)
    bits = min(w.format.bits for t in plain.estimate.phases[1].timeline.graph.tasks for w in t.operator.weights)
    assert 12.9e9 * bits / 8 * 0.6 / metric(plain, "tpot_s") < rate  # at least 60 % of the weights are kept
    times = [
        metric(ask("llama-2-13b", hardware, {f"memories.{memory}.read": rate * x}), "tpot_s") for x in (0.5, 1, 2, 8)
    ]
    assert times == sorted(times, reverse=True)


def test_sparse_chains_gain_their_density_and_fewer_bits_never_cost() -> None:
    def step(density: float, weights: str = "int8", chain: str = "sparse") -> float:
        what_if = {"fpga.density": density, "fpga.qk_density": density, "fpga.chain": chain}
        return metric(ask("opt-6.7b", "u280", what_if, weights=weights, prompt=300), "tpot_s")

    dense, half = step(1.0), step(0.5)
    assert 0.5 * dense < half < 0.62 * dense  # cache, head and vector work stay
    assert step(0.5, "int3-g128", chain="fixed") > step(0.5, "int3-g128")  # where the chains bind, not the memory
    by_bits = [step(1.0, f"int{b}-g128") for b in (3, 4, 5, 6, 8)]
    assert by_bits == sorted(by_bits)


@pytest.mark.parametrize("hardware", ["u280", "sail-neoverse-n1", "hexagon", "neoverse-n1-16t", "a40-offload"])
def test_experts_cost_at_least_the_weights_that_are_read(hardware: str) -> None:
    result = ask("mixtral-8x7b", hardware, prompt=128, output=64)
    graph = result.estimate.phases[1].timeline.graph
    experts = next(t for t in graph.tasks if t.kind == "moe")
    stored = sum(float(w.stored_bytes) * float(w.touched) for w in experts.operator.weights) * experts.count
    assert metric(result, "tpot_s") >= stored / float(graph.platform.device.main_memory.read_bytes_per_s)


def wafer(model: str, phase: str, side: int, **more: Any) -> float:
    what_if = {f"mesh.{phase}_grid": side, "mesh.layer_scaled": True, **more}
    length = {"prompt": 4095, "output": 2} if phase == "decode" else {"prompt": 4096, "output": 2}
    return metric(ask(model, "wse2", what_if, **length), "tpot_s" if phase == "decode" else "ttft_s")


@pytest.mark.parametrize("model", ["llama-3-8b", "llama-2-13b", "codellama-34b", "qwen2-72b", "opt-6.7b"])
def test_more_cores_help_prompts_and_past_the_best_side_hurt_decoding(model: str) -> None:
    prompts = [wafer(model, "prefill", p) for p in (240, 360, 480, 720)]
    steps = [wafer(model, "decode", p) for p in range(60, 901, 60)]
    best = int(np.argmin(steps))
    assert prompts == sorted(prompts, reverse=True)
    assert 0 < best < len(steps) - 1
    assert all(b > a * 0.97 for a, b in zip(steps[best:], steps[best + 1 :], strict=False))  # padding makes small dents
    assert wafer(model, "decode", 0) == pytest.approx(min(steps), rel=1e-9)  # the mapper's choice


def test_wafer_schemes_are_ordered() -> None:
    def product(size: int, scheme: str) -> float:
        result = ask(f"gemm:{size}x{size}x{size}", "wse2", {"mesh.scheme": scheme, "mesh.prefill_grid": 720})
        return metric(result, "latency_s")

    for size in (2048, 4096, 8192, 16384, 32768):
        mesh, cannon, summa = (product(size, s) for s in ("mesh", "cannon", "summa"))
        assert mesh < cannon < summa
    vectors = [
        metric(ask("gemv:16384x16384", "wse2", {"mesh.scheme": s, "mesh.prefill_grid": 720}), "latency_s")
        for s in ("mesh", "pipeline", "ring", "t10", "ladder")
    ]
    assert vectors[0] == min(vectors) and vectors[-1] == max(vectors)


def test_prompts_on_the_wafer_have_no_step_at_the_side_of_the_square() -> None:
    times = [metric(ask("llama-2-7b", "wse2", prompt=p, output=2), "ttft_s") for p in (640, 719, 721, 800)]
    assert times == sorted(times)
    assert times[-1] < 1.4 * times[0]


def test_expanding_narrow_weights_costs_cycles() -> None:
    wide = metric(ask("llama-2-7b", "wse2", weights="fp16"), "tpot_s")
    narrow = metric(ask("llama-2-7b", "wse2", {"mesh.unpack": 1}, weights="int8"), "tpot_s")
    assert narrow > wide


def test_flash_reads_grow_to_the_whole_layer_and_never_past_it() -> None:
    def read(batch: int, **flash: Any) -> float:
        what_if = {f"flash.{k}": v for k, v in flash.items()}
        return metric(ask("opt-6.7b", "m1-max-with-flash", what_if, batch=batch, prompt=64), "flash_time_s")

    found = [read(b) for b in (1, 2, 4, 16, 64, 1024)]
    assert found == sorted(found)
    ffn = 2 * 32 * 4096 * 16384 * 2
    assert found[-1] == pytest.approx(ffn / 6.1e9, rel=0.01)
    assert read(1, mode="all") < read(1, mode="window") < read(1, mode="hybrid") < read(1, mode="naive")
    assert read(1, sparsity=0.99) < read(1, sparsity=0.9)
    assert read(1, mode="hybrid", resident=0.8) < read(1, mode="hybrid", resident=0.5)
    assert read(1, mode="naive", resident=0.8) == read(1, mode="naive", resident=0.5)


@pytest.mark.parametrize("model", ["qwen1.5-1.8b", "phi-2", "llama-2-13b"])
def test_phones_share_weights_in_a_batch_and_slow_down_on_long_prompts(model: str) -> None:
    steps = [metric(ask(model, "hexagon", batch=b, prompt=64), "tpot_s") for b in (1, 2, 32)]
    assert steps[1] < 1.5 * steps[0]
    assert steps[2] < 32 * steps[0]
    per_token = [metric(ask(model, "hexagon", prompt=p), "ttft_s") / p for p in (256, 1024, 4096, 32768)]
    assert per_token[0] > per_token[1]  # the weights are brought in once
    assert per_token[3] > per_token[2]  # attention


def test_a_hosted_pass_lasts_as_long_as_its_slowest_part() -> None:
    for batch, prompt in ((1, 64), (4000, 98), (20000, 512)):
        result = ask("mixtral-8x7b", "a40-offload", batch=batch, prompt=prompt, output=64)
        step = result.estimate.phases[1].timeline
        assert float(np.asarray(step.time_s)) == pytest.approx(max(float(np.asarray(v)) for v in step.busy_s.values()))


def test_more_cache_on_the_host_never_lowers_the_rate() -> None:
    def rate(size: str) -> float:
        result = ask("dbrx", "a40-offload", {"offload.kv_memory": size}, prompt=98, output=64)
        return metric(result, "host_tokens_per_s")

    rates = [rate(f"{size} GB") for size in (20, 70, 140, 210, 400)]
    assert all(b >= a * (1 - 1e-9) for a, b in zip(rates, rates[1:], strict=False))
    assert rate("70 GB") > 3 * rate("20 GB")  # the weights bind: the rate follows the requests


def test_tiers_and_cards_of_a_fine_tuning_host() -> None:
    def step(placement: str, **cxl: Any) -> float:
        what_if = {"cxl.placement": placement, **{f"cxl.{k}": v for k, v in cxl.items()}}
        return metric(ask("mistral-nemo-12b", "cxl-finetune", what_if, prompt=8192, output=2), "step_s")

    assert step("aware") <= step("interleave") <= step("cxl")
    by_cards = [step("interleave", cards=c, gpus=2) for c in (1, 2, 3, 4)]
    assert by_cards == sorted(by_cards, reverse=True)
    by_rate = [step("cxl", card=f"{r} GB/s") for r in (20, 30, 60)]
    assert by_rate == sorted(by_rate, reverse=True)
    assert step("aware", gpus=2) >= step("aware", gpus=1)


def test_attention_pools_speed_up_with_their_devices_and_network() -> None:
    def step(**split: Any) -> float:
        what_if = {f"split.{k}": v for k, v in split.items()}
        return metric(ask("llama-33b", "lamina-h100-2xh20", what_if, batch=64, prompt=4096), "tpot_s")

    by_devices = [step(devices=n) for n in (1, 2, 4, 8)]
    assert by_devices == sorted(by_devices, reverse=True)
    assert step(round_trip="66 us") > step(round_trip="33 us")
    assert step(network="10 GB/s") > step(network="45.7 GB/s")
    assert step(overlap=False) >= step(overlap=True)


REFUSED = [
    ("llama-2-7b", "u280", {"fpga.mm_macs": 9000}, {}, "DSP slices more"),
    ("llama-2-7b", "u280", {"fpga.engines": 6}, {}, "DSP slices more"),
    ("llama-2-7b", "u280", {"fpga.density": 0.05}, {}, "fewer than one weight of a group"),
    ("llama-2-7b", "d5005", {"fpga.density": 0.5}, {}, "no N:M pattern"),
    ("llama-2-7b", "u280", {}, {"weights": "fp16"}, "8 bit too many"),
    ("llama-2-7b", "u280", {}, {"weights": "int2-g128"}, "no 2-bit weight path"),
    ("llama-2-7b", "d5005", {}, {"weights": "int4"}, "no 4-bit weight path"),
    ("llama-2-7b", "u280", {}, {"batch": 2000, "prompt": 16}, "more block memory"),
    ("llama-2-7b", "u280", {}, {"batch": 64, "prompt": 2048}, "too much on each device"),
    ("llama-2-70b", "vhk158", {}, {}, "too much on each device"),
    ("llama-2-7b", "wse2", {"mesh.decode_grid": 60}, {}, "B more than a core"),
    ("llama-2-13b", "wse2", {}, {"prompt": 32768}, "B more than a core"),
    ("llama-2-7b", "wse2", {"mesh.kv": "concat"}, {"prompt": 4096}, "B more than a core"),
    ("llama-2-7b", "wse2", {"mesh.prefill_grid": 1000}, {}, "cores more"),
    ("llama-2-7b", "wse2", {"mesh.tree": 40}, {}, "routes more"),
    ("llama-2-7b", "wse2", {}, {"weights": "int4"}, "no 4-bit path"),
    ("llama-2-7b", "hexagon", {}, {"weights": "int4"}, "no 4-bit path"),
    ("llama-2-7b", "sail", {"pim.group": 8}, {}, "rows more"),
    ("llama-2-7b", "m1-max-with-flash", {"flash.resident": 0.1}, {}, "each token needs"),
    ("llama-2-7b", "a40-offload", {"offload.host_memory": "8 GB"}, {}, "more than the host"),
    ("llama-33b", "lamina-h100-2xh20", {}, {"batch": 500, "prompt": 8192}, "more than the memory devices"),
]


@pytest.mark.parametrize(("model", "hardware", "what_if", "options", "words"), REFUSED)
def test_what_cannot_be_built_is_refused_with_what_is_missing(
    model: str, hardware: str, what_if: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InfeasibleError, match=words) as caught:
        evaluate(model, hardware, what_if=what_if or None, **options)
    assert caught.value.exit_code == 3
    assert caught.value.fix and caught.value.budget


@pytest.mark.parametrize("hardware", ["u280", "vhk158", "d5005", "m1-max-with-flash", "wse2"])
def test_several_devices_pay_for_what_they_exchange(hardware: str) -> None:
    one, two = (ask("llama-2-7b", hardware, FAMILIES.get(hardware), tp=n, prompt=512) for n in (1, 2))
    document = two.document["phases"][1]
    exchanged = sum(t["time_s"] * t["count"] for t in document["tasks"] if t["kind"] == "collective")
    assert exchanged > 0
    assert metric(two, "tpot_s") > metric(one, "tpot_s") / 2


@pytest.mark.parametrize("hardware", ["sail-neoverse-n1", "neoverse-n1-16t", "hexagon-8gen3"])
def test_devices_without_links_do_not_team_up(hardware: str) -> None:
    with pytest.raises(InfeasibleError, match="no link to other devices"):
        ask("llama-2-7b", hardware, tp=2)


@pytest.mark.parametrize(
    ("hardware", "weights"), [("u280", "int3-g128"), ("u280", "int8"), ("vhk158", "int4"), ("d5005", "ternary")]
)
def test_the_bare_roofline_is_never_slower_than_the_overlay(hardware: str, weights: str) -> None:
    laws, bare = (ask("opt-6.7b", hardware, weights=weights, efficiency=e) for e in ("calibrated", "datasheet"))
    assert metric(bare, "tpot_s") <= metric(laws, "tpot_s")


def test_the_overlay_mapper_takes_experts_and_never_slows_them() -> None:
    plain, mapped = (ask("gpt-oss-20b", "vhk158", prompt=300, mapper=m) for m in ("roofline", "fpga"))
    assert metric(mapped, "ttft_s") <= metric(plain, "ttft_s")
    assert metric(mapped, "tpot_s") <= metric(plain, "tpot_s") * (1 + 1e-9)
