"""Exported Timeloop files mean the same mapping: an independent walk over them counts the same words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.frontends.raw import raw_graph
from hwsim.mapping.counts import count
from hwsim.mapping.describe.operator import compulsory, machine_of_document, mapped
from hwsim.mapping.gemms import works_of
from hwsim.mapping.machine import Machine
from hwsim.mapping.plan import map_workload
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.report.timeloop import timeloop_files
from hwsim.schema.loader import load_accelerator
from tests.mapping.reference import small
from tests.report import timeloop_reader as reader

ORDERS = ("MNK", "MKN", "NMK", "NKM", "KMN", "KNM")


def _document(machine: Machine, gemm: Gemm, tiling: Tiling) -> dict[str, Any]:
    row = {
        "name": gemm.name,
        "gemm": {"batch": gemm.batch, "m": gemm.m, "n": gemm.n, "k": gemm.k},
        "compulsory": compulsory(machine, gemm),
        **mapped(machine, gemm, tiling, count(machine, gemm, tiling), True),
    }
    described = machine_of_document(machine, True)
    return {"machine": described, "operators": [row], "uneven": None, "counting": "timeloop", "mapper": "test"}


def _same(document: dict[str, Any], files: dict[str, str], index: int = 0, folder: str = "") -> None:
    exported = reader.read(files, folder)
    row = document["operators"][index]
    reached = [where for _, where in reader.iterations(exported)]
    unique = {tuple(sorted(w.items())) for w in reached}
    g = row["gemm"]
    assert len(reached) == len(unique) == g["batch"] * g["m"] * g["n"] * g["k"]  # every product once
    counted = reader.count(exported)
    for level in row["levels"]:
        assert counted[level["name"]] == level["traffic"], level["name"]
    assert exported.fanout == [v["fanout"] for v in document["machine"]["levels"]]
    assert exported.depth == [v["words"] for v in document["machine"]["levels"]]


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Gemm, Tiling]:
    """Factors of three levels and two spreads; the outermost loop covers what is left, also unevenly."""
    factors = st.sampled_from([1, 1, 2, 3])
    extents = draw(st.tuples(*[st.integers(1, 6)] * 3))
    spread = [draw(st.tuples(*[st.sampled_from([1, 1, 2])] * 3)), (1, 1, 1)]
    inner = [draw(st.tuples(factors, factors, factors)) for _ in range(2)]
    for d in range(3):  # no loop that never advances
        if inner[0][d] * inner[1][d] * spread[0][d] > extents[d]:
            inner = [(*f[:d], 1, *f[d + 1 :]) for f in inner]
            spread[0] = (*spread[0][:d], 1, *spread[0][d + 1 :])
    far = tuple(-(-e // (a * b * s)) for e, a, b, s in zip(extents, *inner, spread[0], strict=True))
    orders = tuple(draw(st.sampled_from(ORDERS)) for _ in range(3))
    keep = ("ABZ", draw(st.sampled_from(["ABZ", "AB", "AZ", "Z", "B"])), "ABZ")
    m, n, k = extents
    gemm = Gemm(m, n, k, batch=draw(st.sampled_from([1, 1, 2])), name="gemm")
    return gemm, Tiling((*inner, far), tuple(spread), orders, keep)  # type: ignore[arg-type]


@settings(max_examples=120)
@given(tilings())
def test_an_independent_walk_counts_the_same_words(case: tuple[Gemm, Tiling]) -> None:
    gemm, tiling = case
    document = _document(small(rf=10**6, glb=10**6), gemm, tiling)
    _same(document, timeloop_files(document))


@pytest.mark.parametrize("name", ["gemm:8x12x6", "gemm:7x5x9", "bmm:4x6x4x8"])
def test_optimal_mappings_survive_the_round_trip(name: str) -> None:
    from hwsim.api import vary

    sizes = {"memories.rf.size": "24 B", "memories.glb.size": "400 B"}
    device = vary(load_accelerator("g3-256")[0], sizes)
    document = map_workload(works_of(raw_graph(name)), device, use_cache=False, bypass=name.startswith("gemm:8"))
    files = timeloop_files(document)
    _same(document, files)
    exported = reader.read(files)
    held = [level["used_words"] for level in document["operators"][0]["levels"]]
    assert reader.largest_tiles(exported)[:-1] == held[:-1]
    tables = {t["name"].split("[")[0].split(".")[-1]: t for t in reader.load(files["ert.yaml"])["ERT"]["tables"]}
    energy = {name: {a["name"]: a["energy"] for a in t["actions"]} for name, t in tables.items()}
    row = document["operators"][0]
    total = energy["mac"]["compute"] * _macs(row)
    for level in row["levels"]:
        for kinds in level["traffic"].values():
            e = energy[level["name"]]
            total += kinds["reads"] * e["read"] + kinds["fills"] * e["write"] + kinds["updates"] * e["update"]
    assert total * 1e-12 == pytest.approx(row["energy_j"], rel=1e-12)


def _macs(row: dict[str, Any]) -> int:
    g = row["gemm"]
    return int(g["batch"] * g["m"] * g["n"] * g["k"])


def test_several_gemms_get_folders_and_what_cannot_be_said_is_refused() -> None:
    device = load_accelerator("g3-256")[0]
    graphs = works_of(raw_graph("gemm:8x8x8")) + works_of(raw_graph("gemm:4x8x8"))
    document = map_workload(graphs, device, mapper="greedy", use_cache=False)
    files = timeloop_files(document)
    assert {"01-gemm-8x8x8/mapping.yaml", "02-gemm-4x8x8/problem.yaml", "architecture.yaml"} <= set(files)
    for index, folder in enumerate(("01-gemm-8x8x8/", "02-gemm-4x8x8/")):
        _same(document, files, index, folder)
    with pytest.raises(InputError, match="uneven"):
        timeloop_files({**document, "uneven": "glb"})
    with pytest.raises(InputError, match="no loops"):
        timeloop_files(map_workload(graphs, device, mapper="roofline"))
