"""Published claims: verdicts, vocabulary, and the shipped files as a whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwsim.api import evaluate
from hwsim.cli.main import run
from hwsim.errors import InputError, LawViolation, UnknownNameError
from hwsim.report.claims import page, table
from hwsim.schema.claims import Claim, load_claims, load_system, systems
from hwsim.validation import claims
from hwsim.validation.claims import _Asker, judged, reproduce, select
from hwsim.validation.vocabulary import Point, case_of, number


def claim(**changes: Any) -> Claim:
    base = {
        "id": "c",
        "system": "flightllm",
        "claim": "x",
        "metric": "token_time",
        "published_value": 10.0,
        "unit": "ms",
        "provenance": "table 1",
        "tolerance_suggested": 0.1,
        "setup": {"hardware": "vhk158"},
    }
    return Claim.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("values", "unit", "verdict"),
    [
        ([10.9], "ms", "pass"),
        ([11.1], "ms", "fail"),
        ([3.0], "ms (upper bound)", "pass"),
        ([11.1], "ms (upper bound)", "fail"),
        ([30.0], "ms (lower bound)", "pass"),
        ([8.0], "ms (lower bound)", "fail"),
        ([5.0, 20.0], "ms", "in band"),
        ([20.0, 30.0], "ms", "fail"),
    ],
)
def test_verdicts(values: list[float], unit: str, verdict: str) -> None:
    assert judged(claim(unit=unit), values)["verdict"] == verdict


def test_a_band_gives_no_point() -> None:
    assert "predicted" not in judged(claim(), [5.0, 20.0])


def test_recalled_claims_are_never_evidence() -> None:
    rows = reproduce([claim(provenance="recalled, unverified")], {}, evaluate)["rows"]
    assert rows[0]["verdict"] == "not evidence"


def test_what_only_the_data_set_can_score_is_not_counted() -> None:
    chosen, files = select(["wa-hls4ml"])
    total = reproduce(chosen, files, evaluate)["total"]
    assert total["needs data"] == len(chosen)
    assert total["scored"] == 0


def test_an_unknown_setup_is_a_miss_that_says_so() -> None:
    strange = claim(setup={"hardware": "abacus"})
    row = reproduce([strange], {"flightllm": load_system("flightllm")}, evaluate)["rows"][0]
    assert row["verdict"] == "unmapped"
    assert "no rule" in row["reason"]


def test_setup_keys_drive_the_scenario() -> None:
    rules = load_system("waferllm")
    setup = {"model": "llama-3-8b", "hardware": "wse2, T10 port", "cores": "420x420", "context_len": 2048, "batch": 3}
    point = case_of(claim(system="waferllm", setup={**setup, "phase": "decode"}), rules).sides[0][0][0]
    assert (point.workload, point.hardware) == ("llama-3-8b", "wse2")
    assert (point.arguments["prompt"], point.arguments["output"], point.arguments["batch"]) == (2047, 2, 3)
    assert point.what_if["mesh.decode_grid"] == 420
    assert point.what_if["mesh.scheme"] == "t10"


def test_two_sides_are_two_machines() -> None:
    case = case_of(claim(setup={"hardware": "u280 vs v100s_pcie"}, metric="throughput_ratio"), load_system("flightllm"))
    assert [side[0][0].hardware for side in case.sides] == ["u280", "v100s-pcie-32gb"]


@pytest.mark.parametrize(("text", "value"), [("1451-1672", 1561.5), (" 64 ", 64), ("4K", 4096), (7, 7), ("x", None)])
def test_lengths(text: Any, value: float | None) -> None:
    assert number(text) == value


def test_equal_scenarios_run_once() -> None:
    calls: list[str] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[1])
        return SimpleNamespace(to_dict=lambda: {"metrics": {"tpot_s": {"value": 0.01}}})

    rules = {"flightllm": load_system("flightllm")}
    rows = reproduce([claim(), claim(id="d", published_value=20.0)], rules, counting)["rows"]
    assert calls == ["vhk158"]
    assert [r["verdict"] for r in rows] == ["pass", "fail"]


def test_every_shipped_system_loads_and_every_claim_cites() -> None:
    assert len(systems()) >= 11
    for name in systems():
        file = load_system(name)
        assert file.system == name
        assert file.claims
        assert len({c.id for c in file.claims}) == len(file.claims)


def test_a_rule_takes_a_value_from_the_setup() -> None:
    setup = {"model": "gemma-2b", "hardware": "Snapdragon 8 Gen 3", "pruned": 0.35}
    point = case_of(claim(system="llm-npu", setup=setup, metric="prefill_throughput"), load_system("llm-npu")).sides[0]
    assert point[0][0].what_if["phone.pruned"] == 0.35


def test_unknown_systems_propose_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="flightllm"):
        load_system("flightlm")


def test_a_malformed_list_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("- {id: a, claim: b, metric: c, unit: ms, provenance: d}\n")
    with pytest.raises(InputError, match="claim 1"):
        load_claims(path)


@pytest.mark.parametrize(("system", "least"), [("flightllm", 0.8), ("waferllm", 0.9), ("llm-in-a-flash", 0.85)])
def test_shipped_claims_hold(system: str, least: float) -> None:
    chosen, files = select([system])
    assert reproduce(chosen, files, evaluate)["total"]["pass_rate"] >= least


@pytest.mark.shared
@pytest.mark.parametrize(
    ("system", "least"),
    [
        ("flightllm", 0.85),
        ("waferllm", 0.84),
        ("llm-in-a-flash", 0.9),
        ("llm-npu", 0.9),
        ("moe-lens", 0.9),
        ("lamina", 0.85),
        ("cxl-finetune", 1.0),
        ("sail", 1.0),
    ],
)
def test_shared_claims_hold(shared: Path, system: str, least: float) -> None:
    chosen, files = select([system], shared / "claims" / "claims_a.yaml")
    assert reproduce(chosen, files, evaluate)["total"]["pass_rate"] >= least


def test_progress_is_told_claim_by_claim() -> None:
    told: list[str] = []
    chosen, files = select(["wa-hls4ml"])
    reproduce(chosen, files, evaluate, note=told.append)
    assert len(told) == len(chosen) and told[0].startswith(f"0 of {len(chosen)} claims, wa-hls4ml")


def test_a_capacity_search_begins_at_the_last_rate_of_its_model_and_scenarios_run_once() -> None:
    asked: list[dict[str, Any]] = []

    def simulate(workload: str, hardware: str, **options: Any) -> Any:
        asked.append(options)
        answer = {"capacity": {"rate_per_s": 7.0 + len(asked)}} if options.get("capacity") else {}
        return SimpleNamespace(to_dict=lambda: answer)

    asker = _Asker({"simulate": simulate})
    for pool, capacity in ((1, True), (2, True), (1, True), (3, False)):
        asker.document(Point("m", "h", {"prefill_pool": pool, "capacity": capacity}, {}, "simulate"))
    assert [o.get("capacity_start") for o in asked] == [None, 8.0, None]


def test_a_bug_in_one_claim_is_an_error_and_the_others_go_on() -> None:
    def broken(workload: str, hardware: str, **options: Any) -> Any:
        if hardware == "u280":
            raise KeyError("no such metric")
        return SimpleNamespace(to_dict=lambda: {"metrics": {"tpot_s": {"value": 0.01}}})

    rules = {"flightllm": load_system("flightllm")}
    document = reproduce([claim(id="a", setup={"hardware": "u280"}), claim(id="b")], rules, broken)
    first, second = document["rows"]
    assert (first["verdict"], second["verdict"]) == ("error", "pass")
    assert first["reason"].startswith("KeyError: 'no such metric' (test_claims.py:")
    total = document["total"]
    assert (total["error"], total["scored"], total["pass_rate"]) == (1, 2, 0.5)
    assert "1 error" in table(document) and 'class="error"' in page(document)


@pytest.mark.parametrize("bug", [KeyError("tpot_s"), LawViolation("LAW-1 does not hold")])
@pytest.mark.parametrize("options", [[], ["--failed"], ["--format", "json"]])
def test_a_bug_in_one_claim_is_told_at_the_end(
    bug: Exception, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = claims._values

    def broken(asked: Claim, *rest: Any) -> list[float]:
        if asked.id == load_system("sail").claims[0].id:
            raise bug
        return original(asked, *rest)

    monkeypatch.setattr(claims, "_values", broken)
    code = run(["reproduce", "sail", "--quiet", *options])
    captured = capsys.readouterr()
    bad = load_system("sail").claims[0].id
    assert code == 1 and f"claim {bad} of sail: {type(bug).__name__}" in captured.err
    assert "Traceback" not in captured.err and bad in captured.out
    monkeypatch.undo()
    assert run(["reproduce", "sail", "--quiet"]) == 0
