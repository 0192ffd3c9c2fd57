"""The command line as users and scripts see it: exit codes, streams, formats, determinism, light help."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.cli.main import run


def hwsim(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hwsim", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process."""
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from hwsim.cli.main import run; run(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("numpy", "scipy", "pandas", "pulp", "plotly", "networkx", "pydantic", "simpy"):
        assert f"'{module}'" not in out, module


def test_evaluate_imports_neither_scipy_nor_plotly() -> None:
    evaluate = "run(['evaluate', 'llama7b', '--hw', 'a100'])"
    code = f"import sys; from hwsim.cli.main import run; {evaluate}; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("scipy", "pandas", "pulp", "plotly", "networkx", "simpy"):
        assert f"'{module}'" not in out, module


def test_the_contract_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "evaluate", "llama7b", "--hw", "a100.yaml", "--format", "json")
    document = json.loads(out)
    assert code == 0 and err == ""
    assert document["schema"] == "hwsim/estimate@1"
    assert document["workload"]["parameters"] == 6_738_415_616
    assert document["hardware"]["name"] == "a100-sxm4-80gb" and document["hardware"]["devices"] == 1
    assert {"batch", "prompt_tokens", "output_tokens"} <= set(document["scenario"])
    rates = ("throughput_tokens_per_s", "energy_j_per_token", "cost_usd_per_mtok", "mfu", "mbu")
    for name in ("ttft_s", "tpot_s", "latency_s", *rates):
        assert document["metrics"][name]["value"] > 0, name
    for name in ("ttft_s", "tpot_s", "latency_s"):
        metric = document["metrics"][name]
        assert metric["floor"] <= metric["low"] <= metric["value"] <= metric["high"] <= metric["ceiling"]
    assert set(document["memory"]) >= {
        "capacity_bytes",
        "weights_bytes",
        "kv_cache_bytes",
        "activations_bytes",
        "fits",
        "max_batch",
    }
    assert [p["name"] for p in document["phases"]] == ["prefill", "decode"]
    for phase in document["phases"]:
        assert sum(t["time_s"] for t in phase["tasks"]) + phase["overhead_s"] == pytest.approx(
            phase["time_s"], rel=1e-12
        )
        for task in phase["tasks"]:
            assert {"name", "kind", "count", "flop", "bytes", "time_s", "energy_j", "bound"} <= set(task)
    assert document["provenance"]["inputs"] and isinstance(document["warnings"], list)


