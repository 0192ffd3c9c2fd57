"""Scores of layout order and choice: exact on made-up points, and the bars on the shared runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.validation.layouts import Point, scores, spearman, validate_layouts


def point(gpus: int, load: float, tpot: tuple[float, float], rate: tuple[float, float]) -> Point:
    return Point(("m", "g"), (gpus, 1, 1), load, tpot, rate)


PERFECT = [
    point(gpus, load, (20.0 * load / gpus + 5, 20.0 * load / gpus + 5), (load / gpus, load / gpus))
    for gpus in (1, 2, 4)
    for load in (1.0, 2.0)
]


def test_a_perfect_prediction_scores_perfectly() -> None:
    found = scores(PERFECT)
    assert found["groups"] == 2
    assert found["rate_pairs_right_percent"] == found["tpot_pairs_right_percent"] == 100.0
    assert found["rate_spearman"] == pytest.approx(1.0)
    assert found["same_layout_percent"] == found["limit_kept_percent"] == found["rate_of_best_percent"] == 100.0


def test_an_inverted_prediction_scores_nothing() -> None:
    turned = [replace(p, tpot_ms=(p.tpot_ms[0], -p.tpot_ms[0]), rate=(p.rate[0], -p.rate[0])) for p in PERFECT]
    found = scores(turned)
    assert found["rate_pairs_right_percent"] == found["tpot_pairs_right_percent"] == 0.0
    assert found["rate_spearman"] == pytest.approx(-1.0)


def test_the_rule_of_fewer_gpus_is_scored_beside() -> None:
    assert scores(PERFECT)["fewer_gpus_right_percent"] == 100.0
    scaled = [replace(p, rate=(1.0 / p.rate[0], p.rate[1])) for p in PERFECT]
    assert scores(scaled)["fewer_gpus_right_percent"] == 0.0


def test_pairs_within_the_noise_have_no_order() -> None:
    found = scores([point(1, 1.0, (10.0, 10.0), (100.0, 1.0)), point(2, 1.0, (10.1, 9.0), (99.0, 2.0))])
    assert np.isnan(found["rate_pairs_right_percent"])


def test_one_layout_is_no_comparison() -> None:
    assert scores([p for p in PERFECT if p.layout[0] == 1])["groups"] == 0
    assert spearman([(1.0, 1.0), (2.0, 2.0)]) is None


@pytest.mark.shared
@pytest.mark.long
def test_layouts_of_serving_runs_are_ordered_as_measured(shared: Path) -> None:
    rows = {(r["model"], r["gpu"]): r for r in validate_layouts(shared / "measured")["rows"]}
    everything = rows["all", "all"]
    assert everything["rate_pairs_right_percent"] > 98
    assert everything["tpot_pairs_right_percent"] > 92
    served = [r for (m, _), r in rows.items() if m not in ("all", "llama2-70b")]
    assert all(r["limit_kept_within_10_percent"] > 90 for r in served)
    assert all(r["rate_of_best_percent"] > 95 for r in served)
