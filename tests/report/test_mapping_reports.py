"""Table, page and trace of a mapping say what its document says."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest

from hwsim.api import vary
from hwsim.errors import InputError, UnknownNameError
from hwsim.frontends.raw import raw_graph
from hwsim.mapping.gemms import Work, works_of
from hwsim.mapping.plan import map_workload
from hwsim.mapping.problem import Gemm
from hwsim.report.mapping import mapping_table
from hwsim.report.mapping_explain import gain, why
from hwsim.report.mapping_page import mapping_page
from hwsim.report.mapping_rows import percent, traffic
from hwsim.report.mapping_trace import mapping_trace, steps_of
from hwsim.report.mapping_working import explain_mapping, reuse_of
from hwsim.schema.loader import load_accelerator

NAMES = ("gemm:64x96x32", "gemm:1x512x256", "bmm:4x1x17x32")


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """Three GEMMs, one of them executed often, as a document that has been through JSON."""
    works = [works_of(raw_graph(name))[0] for name in NAMES]
    works[1] = Work(works[1].gemm, 7, ("fc", "<script>alert(1)</script>"))
    document = map_workload(works, load_accelerator("g3-256")[0], use_cache=False)
    return dict(json.loads(json.dumps({"workload": "three <b>GEMMs</b>", **document})))


def test_traffic_counts_against_each_tensors_own_minimum(saved: dict[str, Any]) -> None:
    for row in saved["operators"]:
        assert sum(row["compulsory"].values()) == row["compulsory_words"]
        for level in row["levels"]:
            moved = [traffic(row, level, t) for t in "ABZ"]
            assert sum(m.words for m in moved) == level["served_words"]
            assert all(m.ratio >= 1 for m in moved)
            assert sum(level["held_words"].values()) == level["used_words"] <= (level["words"] or float("inf"))


def test_busy_cycles_of_each_port_add_up_to_its_cycles(saved: dict[str, Any]) -> None:
    for row in saved["operators"]:
        found: Counter[str] = Counter()
        for level in row["levels"]:
            for port, tensors in level["busy_cycles"].items():
                found[port] += sum(sum(kinds.values()) for kinds in tensors.values())
        expected = {name: v for name, v in row["cycles_by"].items() if name != "compute"}
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [{"uneven": "glb"}, {"counting": "drains"}, {"bypass": True}])
def test_other_kinds_of_tilings_add_up_too(options: dict[str, Any]) -> None:
    """Split memories, other countings and skipped levels; and separate ports for reads and writes."""
    device = vary(load_accelerator("g3-256")[0], {"memories.glb.write": "50 GB/s"})
    works = [Work(Gemm(1, 8, 4), 2, ("a",)), Work(Gemm(2, 3, 2, batch=2), 1, ("b",))]
    document = {"workload": "two", **map_workload(works, device, use_cache=False, **options)}
    assert any(name.endswith(" write") for name in document["operators"][0]["cycles_by"])
    test_busy_cycles_of_each_port_add_up_to_its_cycles(document)
    test_trace_ends_at_the_reported_cycles_and_work_adds_up(document)
    test_work_on_one_thread_never_overlaps(document)
    assert "<script" not in mapping_page(document) and "two on g3-256" in mapping_table(document)
    for row in document["operators"]:
        assert sum(row["energy_split"].values()) == pytest.approx(row["energy_j"], rel=1e-12)
        assert explain_mapping(document, row["name"])


def test_table_has_every_level_spread_and_total(saved: dict[str, Any]) -> None:
    text = mapping_table(saved)
    assert text.count("\n") < 60
    for row in saved["operators"]:
        assert row["name"] in text and f"{row['cycles']} cycles" in text
        for level in row["levels"]:
            assert "x".join(str(v) for v in level["tile_mnk"]) in text
    assert f"{saved['total']['cycles']} cycles" in text
    assert "9 GEMMs one after another" in text


def test_trace_ends_at_the_reported_cycles_and_work_adds_up(saved: dict[str, Any]) -> None:
    trace = mapping_trace(saved)
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    events = trace["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    drawn = [e for e in events if e["ph"] == "X"]
    us = 1e6 / saved["machine"]["clock_hz"]
    assert {e["ph"] for e in events} == {"X", "M"}
    assert all({"name", "ts", "dur", "pid", "tid"} <= set(e) and e["dur"] > 0 for e in drawn)
    end = max(e["ts"] + e["dur"] for e in drawn)
    assert end == pytest.approx(saved["total"]["cycles"] * us, rel=1e-9)
    expected: Counter[str] = Counter()
    for row in saved["operators"]:
        expected["GEMMs"] += row["cycles"] * row["count"] * us
        for name, value in row["cycles_by"].items():
            expected[name if name == "compute" else f"{name} port"] += value * row["count"] * us
    worked: Counter[str] = Counter()
    for e in drawn:
        worked[threads[e["tid"]]] += e["dur"]
    del worked["loops"]
    assert worked == pytest.approx(+expected, rel=1e-9)  # a port that never works has no events


def test_work_on_one_thread_never_overlaps(saved: dict[str, Any]) -> None:
    events = mapping_trace(saved)["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    for tid, name in threads.items():
        if name == "loops":
            continue  # nested slices
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X" and e["tid"] == tid)
        slack = 1e-9 * max((end for _, end in mine), default=0.0)
        assert all(a[1] <= b[0] + slack for a, b in zip(mine, mine[1:], strict=False)), name


def test_trace_says_what_it_folds(saved: dict[str, Any]) -> None:
    trace = json.dumps(mapping_trace(saved))
    assert "6 more executions like the first" in trace
    row = next(r for r in saved["operators"] if steps_of(r, 10**9).count > 5)
    steps = steps_of(row, 5)
    assert len(steps.groups) == 5 and steps.groups[0][0] == 0 and steps.groups[-1][1] == steps.count
    assert all(a[1] == b[0] for a, b in zip(steps.groups, steps.groups[1:], strict=False))


def test_a_mapper_without_loops_has_no_trace() -> None:
    works = [Work(Gemm(4, 4, 4), 1, ("x",))]
    document = map_workload(works, load_accelerator("g3-256")[0], mapper="roofline")
    with pytest.raises(InputError, match="no loops"):
        mapping_trace({"workload": "x", **document})
    assert "no loops decided" in mapping_table({"workload": "x", **document})
    assert "No loops were decided" in mapping_page({"workload": "x", **document})


class _Check(HTMLParser):
    """Every element closes; collects scripts, links and widths."""

    VOID = ("meta", "br", "img", "hr", "!doctype")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: Counter[str] = Counter()
        self.links: list[str] = []
        self.bars: list[list[float]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        table = dict(attrs)
        self.links += [v for k, v in attrs if k in ("href", "src") and v]
        if tag == "div" and (table.get("class") or "").startswith("bar"):
            self.bars.append([])
        width = re.search(r"width:([0-9.]+)%", table.get("style") or "")
        if width and self.bars:
            self.bars[-1].append(float(width.group(1)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_page_is_self_contained_escaped_and_drawn_to_scale(saved: dict[str, Any]) -> None:
    page = mapping_page(saved)
    check = _Check()
    check.feed(page)
    assert check.stack == [] and check.seen["script"] == 0 and all(link.startswith("#") for link in check.links)
    assert "<script>" not in page and html.escape("<script>alert(1)</script>") in page
    assert check.seen["details"] == len(NAMES)
    assert "prefers-color-scheme: dark" in page and len(page) < 60_000
    for row in saved["operators"]:
        assert f"{row['cycles']:,} cycles" in page
    held = saved["operators"][0]["levels"][-2]
    widths = [100 * w / held["words"] for w in held["held_words"].values()]
    assert any(bar[:3] == pytest.approx(widths, abs=1e-3) for bar in check.bars)


def test_every_word_count_follows_from_tile_spread_and_loops(saved: dict[str, Any]) -> None:
    """The working shown by `explain` is the whole count: size x ceil(missing dimension / reuse)."""
    for row in saved["operators"]:
        for index, level in enumerate(row["levels"]):
            for tensor, dimension in (("A", "n"), ("B", "m"), ("Z", "k")):
                reuse = reuse_of(row, index, tensor)
                words = level["traffic"][tensor]["updates" if tensor == "Z" else "reads"]
                assert words == row["compulsory"][tensor] * -(-row["gemm"][dimension] // reuse["extent"])
        text = explain_mapping(saved, f"{row['name']}.cycles")
        assert f"cycles = {row['cycles']}" in text and "dram" in text
        assert "words out x 200 pJ" in explain_mapping(saved, f"{row['name']}.energy")
        whole = explain_mapping(saved, row["name"])
        assert why(row) in whole and whole.count("must change") == 9
    with pytest.raises(UnknownNameError, match="gemm:64x96x32.energy"):
        explain_mapping(saved, "gemm:64x96x32.enrgy")


def test_reason_and_gain_in_words(saved: dict[str, Any]) -> None:
    assert "port of dram" in why(saved["operators"][1])
    part = {
        "energy_j": -1e-3,
        "cycles": -10,
        "time_s": -1e-8,
        "edp_js": -2e-9,
        "objective_share": -0.25,
        "proved": True,
    }
    assert gain(part, "edp") == "energy -1.00 mJ, time -10.0 ns, EDP -2.00 nJ s (-25%)"
    assert gain({**part, "proved": False}, "energy").endswith("(not proved)")
    nothing = {"energy_j": 0.0, "cycles": 0, "time_s": 0.0, "edp_js": 0.0, "objective_share": 0.0, "proved": True}
    assert gain(nothing, "edp") == "nothing" and "not known" in gain(None, "edp")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 0, ""), (0.0, 1, "0.0%"), (1.0, 0, "100%"), (0.5, 1, "50.0%"), (0.093, 0, "9.3%"), (0.0002, 1, "<0.1%")],
)
def test_shares(value: float | None, digits: int, text: str) -> None:
    assert percent(value, digits) == text