def test_formats_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = call(capsys, "evaluate", "gpt2-xl", "--hw", "t4", "--format", "json")
    document = json.loads(out)
    _, out, _ = call(capsys, "evaluate", "gpt2-xl", "--hw", "t4", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    tasks = [t for p in document["phases"] for t in p["tasks"]]
    assert [float(r["time_s"]) for r in rows if r["kind"] != "host"] == [t["time_s"] for t in tasks]
    page = tmp_path / "x.html"
    code, out, err = call(capsys, "evaluate", "gpt2-xl", "--hw", "t4", "-o", str(page))
    text = page.read_text(encoding="utf-8")
    assert code == 0 and out == "" and str(page) in err
    assert "Content-Security-Policy" in text and "http-equiv" in text and 'src="http' not in text
    code, _, err = call(capsys, "evaluate", "gpt2-xl", "--hw", "t4", "-o", str(page))
    assert code == 2 and "--force" in err
    assert call(capsys, "evaluate", "gpt2-xl", "--hw", "t4", "-o", str(page), "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["evalute", "llama7b"], 2, "did you mean evaluate"),
        (["evaluate", "llama7b"], 2, "--hw"),
        (["evaluate", "lama7b", "--hw", "a100"], 2, "did you mean llama7b"),
        (["evaluate", "llama7b", "--hw", "h200_smx"], 2, "did you mean h200"),
        (["evaluate", "llama7b", "--hw", "a100", "--batch", "-4"], 2, "batch"),
        (["evaluate", "llama7b", "--hw", "a100", "--batch", "many"], 2, "batch"),
        (["evaluate", "llama7b", "--hw", "a100", "--bach", "4"], 2, "--bach"),
        (["evaluate", "llama7b", "--hw", "a100", "--weights", "bf61"], 2, "did you mean bf16"),
        (["evaluate", "llama7b", "--hw", "a100", "--format", "xml"], 2, "format"),
        (["evaluate", "llama7b", "--hw", "a100", "--efficiency", "datashet"], 2, "did you mean datasheet"),
        (["evaluate", "llama7b", "--hw", "a100", "--set", "memories.hbm.read=3"], 2, "without a unit"),
        (["evaluate", "llama7b", "--hw", "a100", "--set", "memories.hbn.read=3 TB/s"], 2, "did you mean hbm"),
        (["evaluate", "llama7b", "--hw", "a100", "--set", "nonsense"], 2, "PATH=VALUE"),
        (["evaluate", "llama7b", "--hw", "a100", "-o", "/nowhere/x.json"], 2, "mkdir -p /nowhere"),
        (["evaluate", "llama-2-70b", "--hw", "a100"], 3, "GiB too much"),
        (["evaluate", "llama7b", "--hw", "a100", "--tp", "3"], 3, "equally"),
        (["compare", "llama7b", "--hw", "a100"], 2, "at least two"),
        (["explain", "llama7b", "tpot", "--hw", "a100"], 2, "did you mean tpot_s"),
        (["explain", "llama7b"], 2, "--hw"),
        (["list", "hardwre"], 2, "did you mean hardware"),
        (["show", "a100x9"], 2, "a100"),
        (["check", "nowhere.yaml"], 2, "no such file"),
        (["validate", "kernel", "x"], 2, "did you mean kernels"),
        (["import", "nowhere.json"], 2, "nowhere.json"),
    ],
)
def test_wrong_input(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, out, err = call(capsys, *arguments)
    assert found == code and out == ""
    assert words in err and "Traceback" not in err
    assert err.startswith("error: ") and len(err.strip().splitlines()) <= 4


def test_truncated_and_hostile_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 40')
    (tmp_path / "bare.yaml").write_text(
        "schema: hwsim/accelerator@1\nname: x\ntitle: y\nkind: gpu\nextends: a100\npower: {tdp: 400}\n"
    )
    for arguments in (
        ["evaluate", str(tmp_path / "config.json"), "--hw", "a100"],
        ["evaluate", "llama7b", "--hw", str(tmp_path / "bare.yaml")],
        ["check", str(tmp_path / "bare.yaml")],
    ):
        code, _, err = call(capsys, *arguments)
        assert code == 2 and "Traceback" not in err and str(tmp_path) in err


def test_explain_of_a_saved_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "r.json"
    assert call(capsys, "evaluate", "llama7b", "--hw", "a100", "-o", str(saved))[0] == 0
    code, out, _ = call(capsys, "explain", str(saved), "decode.block.qkv")
    assert code == 0 and "floor" in out and "TFLOP/s" in out
    for subject in json.loads(saved.read_text())["metrics"]:
        code, out, err = call(capsys, "explain", str(saved), subject)
        assert code == 0 and len(out.splitlines()) >= 2, (subject, err)


def test_compare_shows_the_infeasible_machine_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", "llama-2-13b", "--hw", "t4", "--hw", "h100", "--format", "json")
    columns = json.loads(out)["columns"]
    assert code == 0 and "infeasible" in columns[0] and columns[1]["metrics"]["tpot_s"]["value"] > 0
    assert call(capsys, "compare", "llama-2-13b", "--hw", "t4", "--hw", "h100")[0] == 0


@pytest.mark.parametrize("verb", ["roofline", "timeline", "list", "show", "doctor"])
def test_other_verbs_answer(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["llama7b", "--hw", "a100"]
    more = {"roofline": model, "timeline": model, "show": ["a100"]}.get(verb, [])
    code, out, _ = call(capsys, verb, *more)
    assert code == 0 and len(out.splitlines()) > 5


def test_byte_equal_across_processes_seeds_locales_and_folders(tmp_path: Path) -> None:
    arguments = ("evaluate", "mixtral-8x7b", "--hw", "dgx-h100", "--tp", "2", "--format", "json")
    settings = [
        ({"PYTHONHASHSEED": "0", "LC_ALL": "C"}, None),
        ({"PYTHONHASHSEED": "12345", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}, tmp_path),
    ]
    outputs = {
        hwsim(*arguments, env={**env, "PYTHONPATH": str(Path(__file__).parents[2])}, cwd=cwd).stdout
        for env, cwd in settings
    }
    assert len(outputs) == 1 and outputs.pop().startswith("{")


def test_a_closed_pipe_is_no_failure() -> None:
    command = f"{sys.executable} -m hwsim list hw | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["evaluate", "llama7b", "--hw", "a100", "--mapper", "zorp"], 2, "no mapper named"),
        (["evaluate", "llama7b", "--hw", "wse2", "--mapper", "greedy"], 2, "hwsim map"),
        (["evaluate", "llama7b", "--hw", "g3-256", "--mapper", "parallelism"], 2, "hwsim map"),
        (["evaluate", "llama7b", "--hw", "a100", "--pp", "1000"], 3, "--pp 32 or less"),
        (["evaluate", "llama7b", "--hw", "a100", "--set", "memories.hbm.read=0 TB/s"], 2, "> 0"),
        (["evaluate", "llama7b", "--hw", "a100", "--set", "memories.hbm.read=1e-300 TB/s"], 2, "at least 1"),
        (["evaluate", "llama7b", "--hw", "a100", "-o", ".", "--force"], 2, "is a folder"),
        (["evaluate", "no-such-model", "--hw", "a100", "-o", __file__, "--format", "json"], 2, "file exists"),
        (["simulate", "llama7b", "--hw", "a100", "--requests-csv", "/nonexistent/x.csv"], 2, "does not exist"),
        (["evaluate", "llama7b", "--hw", "a100", "--prompt", "10000000"], 3, "KV cache of one sequence"),
        (["show", "nope-at-all"], 2, "catalog entry"),
    ],
)
def test_absurd_options(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, out, err = call(capsys, *arguments)
    assert found == code and out == "" and words in err and len(err.strip().splitlines()) <= 4


def test_the_shipped_content_passes_its_own_check(capsys: pytest.CaptureFixture[str]) -> None:
    """Machines, models, prices, calibrations and claims."""
    root = Path(__file__).parents[2]
    code, out, err = call(capsys, "check", str(root / "hardware"), str(root / "workloads"))
    assert code == 0 and err == "" and out.count("\n") > 300


def test_check_reads_serving_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("schema: hwsim/serving-scenario@1\nworkload: llama-7b\nhw: a10\nrate: 2\n")
    assert call(capsys, "check", str(file))[0] == 0
    file.write_text("schema: hwsim/serving-scenario@1\nworkload: llama-7b\nhw: a10\nreplcas: 2\n")
    code, _, err = call(capsys, "check", str(file))
    assert code == 2 and "replicas" in err


def test_check_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "ext.yaml").write_text("extends: h100-sxm\nname: mine\n")
    (tmp_path / "none").mkdir()
    assert call(capsys, "check", str(tmp_path / "ext.yaml"))[0] == 0
    code, _, err = call(capsys, "check", str(tmp_path / "empty.yaml"))
    assert code == 2 and "missing key 'schema'" in err
    code, _, err = call(capsys, "check", str(tmp_path / "none"))
    assert code == 2 and "no YAML files" in err
    code, _, err = call(capsys, "evaluate", "llama7b", "--hw", str(tmp_path / "none"))
    assert code == 2 and "is a folder" in err
