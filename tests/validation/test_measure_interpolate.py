"""Timing helpers, CPU benchmarks of tiny shapes, the residual interpolator, the silicon reader."""

import csv

import numpy as np
import pytest

from hwsim.cli.main import run
from hwsim.errors import InputError, MissingExtraError, UnknownNameError
from hwsim.validation.interpolate import Residuals, corrected
from hwsim.validation.measure import cpu, measure
from hwsim.validation.measure.environment import environment, last_level_cache_bytes
from hwsim.validation.measure.timing import WARM_UP_CALLS, copies, sample, summarize
from hwsim.validation.predict import predict_file
from hwsim.validation.silicon import newest, silicon_tables


def test_sample_warms_up_rotates_and_counts():
    seen = []
    found = sample(seen.append, target_s=1e-4, batches=3)
    assert seen == list(range(len(seen)))
    assert len(seen) == WARM_UP_CALLS + 3 * found.calls
    assert found.median_s > 0


def test_summary_is_median_and_quartile_spread():
    found = summarize([1.0, 2.0, 3.0, 4.0, 5.0], 1)
    assert found.median_s == 3.0 and found.spread == pytest.approx(0.5)


def test_copies_exceed_the_cache_within_the_budget():
    assert copies(1e6, 32e6, 1e9) == 65
    assert copies(1e9, 32e6, 1e9) == 1
    assert copies(1e6, 32e6, 1e7) == 10


def test_environment_names_machine_and_software():
    stamp = environment()
    assert {"processor", "cores", "numpy", "utc", "hwsim"} <= set(stamp)
    assert last_level_cache_bytes() >= 2**15


def test_measured_rows_are_read_back_by_the_predictor(tmp_path, monkeypatch):
    for name, value in (("SIDES", (64,)), ("ROWS", (1, 8)), ("VECTOR_ROWS", (1, 4)), ("VECTOR_COLS", (256,))):
        monkeypatch.setattr(cpu, name, value)
    monkeypatch.setattr(cpu, "BUDGET_BYTES", 1 << 20)
    files = dict(measure("cpu", "epyc-9654", tmp_path / "m"))
    assert files == {"gemm.csv": 2, "vectorop.csv": 6}
    for name in files:
        predictions = predict_file(tmp_path / "m" / name, latency=True)
        assert not predictions.table.problems and (predictions.pred_us > 0).all()
    assert (tmp_path / "m" / "environment.json").is_file()
    with pytest.raises(InputError, match="exists"):
        list(measure("cpu", "epyc-9654", tmp_path / "m"))
    with pytest.raises(UnknownNameError):
        list(measure("cpu", "epyc-9654", tmp_path / "n", only=("gem",)))
    assert run(["measure", "--hw", "epyc-9654", "--target", "gpu"]) == 2


def test_interpolator_pulls_nearby_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    shapes = rng.uniform(0, 3, (40, 3))
    residuals = Residuals(shapes, np.full(40, 0.2))
    near, support = residuals.at(shapes[:5])
    far, none = residuals.at(shapes[:5] + 50.0)
    assert (near > 0.12).all() and (near <= 0.2).all() and (support > 0.6).all()
    assert np.allclose(far, 0.0) and np.allclose(none, 0.0)


def test_own_runs_move_predictions_towards_themselves(tmp_path):
    head = "gpu,backend,dtype_act,dtype_weight,m,n,k,latency_us"
    shapes = [(m, n, k) for m in (16, 20, 24) for n in (4096, 4600) for k in (4096, 4600)]
    ask = tmp_path / "ask.csv"
    ask.write_text(
        head + "\n" + "\n".join(f"h100,x,bf16,bf16,{m},{n},{k},1" for m, n, k in [*shapes, (8192, 512, 512)]) + "\n"
    )
    bare = predict_file(ask)
    own = tmp_path / "own.csv"
    lines = [f"h100,x,bf16,bf16,{m},{n},{k},{1.3 * p:.6g}" for (m, n, k), p in zip(shapes, bare.pred_us, strict=False)]
    own.write_text(head + "\n" + "\n".join(lines) + "\n")
    moved = corrected(bare, [own])
    assert (moved.pred_us[:-1] / bare.pred_us[:-1] > 1.2).all()
    assert np.isclose(moved.pred_us[-1], bare.pred_us[-1], rtol=1e-6)
    assert ((moved.low_us <= moved.pred_us) & (moved.pred_us <= moved.high_us)).all()


def test_silicon_reader_says_what_is_missing(tmp_path):
    with pytest.raises((MissingExtraError, UnknownNameError, InputError)):
        silicon_tables("no_such_gpu")
    (tmp_path / "h100_sxm").mkdir()
    with pytest.raises(InputError, match="no kernel tables"):
        silicon_tables("h100_sxm", tmp_path)
    with pytest.raises(UnknownNameError, match="h100_sxm"):
        silicon_tables("h100_smx", tmp_path)


def test_newest_version_is_chosen_by_numbers(tmp_path):
    for name in ("1.2.0rc5", "1.3.0rc20", "1.3.0rc9", "1.0.0"):
        (tmp_path / name).mkdir()
    assert newest(tmp_path).name == "1.3.0rc20"


def test_silicon_tables_take_the_package_layout(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the [silicon] extra is not installed")
    from pyarrow.parquet import write_table

    folder = tmp_path / "h100_sxm" / "gemm" / "trtllm" / "1.3.0"
    folder.mkdir(parents=True)
    columns = {"gemm_dtype": ["fp8", "unknown"], "m": [1, 2], "n": [64, 64], "k": [128, 128], "latency": [0.004, 0.005]}
    write_table(pa.table(columns), folder / "gemm_perf.parquet")
    (table,) = silicon_tables("h100_sxm", tmp_path)
    assert table.columns["latency_us"].tolist() == [4.0] and table.columns["dtype_act"].tolist() == ["fp8"]
    assert table.columns["gpu"].tolist() == ["h100-sxm"]


def test_csv_writer_numbers_rows(tmp_path):
    from hwsim.validation.measure import to_csv

    rows = list(csv.DictReader(to_csv("gemm", [{"m": 1}, {"m": 2}]).splitlines()))
    assert [r["row_id"] for r in rows] == ["gem-m00000", "gem-m00001"]
