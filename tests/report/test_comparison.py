"""A comparison as table and page: every figure with its band, who is refused and why, prices with their sources."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

import hwsim
from hwsim.report import comparison as compared
from hwsim.report import rows
from hwsim.report.comparison_page import bars_figure, comparison_page
from hwsim.report.table import comparison_table

MACHINES = ["u280", "wse2", "a100", "h100"]


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """A document that has been through JSON; one machine refuses 16-bit weights."""
    document = hwsim.compare("llama-2-7b", MACHINES, weights="fp16")
    return dict(json.loads(json.dumps(document)))


@pytest.fixture(scope="module")
def page(saved: dict[str, Any]) -> str:
    return comparison_page(saved)


def _text(page: str) -> str:
    """What a reader sees outside of the charts."""
    return html.unescape(re.sub(r"<script.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_the_page_says_every_value_with_its_band(saved: dict[str, Any], page: str) -> None:
    text = _text(page)
    for column in compared.able(saved):
        for name in ("ttft_s", "tpot_s", "latency_s", "throughput_tokens_per_s", "cost_usd_per_mtok"):
            metric, unit = column["metrics"][name], rows.METRICS[name][1]
            assert rows.quantity(metric["value"], unit) in text
            assert rows.span(metric["low"], metric["high"], unit) in text
        assert rows.quantity(column["metrics"]["energy_j_per_token"]["value"], "J/token") in text


def test_the_page_names_who_is_refused_and_why(saved: dict[str, Any], page: str) -> None:
    [(name, why)] = compared.refusals(saved)
    assert name == "u280" and why in _text(page)
    assert "no 16-bit weight path" in why


def test_the_page_says_what_binds_and_who_says_the_prices(saved: dict[str, Any], page: str) -> None:
    text = _text(page)
    for column in compared.able(saved):
        assert column["provenance"]["price"]["source"] in text
        assert column["provenance"]["price"]["date"] in text
    found = compared.bindings(saved)
    assert len(found) == 2 * len(compared.able(saved))
    assert all(b.busy in text for b in found)
    assert [b.bound for b in found if b.machine == "wse2"] == ["mesh", "mesh"]


def test_the_page_says_where_formats_differ(saved: dict[str, Any]) -> None:
    own = hwsim.compare("llama-2-7b", ["u280", "a100"])
    text = _text(comparison_page(own))
    assert "weight format differs: u280 int4, a100-sxm4-80gb bf16" in text
    assert "weights of each machine" in text


def test_bars_carry_values_and_bands(saved: dict[str, Any]) -> None:
    figure = bars_figure(saved)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    good = compared.able(saved)
    tpot = bars[1]
    assert list(tpot.x) == [c["metrics"]["tpot_s"]["value"] for c in good]
    ends = [x + up for x, up in zip(tpot.x, tpot.error_x.array, strict=True)]
    assert ends == pytest.approx([c["metrics"]["tpot_s"]["high"] for c in good])
    starts = [x - down for x, down in zip(tpot.x, tpot.error_x.arrayminus, strict=True)]
    assert starts == pytest.approx([c["metrics"]["tpot_s"]["low"] for c in good])
    bare = json.loads(json.dumps(saved))
    for column in compared.able(bare):
        for end in ("low", "high"):
            column["metrics"]["tpot_s"].pop(end)
    drawn = [trace.error_x.visible for trace in bars_figure(bare).data if trace.type == "bar"]
    assert drawn[:3] == [True, False, True]  # no whiskers where there is no band
    assert any("log scale" in note.text for note in figure.layout.annotations)


def test_names_on_the_page_are_escaped(saved: dict[str, Any]) -> None:
    evil = json.loads(json.dumps(saved))
    script = "<script>alert(1)</script>"
    evil["columns"][1]["hardware"]["name"] = evil["columns"][0]["infeasible"] = script
    evil["columns"][2]["provenance"]["price"]["source"] = evil["columns"][2]["workload"]["name"] = script
    assert "<script>alert(1)" not in comparison_page(evil)


def test_the_page_is_byte_stable_and_draws_nothing_where_no_machine_can(saved: dict[str, Any], page: str) -> None:
    assert comparison_page(saved) == page
    none = comparison_page(hwsim.compare("llama-3.1-405b", ["a100", "t4"]))
    assert "no machine can run this" in none and none.count("does not fit on") == 2
    assert len(none) < 10_000


def test_a_machine_named_twice_keeps_both_bars() -> None:
    figure = bars_figure(hwsim.compare("gpt2", ["t4", "t4"]))
    assert list(figure.data[0].y) == ["t4", "t4 (2)"]


def test_models_that_generate_nothing_are_compared_too() -> None:
    document = hwsim.compare("vit-base-patch16-224", ["a100", "t4"])
    assert "latency" in _text(comparison_page(document))


def test_a_what_if_is_said() -> None:
    document = hwsim.compare("gpt2", ["a100", "h100"], what_if={"memories.hbm.read": "3 TB/s"})
    for text in (comparison_table(document), _text(comparison_page(document))):
        assert "what if memories.hbm.read = 3 TB/s" in text


def test_busy_shares_are_of_the_phase(saved: dict[str, Any]) -> None:
    for found in compared.bindings(saved):
        shares = [float(s) for s in re.findall(r"(\d+) %", found.busy)]
        assert shares == sorted(shares, reverse=True) and 0 < shares[0] <= 101
