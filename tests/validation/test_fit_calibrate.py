"""Fits recover what made the data; folds keep sites whole; calibration files round-trip; measured scores hold."""

from datetime import date

import numpy as np
import pytest

from hwsim.cli.main import run
from hwsim.cost.gpu import gemm, vector
from hwsim.errors import InputError
from hwsim.schema.base import validate
from hwsim.schema.calibration import CalibrationFile
from hwsim.schema.reader import read
from hwsim.validation.calibrate import calibrate, gather, residual_bins, to_text
from hwsim.validation.fit import Rows, cross_validate, fit, folds
from hwsim.validation.kernels import validate_kernels
from hwsim.validation.scores import rank_correlation, scores
from hwsim.validation.table import read_table
from tests.cost.gpus import A100

TRUTH = {"launch_kcycles": 6.0, "gemv_kcycles": 4.0, "power_eff": 0.7, "hbm_eff": 0.8, "store_bytes_per_clk": 12.0}


def synthetic(noise=0.0, n=300):
    rng = np.random.default_rng(3)
    columns = {c: np.exp2(rng.uniform(lo, hi, n)).round() for c, lo, hi in (("m", 0, 13), ("n", 7, 14), ("k", 7, 14))}
    columns["batch"] = np.ones(n)
    truth = {**gemm.FAMILY.start(), **TRUTH}
    latency = gemm.gemm_time_s(columns, A100, "bf16@graph", truth).time_s * np.exp(rng.normal(0, noise, n))
    return Rows("bf16@graph", columns, A100, latency)


def test_fit_recovers_the_parameters_behind_clean_data():
    found = fit(gemm.FAMILY, [synthetic()])["bf16@graph"]
    for name, value in TRUTH.items():
        assert np.isclose(found[name], value, rtol=0.05), name


def test_fit_shrugs_off_outliers():
    rows = synthetic(0.02)
    spoiled = rows.latency_s.copy()
    spoiled[::12] *= 5.0
    found = fit(gemm.FAMILY, [Rows(rows.kernel_class, rows.columns, A100, spoiled)])["bf16@graph"]
    error = np.abs(np.expm1(rows.log_error(gemm.FAMILY, {**gemm.FAMILY.start(), **found})))
    assert np.median(error) < 0.03


def test_shared_parameters_are_one_value_for_all_classes():
    rows = synthetic()
    twin = Rows("fp16@graph", rows.columns, A100, rows.latency_s)
    found = fit(gemm.FAMILY, [rows, twin], max_evaluations=5)
    assert found["bf16@graph"]["hbm_eff"] == found["fp16@graph"]["hbm_eff"]


def test_cross_validation_covers_every_row_once_and_keeps_sites_whole():
    rows = synthetic(0.05, 120)
    errors = cross_validate(gemm.FAMILY, [rows], count=3)["bf16@graph"]
    assert np.isfinite(errors).all()
    sites = np.array(["a", "b", "a", "c", "b", "d"])
    dealt = folds(sites, 2)
    assert all(len(set(dealt[sites == s])) == 1 for s in "abcd")
    assert set(dealt) == {0, 1}


def test_residual_bins_hold_eighty_percent():
    rng = np.random.default_rng(0)
    time, ratio = np.exp(rng.uniform(-12, -4, 4000)), rng.normal(0.0, 0.1, 4000)
    bins = residual_bins(time, ratio)
    assert sum(b["n"] for b in bins) == 4000
    for b in bins:
        assert b["q10"] == pytest.approx(-0.128, abs=0.02) and b["q90"] == pytest.approx(0.128, abs=0.02)


def test_scores_of_known_errors():
    measured = np.array([10.0, 20.0, 40.0, 80.0])
    found = scores(measured * [1.1, 0.9, 1.1, 0.9], measured, measured * 0.95, measured * 1.05)
    assert found["mape"] == pytest.approx(10.0) and found["rank"] == pytest.approx(1.0) and found["in_band"] == 100.0
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == pytest.approx(1.0)


