"""Mappers inside an estimate: never faster than the ideal, equal to it on chip, better than greedy, repeatable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.cost import roofline
from hwsim.errors import InputError
from hwsim.frontends.raw import raw_graph
from hwsim.ir.mapped import Mapping, Task
from hwsim.ir.platform import Platform
from hwsim.mapping.decide.graph import decide
from hwsim.mapping.lower import lower
from hwsim.schema.loader import load_hardware

MODEL, SMALL = "gpt2", {"batch": 1, "prompt": 64, "output": 4}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def one_task(workload: str, platform: Platform, mapper: str, objective: str | None = None) -> Task:
    graph = raw_graph(workload)
    return lower(graph, platform, decide(graph, platform, Mapping(mapper), objective=objective)).tasks[0]


@settings(max_examples=6, deadline=None)
@given(m=st.sampled_from([1, 7, 64, 200]), n=st.sampled_from([16, 96, 300]), k=st.sampled_from([8, 128, 512]))
def test_a_mapped_gemm_is_never_faster_than_its_roofline_and_tiling_beats_greedy(m: int, n: int, k: int) -> None:
    platform = load_hardware("g3-256").platform
    name = f"gemm:{m}x{n}x{k}"
    ideal, best, rule = (
        roofline.task_cost(one_task(name, platform, mapper), platform) for mapper in ("roofline", "tiling", "greedy")
    )
    assert ideal.time_s <= best.time_s * (1 + 1e-12) and ideal.energy_j <= best.energy_j
    assert best.floor_s == ideal.floor_s == ideal.time_s
    cycles = [
        one_task(name, platform, mapper).choice["tiling"]["products"][0]["cycles"] for mapper in ("tiling", "greedy")
    ]
    assert cycles[0] <= cycles[1]


def test_where_everything_fits_on_chip_and_no_port_binds_the_ideal_is_reached() -> None:
    device = load_hardware("g3-256").platform.device
    wide = tuple(replace(m, read_bytes_per_s=1e15, write_bytes_per_s=1e15) for m in device.memories[:-1])
    roomy = (replace(wide[0], size_bytes=2**20), replace(wide[1], size_bytes=2**30))
    platform = load_hardware("g3-256").platform.with_(device=device.with_(memories=(*roomy, device.memories[-1])))
    mapped = roofline.task_cost(one_task("gemm:64x256x512", platform, "tiling"), platform)
    ideal = roofline.task_cost(one_task("gemm:64x256x512", platform, "roofline"), platform)
    assert mapped.time_s == pytest.approx(ideal.time_s, rel=1e-12)
    assert one_task("gemm:64x256x512", platform, "tiling").choice["tiling"]["excess_bytes"] == 0


def test_excess_bytes_are_the_refetches_of_the_counts() -> None:
    """64 KiB of buffer words hold no operand of 512 x 512 whole beside tiles: DRAM words beyond once, by hand."""
    platform = load_hardware("g3-256").platform
    task = one_task("gemm:512x512x512", platform, "greedy")
    choice = task.choice["tiling"]
    product = choice["products"][0]
    tile = product["tiles"]["glb"]
    assert choice["excess_bytes"] % 2 == 0 and product["gemm"] == {"batch": 1, "m": 512, "n": 512, "k": 512}
    assert sum(a * b for a, b in ((tile[0], tile[2]), (tile[2], tile[1]), (tile[0], tile[1]))) <= 65536
    assert choice["compute_s"] >= 512**3 / 256 / 1e9


@pytest.mark.parametrize("hardware", ["g3-256", "a100"])
def test_a_model_with_mappers_keeps_the_laws(hardware: str) -> None:
    ideal, best, rule = (hwsim.evaluate(MODEL, hardware, mapper=m, **SMALL) for m in ("roofline", "tiling", "greedy"))
    assert ideal.ttft_s <= best.ttft_s <= rule.ttft_s
    assert ideal.tpot_s <= best.tpot_s <= rule.tpot_s
    assert ideal.energy_j_per_token <= best.energy_j_per_token
    floors = [result.document["metrics"]["latency_s"]["floor"] for result in (ideal, best, rule)]
    assert floors[0] == floors[1] == floors[2]


def test_documents_repeat_and_say_the_mapper_its_proof_and_the_tiles() -> None:
    first, second = (hwsim.evaluate(MODEL, "g3-256", mapper="tiling", **SMALL).document for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert first["mapping"]["mapper"] == "tiling" and first["mapping"]["phases"]["prefill"]["status"] == "optimal"
    task = next(t for t in first["phases"][0]["tasks"] if t["name"] == "block.qkv")
    assert task["mapping"]["products"][0]["tiles"]["dram"] == [64, 2304, 768]
    assert "tiling.py" in first["provenance"]["inputs"]


def test_the_ideal_says_nothing_about_mappings() -> None:
    document = hwsim.evaluate(MODEL, "g3-256", **SMALL).document
    assert "mapping" not in document and all("mapping" not in t for p in document["phases"] for t in p["tasks"])


@pytest.mark.long
def test_energy_is_an_objective_and_costs_time() -> None:
    fast, frugal = (
        hwsim.evaluate(MODEL, "g3-256", mapper="tiling", map_objective=o, efficiency="datasheet", **SMALL)
        for o in ("latency", "energy")
    )
    assert frugal.energy_j_per_token <= fast.energy_j_per_token
    assert fast.ttft_s <= frugal.ttft_s


def test_tensor_parallel_shards_are_what_is_mapped() -> None:
    document = hwsim.evaluate(MODEL, "dgx-a100", tp=4, mapper="tiling", **SMALL).document
    task = next(t for t in document["phases"][0]["tasks"] if t["name"] == "block.up")
    assert task["mapping"]["products"][0]["gemm"]["n"] == 3072 // 4


MINE = """
from hwsim.mapping import Decision, claim
class Mine:
    name, summary = "mine", "always the tile that is asked"
    def map(self, machine, gemm, objective, budget_s):
        raise RuntimeError("a kernel library is picked from")
    def pick(self, machine, gemm, tilings, objective):
        return {index}
