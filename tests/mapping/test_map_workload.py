"""From names to a mapping document: raw GEMMs, model blocks, mapper files, cache, refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwsim.api import vary
from hwsim.cli.main import run
from hwsim.cli.progress import Pulse
from hwsim.errors import InfeasibleError, InputError, UnknownNameError
from hwsim.frontends.catalog import load_model
from hwsim.frontends.raw import raw_graph
from hwsim.mapping.adapt import machine_of
from hwsim.mapping.gemms import works_of
from hwsim.mapping.plan import map_workload
from hwsim.mapping.registry import load_mapper
from hwsim.mapping.tiling.goal import goal_of
from hwsim.schema.loader import load_accelerator

BROKEN = """
from hwsim.mapping import Decision, claim, Tiling
class Liar:
    name, summary = "liar", "all of it in the registers"
    def map(self, machine, gemm, objective, budget_s):
        near = len(machine.levels) - 1
        unit, levels = (1, 1, 1), near + 1
        tiling = Tiling((gemm.extents, *((unit,) * near)), (unit,) * near, ("MNK",) * levels, ("ABZ",) * levels)
        return Decision(tiling, claim("liar", 0.0))
MAPPER = Liar()
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path / "cache"))


def _map(name: str, **options: object) -> dict:  # type: ignore[type-arg]
    return map_workload(works_of(raw_graph(name)), load_accelerator("g3-256")[0], **options)  # type: ignore[arg-type]


def test_raw_names() -> None:
    assert dict(raw_graph("bmm:3x4x5x6").operators[0].dims) == {"batch": 3, "m": 4, "n": 5, "k": 6}
    assert raw_graph("gemm:4x5x6").operators[0].flop == 2 * 4 * 5 * 6
    for bad in ("gemm:4x5", "gemm:0x1x1", "bmm:1x2x3", "gemm:", "gemm:axbxc", "gemm:4x5x6x7"):
        with pytest.raises(InputError):
            raw_graph(bad)


def test_mappers_are_ordered_and_the_exhaustive_one_is_matched() -> None:
    value = {}
    for mapper in ("roofline", "tiling", "exhaustive", "greedy"):
        row = _map("gemm:8x12x16", mapper=mapper)["operators"][0]
        value[mapper] = row["report"]["objective"]
    assert value["roofline"] <= value["tiling"] == pytest.approx(value["exhaustive"], rel=1e-12)
    assert value["tiling"] <= value["greedy"]


def test_llama_block_is_deduplicated() -> None:
    graph = load_model("llama-2-7b").graph("prefill", 1, 2048, 0)
    works = {w.gemm.name: w for w in works_of(graph)}
    assert works["block.qkv"].gemm.extents == (2048, 12288, 4096)
    assert works["block.qkv"].count == 32
    assert works["block.attention.qk"].gemm.extents == (2048, 2048, 128)
    assert works["block.attention.qk"].gemm.batch == 32
    # every multiply-accumulate of the graph's matrix multiplies is there
    macs = sum(w.gemm.macs * w.count for w in works.values() if "attention" not in w.gemm.name)
    assert macs == sum(op.flop * op.repeat for op in graph.operators if op.kind == "gemm") / 2


def test_cache_gives_the_same_answer_and_survives_damage(tmp_path: Path) -> None:
    first, second = _map("gemm:16x16x16"), _map("gemm:16x16x16")
    assert [first["operators"][0]["cached"], second["operators"][0]["cached"]] == [False, True]
    assert first["operators"][0]["tiling"] == second["operators"][0]["tiling"]
    (file,) = (tmp_path / "cache" / "mapping").glob("*.json")
    file.write_text("{")
    assert not _map("gemm:16x16x16")["operators"][0]["cached"]
    assert not _map("gemm:16x16x16", objective="energy")["operators"][0]["cached"]


def test_an_illegal_mapping_of_a_users_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "liar.py"
    path.write_text(BROKEN)
    with pytest.raises(InfeasibleError) as error:
        _map("gemm:16x16x16", mapper=str(path))
    assert error.value.budget == {"rf capacity": 3 * 256 - 64}
    path.write_text("MAPPER = 3")
    with pytest.raises(InputError):
        load_mapper(str(path))
    path.write_text("import nothing_of_that_name")
    with pytest.raises(InputError, match="fails to load"):
        load_mapper(str(path))
    with pytest.raises(UnknownNameError, match="tiling"):
        load_mapper("tilling")


def test_cli_table_json_and_exit_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["map", "gemm:32x32x32", "--hw", "g3_256", "-f", "json"]) == 0
    row = json.loads(capsys.readouterr().out)["operators"][0]
    assert row["report"]["status"] == "optimal" and row["levels"][-1]["served_words"] >= row["compulsory_words"]
    assert run(["map", "gemm:32x32x32", "--hw", "g3-256"]) == 0
    table = capsys.readouterr().out
    assert "from the cache" in table and "gap 0%" in table and "dram" in table
    assert run(["map", "gemm:32x32x32", "--hw", "g3-256", "--set", "memories.rf.size=4 B"]) == 3
    error = capsys.readouterr().err
    assert "rf" in error and "A, B, Z" in error and "short" in error
    assert run(["map", "gemm:400000x400000x10", "--hw", "g3-256"]) == 3
    assert "short" in capsys.readouterr().err
    assert run(["map", "gemm:3x3x3", "--hw", "g3-256", "--budget", "2"]) == 2
    assert run(["map", "gemm:3x3x3", "--hw", "g3-256", "--objective", "speed"]) == 2
    assert run(["map", "gemm:3x3x3", "--hw", "g3-256", "--uneven", "l3"]) == 2
    assert run(["map", "gemm:32x32x32", "--hw", "g3-256", "--uneven", "glb", "--bypass"]) == 0
    assert run(["map", "gemm:32x32x32", "--hw", "g3-256", "--uneven", "glb,rf"]) == 0
    assert run(["map", "gemm:3x3x3", "--hw", "g3-256", "--uneven", "glb,glb"]) == 2
    assert run(["map", "gemm:3x3x3", "--hw", "h100-sxm", "--objective", "energy"]) == 2
    assert run(["map", "gemm:512x512x512", "--hw", "g3-256", "--mapper", "exhaustive"]) == 2


