"""`hwsim map` as users see it: what it writes, what it refuses, and that nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.cli.main import run
from hwsim.cli.map import MODES, mode_of

GEMM = ["map", "gemm:32x48x64", "--hw", "g3-256"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path_factory.mktemp("cache")))


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_everything_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page, trace, folder = tmp_path / "x.html", tmp_path / "t.json", tmp_path / "tl"
    more = ["-o", str(page), "--trace", str(trace), "--export", "timeloop", str(folder)]
    code, out, err = _call(capsys, *GEMM, *more)
    assert code == 0 and out == "" and err.count("wrote ") == 3
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]
    names = {p.name for p in folder.iterdir()}
    assert names == {"architecture.yaml", "problem.yaml", "mapping.yaml", "ert.yaml", "README.txt"}
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for extra in (more[:2], more[2:4], more[4:]):  # nothing is overwritten, and nothing is left lying about
        code, out, err = _call(capsys, *GEMM, *extra)
        assert code == 2 and out == "" and "exists" in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert _call(capsys, *GEMM, *more, "--force")[0] == 0
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--trace", "t.txt"], "--trace t.txt"),
        (["--export", "timelop", "d"], "did you mean timeloop?"),
        (["--trace", "a.json", "-o", "a.json"], "same name"),
        (["-o", "absent/x.json"], "does not exist"),
        (["--mapper", "tilin"], "did you mean tiling?"),
        (["--objective", "enrgy"], "did you mean energy"),
        (["--dtype", "bf61"], "did you mean bf16?"),
        (["--uneven", "gbl"], "did you mean glb?"),
        (["--budget", "0 s"], "above zero"),
        (["--phase", "decode"], "--phase"),
        (["--batch", "4"], "--batch"),
        (["--export", "timeloop", "d", "--uneven", "glb"], "uneven"),
        (["--trace", "t.json", "--mapper", "roofline"], "no loops"),
    ],
)
def test_refusals_write_nothing(
    extra: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = _call(capsys, *GEMM, *extra)
    assert code == 2 and out == "" and said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mapper", ["tiling", "greedy", "exhaustive", "roofline"])
def test_what_does_not_fit_names_level_tensors_and_shortfall(mapper: str, capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("rf", "glb"):
        code, out, err = _call(capsys, *GEMM, "--mapper", mapper, "--set", f"memories.{level}.size=4 B")
        assert code == 3 and out == ""
        assert f"g3-256.{level}" in err and "A, B, Z" in err and "1 words (2 B) short" in err
    code, out, err = _call(capsys, *GEMM, "--mapper", mapper, "--set", "memories.dram.size=4 kB")
    assert code == 3 and out == "" and "g3-256.dram" in err and "short, most for tensor B" in err


def test_explain_says_what_binds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "map", "gemm:1x64x64", "--hw", "g3-256", "--explain", "-f", "json")
    parts = {f"{p['part']} {p['kind']}": p for p in json.loads(out)["operators"][0]["what_if"]}
    assert code == 0 and set(parts) == {"dram port", "glb port", "glb capacity", "rf capacity", "rf units units"}
    assert parts["dram port"]["binds"] and parts["dram port"]["one_more"]["cycles"] < 0
    assert not parts["glb capacity"]["binds"] and parts["glb capacity"]["one_more"]["energy_j"] == 0
    code, out, _ = _call(capsys, "map", "gemm:1x64x64", "--hw", "g3-256", "--explain")
    assert "bound by the port of dram" in out and "+1 GB/s" in out


def test_a_saved_mapping_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "m.json"
    assert _call(capsys, *GEMM, "-o", str(saved))[0] == 0
    code, out, _ = _call(capsys, "explain", str(saved))
    assert code == 0 and "words of glb" in out and "energy = " in out
    code, out, _ = _call(capsys, "explain", str(saved), "glb")
    assert code == 0 and "A lacks N" in out
    code, out, err = _call(capsys, "explain", str(saved), "enrgy")
    assert code == 2 and out == "" and "did you mean energy" in err


def test_a_dtype_sets_multipliers_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    for dtype, bits, multipliers in ((None, 16, 4512), ("int8", 8, 18048)):
        more = [] if dtype is None else ["--dtype", dtype]
        code, out, _ = _call(capsys, "map", "gemm:1x64x64", "--hw", "u280", "-f", "json", *more)
        machine = json.loads(out)["machine"]
        assert code == 0 and machine["word_bits"] == bits
        assert machine["multipliers"] == pytest.approx(multipliers, rel=0.001)


def test_other_kinds_of_mappers_have_modules_of_their_own() -> None:
    assert mode_of(["llama", "--mapper", "placement"]) == MODES["placement"]
    assert mode_of(["--mapper=parallelism", "llama"]) == MODES["parallelism"]
    assert mode_of(["llama", "--mapper", "tiling"]) is None and mode_of(["llama", "--mapper"]) is None