MAPPER = Mine()
"""


def test_a_mapper_file_of_the_user_picks_the_gpu_tile(tmp_path: Path) -> None:
    times = {}
    for index in (0, -1):
        path = tmp_path / f"mine{index}.py"
        path.write_text(MINE.format(index=index))
        result = hwsim.evaluate(MODEL, "a100", mapper=str(path), **SMALL)
        task = next(t for t in result.document["phases"][0]["tasks"] if t["name"] == "block.qkv")
        times[tuple(task["mapping"]["block"].values())] = task["time_s"]
        assert str(tmp_path) not in json.dumps(result.document)
    own = hwsim.evaluate(MODEL, "a100", **SMALL).document
    best = next(t for t in own["phases"][0]["tasks"] if t["name"] == "block.qkv")["time_s"]
    assert len(times) == 2 and min(times.values()) >= best and len(set(times.values())) == 2


FREE = """
from hwsim.mapping import Decision, Tiling, claim
class Mine:
    name, summary = "free", "one row a block"
    def map(self, machine, gemm, objective, budget_s):
        one, last = (1, 1, 1), len(machine.levels) - 1
        keep = tuple(level.keep for level in machine.levels)
        temporal = (*[one] * last, gemm.extents)
        return Decision(Tiling(temporal, (one,) * last, ("MNK",) * (last + 1), keep), claim("mine", 0.0))
MAPPER = Mine()
"""


def test_a_tile_that_no_kernel_has_is_said_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "free.py"
    path.write_text(FREE)
    mine, own = hwsim.evaluate(MODEL, "a100", mapper=str(path), **SMALL), hwsim.evaluate(MODEL, "a100", **SMALL)
    task = next(t for t in mine.document["phases"][0]["tasks"] if t["name"] == "block.qkv")
    assert "no kernel of the library" in task["mapping"]["note"] and mine.ttft_s == own.ttft_s


@pytest.mark.parametrize("hardware", ["wse2", "hexagon-8gen3"])
def test_families_with_laws_of_their_own_refuse_tilings(hardware: str) -> None:
    with pytest.raises(InputError, match="does not use"):
        hwsim.evaluate(MODEL, hardware, mapper="tiling", **SMALL, check_fit=False)


def test_a_grid_of_scenarios_has_no_single_tiling() -> None:
    import numpy as np

    with pytest.raises(InputError, match="not a grid"):
        hwsim.evaluate(MODEL, "g3-256", batch=np.array([1, 2]), prompt=64, output=4, mapper="greedy")


def test_attention_is_mapped_as_one_and_separate_products_cost_more() -> None:
    fused, apart = (
        hwsim.evaluate(MODEL, "g3-256", mapper=m, efficiency="datasheet", **SMALL).document
        for m in ("tiling", "greedy")
    )
    tasks = [next(t for t in d["phases"][0]["tasks"] if t["name"] == "block.attention") for d in (fused, apart)]
    assert tasks[0]["mapping"]["fused"]["tiling"]["scores"] == "on-chip"
    assert tasks[0]["mapping"]["excess_bytes"] < tasks[1]["mapping"]["excess_bytes"]
    assert tasks[0]["floor_s"] <= tasks[0]["time_s"] < tasks[1]["time_s"]


def test_an_fpga_loads_what_the_tiling_of_its_chip_fetches() -> None:
    own, mapped = (
        hwsim.evaluate(MODEL, "u280", mapper=m, batch=1, prompt=256, output=2).document for m in ("roofline", "tiling")
    )
    loads = [
        next(t for t in d["phases"][0]["tasks"] if t["name"] == "block.up")["parts_s"]["ld"] for d in (own, mapped)
    ]
    assert 0 < loads[1] < loads[0]  # 48 column tiles no longer re-read activations that the chip holds
