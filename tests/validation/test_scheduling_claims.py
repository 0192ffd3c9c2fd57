"""Claims about schedulers, clusters and overlap: vocabulary, metrics, verdicts of ranges, and what passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.errors import InputError, UnknownNameError
from hwsim.schema.claims import Claim, load_claims, load_system, slug
from hwsim.validation.claim_metrics import predicted
from hwsim.validation.claim_serving import compute_bound, with_argument
from hwsim.validation.claims import judged
from hwsim.validation.vocabulary import _axes, case_of, mixed_context, served

SYSTEMS = ("Sarathi", "Sarathi-Serve", "NanoFlow", "TokenWeave", "Llumnix", "semi-PD", "LLMCompiler", "CacheBlend")


def claim(**changes: Any) -> Claim:
    base = {
        "id": "c", "system": "nanoflow", "claim": "x", "metric": "op_time_estimate", "published_value": 1.0,
        "unit": "ms", "provenance": "table 2", "tolerance_suggested": 0.1, "setup": {"hardware": "8x A100", "tp": 8},
    }  # fmt: skip
    return Claim.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.5], "pass"),
        ([2.1], "fail"),
        ([0.9], "fail"),
        ([1.05, 1.9], "pass"),
        ([1.0, 2.5], "fail"),
        ([0.5, 2], "fail"),
    ],
)
def test_a_published_range_is_held_end_by_end(values: list[float], verdict: str) -> None:
    assert judged(claim(published_value=[1.0, 2.0]), values)["verdict"] == verdict


def test_a_list_of_claims_may_stand_under_one_key(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(
        "claims:\n- {id: a, system: X, claim: b, metric: speedup, published_value: [1, 2], provenance: d,\n"
        "   setup_recalled_unverified: [precision], note: n}\n"
    )
    assert load_claims(path)[0].published_value == [1.0, 2.0]


def test_system_names_are_file_names() -> None:
    assert [slug(n) for n in ("Sarathi-Serve", "FlashDecoding++", "NSA/FSA")] == [
        "sarathi-serve", "flashdecoding++", "nsa-fsa",
    ]  # fmt: skip
    assert load_system("Sarathi-Serve").system == "sarathi-serve"


def test_setups_name_options_of_a_run() -> None:
    assert served({"slo": "P99 TBT 0.2 s", "token_budget": 512}) == {
        "chunk": 512, "capacity": True, "limits": "itl_s_p99=0.2",
    }  # fmt: skip
    assert served({"pd_ratio": 3, "seq_len": 1024}) == {"prompt": 768, "output": 256}


def test_a_mixed_batch_holds_the_cache_of_its_steady_state() -> None:
    # 2048 tokens a step of requests with 512 + 1024: 1365 decode, at 1024 cached tokens on average
    assert 2048 * mixed_context(512, 1024) == pytest.approx(2048 * 1024 / 1536 * 1024)
    rules = load_system("nanoflow")
    point = case_of(claim(setup={"hardware": "8x A100", "tp": 8, "model": "llama-2-70b", "op": "O"}), rules).sides[0][
        0
    ][0]
    assert (point.arguments["batch"], point.arguments["prompt"], point.arguments["output"]) == (2048, 682, 2)


def test_paired_settings_move_together() -> None:
    found = _axes([{"a+b": [[1, 2], [3, 4]]}, {"c": [5, 6]}])
    assert found == [{"a": x, "b": y, "c": z} for x, y in ((1, 2), (3, 4)) for z in (5, 6)]


def test_rules_choose_the_public_function_of_each_side() -> None:
    setup = {"model": "Yi-34B", "hardware": "2x A100-80GB TP2", "slo": "P99 TBT 0.2 s"}
    case = case_of(claim(system="sarathi-serve", metric="capacity_ratio", setup=setup), load_system("sarathi-serve"))
    ours, theirs = (side[0][0] for side in case.sides)
    assert (ours.run, theirs.run) == ("simulate", "simulate")
    assert (ours.arguments["policy"], theirs.arguments["policy"]) == ("sarathi", "vllm")
    different = {k for k in ours.arguments if ours.arguments[k] != theirs.arguments.get(k)}
    assert different == {"policy"}


def test_metrics_with_an_argument() -> None:
    estimate = hwsim.evaluate("llama-3.1-8b", "dgx-h100", tp=8, prompt=256, output=2, efficiency="datasheet").to_dict()
    tasks = {t["name"]: t["time_s"] for t in estimate["phases"][1]["tasks"]}
    assert with_argument("task_time:decode/block.qkv+block.down", [[estimate]]) == [
        tasks["block.qkv"] + tasks["block.down"]
    ]
    assert 1 < with_argument("fused_norm:prefill/block.o_proj.all_reduce+block.norm2", [[estimate]])[0] < 2  # type: ignore[index]
    assert with_argument("speedup", [[estimate]]) is None
    with pytest.raises(InputError, match="no operator"):
        predicted("task_time:decode/block.nothing", [[estimate]])


def test_compute_bound_rate_is_peak_over_twice_the_parameters() -> None:
    document = hwsim.evaluate("llama-2-70b", "dgx-a100", tp=8, efficiency="datasheet").to_dict()
    assert compute_bound(document) == pytest.approx(312e12 / (2 * 68976648192))


def row(system: str, *names: str) -> dict[str, Any]:
    document = hwsim.reproduce(system).to_dict()
    return {r["id"]: r for r in document["rows"] if not names or r["id"] in names}


@pytest.mark.parametrize(("system", "least"), [("nanoflow", 0.6), ("tokenweave", 1.0), ("long-context-deploy", 1.0)])
def test_shipped_overlap_claims_hold(system: str, least: float) -> None:
    assert hwsim.reproduce(system).to_dict()["total"]["pass_rate"] >= least


@pytest.mark.long
def test_shipped_capacity_claims_hold_in_order() -> None:
    rows = row("sarathi-serve")
    assert {r["verdict"] for r in rows.values()} == {"pass"}
    assert rows["yi-34b-strict-orca"]["predicted"] >= rows["yi-34b-strict-vllm"]["predicted"] > 2


def test_more_overlap_never_takes_longer_at_the_published_batch() -> None:
    def makespan(**technique: Any) -> float:
        run = hwsim.timeline("llama-2-70b", "dgx-a100", tp=8, batch=2048, prompt=682, output=2, technique=technique)
        return float(run.to_dict()["makespan_s"])

    kinds, links, split, whole = (
        makespan(parts=2, streams=s) if s else makespan() for s in ("kinds", "links", "device", "")
    )
    assert kinds <= links <= whole <= split  # splitting alone reads the weights twice


def test_tokens_of_one_prompt_split_into_parts() -> None:
    options: dict[str, Any] = {"tp": 8, "batch": 1, "prompt": 4096, "output": 1, "phase": "prefill"}
    split = hwsim.timeline("llama-3.1-70b", "dgx-h100", **options, technique={"parts": 2}).to_dict()
    assert split["critical_path_s"] <= split["makespan_s"] * (1 + 1e-9)
    assert split["makespan_s"] < split["in_turn_s"] <= split["serial_s"]
    with pytest.raises(InputError, match="fewer pieces"):
        hwsim.timeline("llama-3.1-70b", "dgx-h100", tp=8, batch=1, prompt=1, phase="prefill", technique={"parts": 2})


def test_price_lists_by_name() -> None:
    run: dict[str, Any] = {"requests": 5, "efficiency": "datasheet"}
    cheap = hwsim.simulate("llama-2-7b", "a10g", price="2024-melange", **run).to_dict()["metrics"]["cost_usd"]["value"]
    assert cheap > 0
    with pytest.raises(UnknownNameError, match="melange"):
        hwsim.simulate("llama-2-7b", "a10g", price="2024-melnge", **run)


@pytest.mark.long
@pytest.mark.shared
def test_shared_scheduling_claims_hold(shared: Path) -> None:
    document = hwsim.reproduce(*SYSTEMS, claims=shared / "claims" / "claims_b.yaml").to_dict()
    assert document["total"]["pass_rate"] >= 0.6


@pytest.mark.long
@pytest.mark.parametrize("system", ["llumnix", "semi-pd", "sarathi", "llmcompiler", "cacheblend", "melange"])
def test_shipped_cluster_claims_hold(system: str) -> None:
    assert hwsim.reproduce(system).to_dict()["total"]["pass_rate"] == 1.0
