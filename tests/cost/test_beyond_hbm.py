"""Flash, phones, cache arrays, CXL, hosts and networks beside a GPU."""

from __future__ import annotations

import pytest

from hwsim.api import compare, evaluate
from hwsim.cost.pim import cycles_per_mac
from hwsim.cost.storage import read_rate
from hwsim.errors import InfeasibleError
from hwsim.schema.loader import load_accelerator


def test_random_reads_approach_the_sequential_rate() -> None:
    flash = load_accelerator("m1-max-with-flash")[0].extra["flash"]
    assert read_rate(8192, flash) == pytest.approx(1.25e9, rel=0.01)
    assert read_rate(16384, flash) == pytest.approx(2.25e9, rel=0.01)
    assert read_rate(1e9, flash) == flash["sequential"]


def test_flash_modes_are_ordered() -> None:
    order = ["naive", "hybrid", "window", "all"]
    times = [float(evaluate("opt-6.7b", "m1-max-with-flash", what_if={"flash.mode": m}).tpot_s) for m in order]
    assert times == sorted(times, reverse=True)
    assert 4 < times[0] / times[-1] < 6


@pytest.mark.parametrize(("shape", "ms"), [("64x2048x2048", 0.9), ("64x2048x8192", 1.5), ("32x4096x11008", 4.1)])
def test_phone_products(shape: str, ms: float) -> None:
    assert float(evaluate(f"gemm:{shape}", "hexagon").latency_s) * 1e3 == pytest.approx(ms, rel=0.15)


def test_a_chunk_more_costs_a_chunk_more() -> None:
    one, two, same = (float(evaluate("qwen1.5-1.8b", "hexagon", prompt=p).ttft_s) for p in (256, 257, 320))
    assert one < two
    assert two == pytest.approx(same, rel=0.01)  # the last chunk holds whole passes of 64 rows


def test_pattern_reuse_saves_what_the_formula_says() -> None:
    section = load_accelerator("sail")[0].extra["pim"]
    with_reuse, without = (cycles_per_mac(4, 4, 1, 4096, {**section, "reuse": r}) for r in (1.0, 0.0))
    # 16 patterns, 8 planes: 19 % repeated; look-ups are 73 % of the work
    assert 1 - with_reuse / without == pytest.approx(0.193 * 0.73, rel=0.02)


def test_batches_share_the_tables() -> None:
    section = load_accelerator("sail")[0].extra["pim"]
    assert cycles_per_mac(4, 4, 8, 4096, section) < cycles_per_mac(4, 4, 1, 4096, section)


def test_tables_that_need_more_rows_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="rows more"):
        evaluate("llama-2-7b", "sail", what_if={"pim.group": 8})


def test_optimizer_time_follows_the_tier() -> None:
    def optimizer(placement: str) -> float:
        result = evaluate("llama-2-7b", "cxl-finetune", what_if={"cxl.placement": placement}, check_fit=False)
        return float(result.document["metrics"]["optimizer_s"]["value"])

    assert optimizer("cxl") / optimizer("dram") == pytest.approx(115 / 29)
    assert optimizer("interleave") == pytest.approx((optimizer("cxl") + optimizer("dram")) / 2)
    assert optimizer("aware") == optimizer("dram")


@pytest.mark.parametrize("hardware", ["m1-max-with-flash", "cxl-finetune", "neoverse-n1-16t", "hexagon"])
def test_long_prompts_and_weights_cost_at_least_their_physics(hardware: str) -> None:
    result = evaluate("opt-1.3b", hardware, prompt=2048, output=2, check_fit=False)
    short = evaluate("opt-1.3b", hardware, prompt=256, output=2, check_fit=False)
    device = load_accelerator(hardware)[0]
    peak = max(float(c.peak_flop_per_s) for c in device.compute)
    assert result.ttft_s >= 2 * 1.2e9 * 2048 / peak * 0.03  # 97 % of the neurons may be idle
    assert result.ttft_s > short.ttft_s
    if hardware != "m1-max-with-flash":
        assert result.tpot_s >= 1.2e9 / float(device.main_memory.read_bytes_per_s) * 0.25  # at 2 bit or more


def test_tokens_that_saturate_a_gpu() -> None:
    metrics = evaluate("mixtral-8x7b", "a40-offload", prompt=98, output=256).document["metrics"]
    assert metrics["saturation_tokens"]["value"] == pytest.approx(149.7e12 / 32e9 * 4, rel=1e-3)
    assert metrics["capacity_factor"]["value"] == pytest.approx(354 / 226)


def test_prices_of_a_split_set_add_up() -> None:
    result = evaluate("llama-33b", "lamina-h100-2xh20", price="2024-lamina-split", check_fit=False)
    assert result.document["metrics"]["set_usd_per_hour"]["value"] == pytest.approx(11.06 + 2 * 4.63)


def test_one_table_of_five_families() -> None:
    names = ["u280", "wse2", "sail-neoverse-n1", "a100", "h100"]
    columns = compare("llama-2-7b", names)["columns"]
    assert len(columns) == 5
    assert all("metrics" in column for column in columns)


def test_one_operator_workloads() -> None:
    result = evaluate("gemv:16384x16384", "wse2", weights="fp16")
    assert result.document["workload"]["parameters"] == 16384**2
    assert float(result.latency_s) == pytest.approx(1.2e-6, rel=0.1)


def finetune(metric: str, **cxl: object) -> float:
    what_if = {f"cxl.{key}": value for key, value in cxl.items()}
    document = evaluate("llama-2-7b", "cxl-finetune", prompt=4096, output=2, what_if=what_if, check_fit=False).document
    return float(document["metrics"][metric]["value"])


def test_an_optimizer_beside_the_pass_shortens_the_step_until_it_blocks_the_dma() -> None:
    apart, beside = (finetune("step_s", placement="aware", overlap=share) for share in (0.0, 1.0))
    assert apart - beside == pytest.approx(finetune("optimizer_s", placement="aware"))
    assert finetune("dma_s", placement="aware", overlap=1.0) == finetune("dma_s", placement="aware")
    assert finetune("dma_s", placement="cxl", overlap=1.0) > finetune("dma_s", placement="cxl")


def test_gpus_share_the_cards_and_more_cards_relieve_them() -> None:
    one, four = (finetune("dma_s", gpus=n) for n in (1, 4))
    assert four == pytest.approx(4 * one)
    assert finetune("dma_s", gpus=4, cards=4) == pytest.approx(6 * 6.74e9 / 29e9, rel=0.01)
