"""Reading measured CSVs and predicting them: good rows survive, bad rows are named by line."""

import csv
import io

import numpy as np
import pytest

from hwsim.cli.main import run
from hwsim.errors import InputError
from hwsim.validation.predict import predict_file, to_csv
from hwsim.validation.table import read_table

HEAD = "row_id,gpu,backend,version,dtype_act,dtype_weight,batch,m,n,k,latency_us"
GOOD = "a,H100-SXM5-80GB,trtllm,1,bf16,bf16,1,16,4096,4096,16"


def write(tmp_path, *lines, head=HEAD):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_each_kind_of_bad_row_is_named_by_line(tmp_path):
    path = write(
        tmp_path,
        GOOD,
        "b,H100-SXM5-80GBB,trtllm,1,bf16,bf16,1,16,4096,4096,16",
        "",
        "c,H100-SXM5-80GB,trtllm,1,bf61,bf16,1,16,4096,4096,16",
        "d,H100-SXM5-80GB,trtllm,1,bf16,bf16,1,-16,4096,4096,16",
        "e,A100-SXM4-80GB,trtllm,1,fp8,fp8,1,16,4096,4096,16",
        "f,h100,trtllm,1,bf16,bf16,1,16,nan,4096,16",
        "g,h100,trtllm,1,bf16,bf16,1,16,1e400,4096,16",
        "h,h100,trtllm,1,bf16,bf16,1,16,4096",
        "i,h100,trtllm,1,bf16,bf16,,16,4096,4096,16",
    )
    predictions = predict_file(path)
    lines = {p.line: str(p) for p in predictions.table.problems}
    assert sorted(lines) == [3, 5, 6, 7, 8, 9, 10]
    assert "H100-SXM5-80GB" in lines[3] and "did you mean" in lines[3]
    assert "did you mean bf16" in lines[5]
    assert "-16" in lines[6] and "whole number" in lines[6]
    assert "fp8" in lines[7]
    assert "fields" in lines[10]
    assert predictions.table.columns["row_id"].tolist() == ["a", "i"]  # an empty batch is one


def test_output_keeps_rows_and_adds_bands(tmp_path):
    rows = list(csv.DictReader(io.StringIO(to_csv(predict_file(write(tmp_path, GOOD))))))
    assert rows[0]["row_id"] == "a" and list(rows[0])[-3:] == ["pred_us", "low_us", "high_us"]
    low, value, high = (float(rows[0][c]) for c in ("low_us", "pred_us", "high_us"))
    assert low < value < high and 10 < value < 25


def test_command_writes_good_rows_and_exits_2(tmp_path, capsys):
    path = write(tmp_path, GOOD, GOOD.replace("bf16,bf16", "bf16,bf61"))
    assert run(["predict", str(path), "-o", str(tmp_path / "out.csv")]) == 2
    assert "line 3" in capsys.readouterr().err
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
    assert run(["predict", str(write(tmp_path, GOOD))]) == 0
    assert "pred_us" in capsys.readouterr().out


def test_device_of_all_rows_may_come_from_the_option(tmp_path):
    path = write(tmp_path, "16,4096,4096,bf16,bf16", head="m,n,k,dtype_act,dtype_weight")
    slow, fast = (predict_file(path, hw=name).pred_us[0] for name in ("a100", "h200"))
    assert slow > fast
    with pytest.raises(InputError, match="add gpu"):
        predict_file(path)
    assert run(["predict", str(path), "--hw", "a1000"]) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"a,a\n1,2\n", b"m,n\n1,2\n", b'm,n,k\n"1,2\n'],
)
def test_unusable_files_are_input_errors(tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_table(path)


def test_missing_file_is_an_input_error(tmp_path):
    assert run(["predict", str(tmp_path / "no.csv")]) == 2


def test_predictions_do_not_depend_on_their_neighbours(tmp_path):
    lines = [f"r{i},h100,trtllm,1,bf16,bf16,1,{m},4096,4096,9" for i, m in enumerate((1, 7, 300, 4000))]
    together = predict_file(write(tmp_path, *lines)).pred_us
    alone = [predict_file(write(tmp_path, line)).pred_us[0] for line in lines]
    assert np.allclose(together, alone, rtol=1e-13)


@pytest.mark.long
def test_two_hundred_thousand_predictions_a_second():
    import time

    from hwsim.cost.gpu.donors import choose
    from hwsim.cost.gpu.facts import facts
    from hwsim.cost.gpu.registry import family
    from hwsim.schema.loader import load_accelerator
    from hwsim.validation.predict import evaluate

    rng = np.random.default_rng(0)
    columns = {name: rng.integers(1, 20_000, 200_000).astype(float) for name in ("m", "n", "k")}
    columns["batch"] = np.ones(200_000)
    device = load_accelerator("h100")[0]
    gemm = family("gemm")
    choice = choose(device.calibration, gemm, "bf16@graph")
    started = time.process_time()
    evaluate(gemm, columns, facts(device), "bf16@graph", choice)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("NVIDIA-L4-PCIE-24GB", "l4"),
        ("H200-SXM-141GB", "h200-sxm-141gb"),
        ("Tesla T4", "t4"),
        ("RTX4090-24GB", "rtx4090"),
        ("MI210-64GB", "mi210-64gb"),
        ("H100-SXM5-80GBB", "H100-SXM5-80GBB"),
        ("A1000-PCIE", "A1000-PCIE"),
    ],
)
def test_board_words_around_a_name_are_dropped_but_typos_are_not(written, found):
    from hwsim.validation.predict import catalog_name

    assert catalog_name(written) == found
