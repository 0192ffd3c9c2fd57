"""Closed-loop benchmarks and eager models: structure on rows made here, accuracy bars on the reference data."""

from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import InputError, UnknownNameError
from hwsim.validation import eager, endtoend, endtoend_loops

HEADER = "model,gpu,backend,isl,osl,concurrency,tp,ttft_ms,tpot_ms,mode"


def runs(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "e2e_serving.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def predicted(tmp_path, *rows):
    return endtoend.predict_runs(endtoend.read_runs(runs(tmp_path, *rows)))


def test_other_clients_prompts_slow_decoding(tmp_path):
    row = "llama-3.1-8b,h100,vllm,2048,{osl},{c},1,100,10,agg"
    few, many, long = predicted(
        tmp_path, row.format(osl=128, c=1), row.format(osl=128, c=32), row.format(osl=4096, c=32)
    ).scored
    assert few.tpot_ms < many.tpot_ms
    # answers 32 times as long dilute the stall
    assert long.tpot_ms < many.tpot_ms
    assert few.ttft_ms < many.ttft_ms


def test_rows_without_a_prediction_are_counted(tmp_path):
    report = predicted(
        tmp_path,
        "llama-3.1-8b,h100,vllm,512,128,4,1,100,10,disagg",
        "llama-3.1-8b,h100,vllm,512,128,,1,100,10,agg",
        "no-such-model,h100,vllm,512,128,4,1,100,10,agg",
        "llama-3.1-8b,h100,vllm,512,128,4,1,100,10,agg",
    )
    assert len(report.scored) == 1
    assert sum(report.skipped.values()) == 3
    assert any("no-such-model" in reason for reason in report.skipped)


def test_a_file_of_another_schema_is_refused(tmp_path):
    with pytest.raises(InputError, match="columns"):
        endtoend.read_runs(runs(tmp_path, "1,2", header="a,b"))


def test_a_degree_that_does_not_divide_is_reported_not_raised(tmp_path):
    report = predicted(tmp_path, "llama-3.1-8b,h100,vllm,512,128,4,7,100,10,agg")
    assert not report.scored
    assert len(report.skipped) == 1


def test_eager_gemm_flop_is_that_of_the_model():
    d = eager.MODELS["opt_13"]
    gemms = [k for k in eager.forward(d, 2, 512) if isinstance(k, eager.Gemm)]
    flop = sum(2 * g.count * g.batch * g.m * g.n * g.k for g in gemms)
    t, h = 2 * 512, d.hidden
    exact = d.layers * (24 * t * h * h + 4 * t * 512 * h) + 2 * t * h * d.vocab
    assert np.isclose(flop, exact, rtol=1e-12)


def test_tensor_parallel_divides_the_wide_kernels():
    d = eager.MODELS["gpt2_large"]
    whole, part = ({k.name: k for k in eager.forward(d, 4, 256, tp)} for tp in (1.0, 4.0))
    assert whole["up"].n == 4 * part["up"].n
    assert whole["down"].k == 4 * part["down"].k
    assert whole["layer_norm"] == part["layer_norm"]


def test_fusion_removes_elementwise_kernels_only():
    d = eager.MODELS["gpt2_large"]
    plain, fused = eager.forward(d, 4, 256), eager.forward(d, 4, 256, fused=True)
    assert len(fused) < len(plain)
    assert [k for k in plain if isinstance(k, eager.Gemm)] == [k for k in fused if isinstance(k, eager.Gemm)]


def test_unknown_eager_model_proposes_the_nearest():
    row = eager.Pass(2, dict.fromkeys(eager.COLUMNS, "") | {"model": "gpt2_lerge"})
    with pytest.raises(UnknownNameError, match="gpt2_large"):
        eager.predict_pass(row)


@pytest.mark.shared
def test_eager_models_meet_the_bar(shared):
    document = eager.validate_eager(shared / "measured")
    whole = [abs(r["error_percent"]) for r in document["rows"] if r["mode"] != "decode"]
    assert len(whole) >= 50
    assert np.mean(whole) <= 8.0


@pytest.mark.shared
def test_serving_runs_meet_the_bars_at_low_concurrency(shared):
    document = endtoend.validate_endtoend(shared / "measured")
    row = next(r for r in document["rows"] if r["model"] == "all" and r["concurrency"] == "<= 8")
    assert row["n"] >= 90
    assert row["tpot_mape_percent"] <= 15.0
    assert row["ttft_mape_percent"] <= 30.0


def test_simulated_loops_follow_the_physics(tmp_path):
    path = runs(tmp_path, *(f"llama-3.1-8b,h100,vllm,1024,128,{c},1,100,10,agg" for c in (1, 4, 32)))
    document = endtoend.validate_endtoend(path, simulated=True)
    assert document["method"] == "simulation"
    one, few, many = endtoend_loops.simulate_runs(endtoend.read_runs(path)).scored
    alone, _, _ = predicted(tmp_path, *(f"llama-3.1-8b,h100,vllm,1024,128,{c},1,100,10,agg" for c in (1, 4, 32))).scored
    assert one.tpot_ms == pytest.approx(alone.tpot_ms, rel=0.03)
    assert one.tpot_ms < few.tpot_ms < many.tpot_ms
    assert one.ttft_ms < few.ttft_ms < many.ttft_ms


@pytest.mark.long
@pytest.mark.shared
def test_simulated_vllm_runs_meet_the_bars(shared):
    document = endtoend.validate_endtoend(shared / "measured", simulated=True)
    row = next(r for r in document["rows"] if r["backend"] == "vllm" and r["concurrency"] == "all")
    assert row["n"] >= 80
    assert row["e2e_median_percent"] <= 10.0
    assert row["tpot_median_percent"] <= 10.0
    assert row["ttft_median_percent"] <= 18.0