def runs_csv(tmp_path, gpu="a100"):
    rows = synthetic(0.02, 150)
    lines = ["gpu,backend,version,dtype_act,dtype_weight,m,n,k,latency_us"]
    for i in range(150):
        shape = ",".join(str(int(rows.columns[c][i])) for c in "mnk")
        lines.append(f"{gpu},mine,1,bf16,bf16,{shape},{rows.latency_s[i] * 1e6:.5g}")
    path = tmp_path / "gemm.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_calibration_file_round_trips_and_names_its_data(tmp_path):
    table = read_table(runs_csv(tmp_path))
    measured, problems = gather([table])
    assert not problems
    (file,) = calibrate(measured, today=date(2026, 1, 2))
    path = tmp_path / "a.yaml"
    path.write_text(to_text(file))
    assert validate(CalibrationFile, read(path)) == file
    entry = file.families["gemm"].classes["bf16@graph"]
    assert entry.n == 150 and entry.mape_percent < 5 and file.date == "2026-01-02"
    assert file.data[0].sha256 == table.sha256 and file.data[0].backends == ["mine 1"]


def test_calibrate_command_serves_predictions_of_the_next_call(tmp_path, monkeypatch, capsys):
    runs = runs_csv(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["calibrate", str(runs), "--hw", "a100"]) == 0
    assert (tmp_path / "hardware/calibrations/a100-sxm4-80gb.yaml").is_file()
    assert validate_kernels(tmp_path)["rows"][0]["mape"] < 4
    assert run(["calibrate", str(runs), "--hw", "h100"]) == 2
    assert "no rows of h100" in capsys.readouterr().err


def test_too_few_rows_are_refused(tmp_path):
    path = runs_csv(tmp_path)
    path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
    with pytest.raises(InputError, match="no rows"):
        gather([read_table(path)])


def test_report_formats_hold_the_same_rows(tmp_path):
    import json

    from hwsim.report import accuracy

    document = validate_kernels(runs_csv(tmp_path))
    assert json.dumps(document)
    assert "gemm" in accuracy.to_table(document)
    assert accuracy.to_markdown(document).count("\n") == len(document["rows"]) + 1
    assert accuracy.to_csv(document).splitlines()[1].startswith("gemm,a100,bf16@graph,150")
    page = accuracy.to_html(document)
    assert "plotly" in page and "bf16@graph" in page


def test_validate_refuses_an_unknown_mode_and_an_empty_folder(tmp_path):
    assert run(["validate", "kernels", str(tmp_path)]) == 2
    assert run(["validate", "kernels", str(runs_csv(tmp_path)), "--mode", "fast"]) == 2


def test_vector_fit_reproduces_its_data():
    # issue rate and bandwidth both grow with the elements, so only their joint effect can be recovered
    rng = np.random.default_rng(5)
    rows, cols = np.exp2(rng.uniform(8, 16, 120)).round(), np.exp2(rng.uniform(9, 13, 120)).round()
    columns = {"rows": rows, "cols": cols, "bytes_read": 4 * rows * cols, "bytes_written": 2 * rows * cols}
    truth = {**vector.FAMILY.start(), "launch_kcycles": 8.0, "hbm_eff": 0.7}
    made = Rows("add@engine", columns, A100, vector.vector_time_s(columns, A100, "add@engine", truth).time_s)
    found = fit(vector.FAMILY, [made])["add@engine"]
    assert np.abs(made.log_error(vector.FAMILY, {**truth, **found})).max() < 0.01
    assert np.isclose(found["launch_kcycles"], 8.0, rtol=0.05)


BARS = {"gemm": 12, "attention_prefill": 10, "attention_decode": 10, "moe": 15, "vector": 15}


@pytest.mark.shared
@pytest.mark.long
def test_shipped_calibrations_hold_their_bars_on_measured_runs(shared):
    totals = {}
    for row in validate_kernels(shared / "measured", mode="shipped")["rows"]:
        if row["class"] != "all" and row["family"] in BARS:
            totals.setdefault((row["family"], row["gpu"]), []).append((row["n"], row["mape"], row["in_band"]))
    for (family, gpu), found in totals.items():
        n, mape, band = (np.array(c) for c in zip(*found, strict=True))
        assert np.sum(n * mape) / n.sum() <= BARS[family], (family, gpu)
        assert 70 <= np.sum(n * band) / n.sum() <= 95, (family, gpu)