def test_a_core_with_many_multipliers_gets_latches() -> None:
    machine = machine_of(load_accelerator("a100-sxm4-80gb")[0])
    assert machine.levels[0].name == "latch" and machine.levels[-1].name == "hbm"
    assert machine.multipliers * 2 * machine.clock_hz == pytest.approx(312e12, rel=0.01)


def test_the_package_loads_no_solver() -> None:
    code = "import sys, hwsim.mapping, hwsim.mapping.plan; print('pulp' in sys.modules, 'highspy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_a_dataflow_is_kept_and_a_misspelt_one_refused() -> None:
    free, fixed = (_map("gemm:48x64x96", dataflow=name) for name in (None, "weights"))
    nest = fixed["operators"][0]["tiling"]
    inward = [d for d in nest["order_outer_to_inner"][1] if nest["temporal"][1]["MNK".index(d)] > 1]
    assert len(inward) < 2 or inward[-1] == "M"
    assert fixed["operators"][0]["energy_j"] >= free["operators"][0]["energy_j"] * (1 - 1e-12)
    with pytest.raises(UnknownNameError, match="weights"):
        _map("gemm:48x64x96", dataflow="weight")


def test_a_wafer_maps_one_core_on_its_sram() -> None:
    wafer = load_accelerator("wse2")[0]
    row = map_workload(works_of(raw_graph("gemm:16x64x128")), wafer, use_cache=False)["operators"][0]
    assert row["cycles"] == 16 * 64 * 128 / 4  # four multipliers a core
    with pytest.raises(InfeasibleError, match="sram"):
        map_workload(works_of(raw_graph("gemm:512x1024x1024")), wafer)
    with pytest.raises(InputError, match="one memory"):
        machine_of(wafer)


@pytest.mark.parametrize(
    "objective", ["0*energy+0*latency", "-1*energy+1*latency", "nan*energy+1*latency", "1*energy+inf*latency"]
)
def test_weights_that_are_no_goal_are_refused(objective: str) -> None:
    with pytest.raises(InputError, match="weight"):
        goal_of(objective)
    with pytest.raises(InputError, match="weight"):
        map_workload(works_of(raw_graph("gemm:8x8x8")), load_accelerator("g3-256")[0], objective=objective)


def test_one_weight_may_be_zero() -> None:
    assert goal_of("0*energy+2*latency").value(5.0, 3.0) == 6.0
    assert goal_of("weighted", (0.5, 0.0)).value(5.0, 3.0) == 2.5


def test_a_peak_that_no_array_has_is_refused_and_a_fraction_is_kept() -> None:
    g3 = load_accelerator("g3-256")[0]
    for peak in ("1 FLOP/s", "3 GFLOP/s"):  # 1 GHz: 0 and 1.5 products a cycle
        with pytest.raises(InputError, match="whole number of multipliers"):
            machine_of(vary(g3, {"compute.tensor.bf16.peak": peak}))
    least = machine_of(vary(g3, {"compute.tensor.bf16.peak": "2 GFLOP/s"}))
    assert math.prod(level.fanout for level in least.levels) == 1
    h800 = load_accelerator("h800-sxm")[0]  # fp64: 252.5 products a cycle on 132 cores
    wide = machine_of(h800, dtype="fp64")
    assert math.prod(level.fanout for level in wide.levels) == pytest.approx(252.5, rel=0.01)


def test_a_budget_that_ends_the_search_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["map", "gemm:64x64x64", "--hw", "a100", "--no-cache"]
    assert run([*asked, "--budget", "0.3s", "-q"]) == 0
    shown = capsys.readouterr()
    assert "not proved optimal" in shown.out and "gap " in shown.out and "the budget of 0.3 s" in shown.out
    assert shown.err == ""
    small = ["map", "gemm:8x8x8", "--hw", "g3-256", "--no-cache", "-f", "json"]
    for budget, expected in (([], 30.0), (["--budget", "none"], None), (["--budget", "2min"], 120.0)):
        assert run([*small, *budget]) == 0
        assert json.loads(capsys.readouterr().out)["budget_s"] == expected
    for bad in ("0s", "-1s", "5", "never"):
        assert run([*small, "--budget", bad]) == 2


def test_a_long_step_is_heard_of_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Pulse(every_s=0.01) as pulse:
        pulse("mapping 1 of 2: q_proj")
        time.sleep(0.2)
    assert "mapping 1 of 2: q_proj, 0 s so far" in capsys.readouterr().err.splitlines()
    with Pulse(silent=True, every_s=0.01) as pulse:
        pulse("mapping 1 of 2: q_proj")
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
