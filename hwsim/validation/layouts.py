"""Does hwsim order layouts as measured? Runs of one model, GPU, engine and lengths that differ in their layout.

Closed loops (``agg`` rows of the serving schema) are predicted as in `hwsim.validation.endtoend`; static batches as
`hwsim evaluate` would. Throughput per GPU = sequences x answer tokens / (TTFT + (answer - 1) TPOT) / GPUs.

Two questions: within one load (same clients or batch), are layouts ordered right? And the question of the
parallelism mapper: over all layouts and loads of a model, which gives the most tokens per second and GPU under a
limit on TPOT, and what does the predicted choice reach as measured?
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.engine.estimate import estimate
from hwsim.errors import HwsimError
from hwsim.frontends.catalog import resolve_model
from hwsim.frontends.formats import Formats
from hwsim.ir.scenario import Scenario
from hwsim.validation.endtoend import predict_runs
from hwsim.validation.endtoend_runs import Run, node_of, read_runs

LIMITS_MS: Final = (8.0, 10.0, 15.0, 20.0, 30.0, 50.0)
TIE: Final = 0.03  # measured runs repeat within 3 %: closer pairs have no order


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its place among comparable runs, layout, load, and (measured, predicted) TPOT and tokens/s/GPU."""

    family: tuple[str, ...]
    layout: tuple[int, ...]
    load: float
    tpot_ms: tuple[float, float]
    rate: tuple[float, float]


def validate_layouts(path: Path | str) -> dict[str, Any]:
    """Scores by model and GPU of a serving CSV (or the folder that holds it). Raises InputError for a bad file."""
    path = Path(path)
    path = path / "e2e_serving.csv" if path.is_dir() else path
    runs = read_runs(path)
    twins = [r for r in runs if r.number("attn_dp") > 1]
    closed = predict_runs([r for r in runs if r not in twins])
    points = [_closed(s.run, s.ttft_ms, s.tpot_ms) for s in closed.scored]
    static, skipped = _static([r for r in runs if r.text.get("mode") == "static-batch"])
    points += static
    kinds: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        kinds.setdefault((point.family[0], point.family[1]), []).append(point)
    rows = [{"model": m, "gpu": g, **scores(members)} for (m, g), members in sorted(kinds.items())]
    rows = [row for row in rows if row["groups"]]
    rows.append({"model": "all", "gpu": "all", **scores(points)})
    rows = [{name: None if value != value else value for name, value in row.items()} for row in rows]
    left = {"attention data parallel: same times as without it, no second layout": len(twins)} if twins else {}
    left |= {reason: n for reason, n in closed.skipped.items() if "static-batch" not in reason} | skipped
    return {"schema": "hwsim/validate-layouts@1", "file": path.name, "rows": rows, "skipped": left}


def _closed(run: Run, ttft_ms: float, tpot_ms: float) -> Point:
    clients, answer, gpus = run.number("concurrency"), run.number("osl"), run.number("tp")
    experts = tuple(int(v) if np.isfinite(v) else 1 for v in (run.number("moe_tp"), run.number("moe_ep")))
    names = tuple(run.text[k] for k in ("model", "gpu", "backend", "version", "isl", "osl"))
    measured = _rate(clients, answer, gpus, run.number("ttft_ms"), run.number("tpot_ms"))
    predicted = _rate(clients, answer, gpus, ttft_ms, tpot_ms)
    return Point(names, (int(gpus), *experts), clients, (run.number("tpot_ms"), tpot_ms), (measured, predicted))


def _rate(sequences: float, answer: float, gpus: float, ttft_ms: float, tpot_ms: float) -> float:
    return sequences * answer / (ttft_ms + (answer - 1) * tpot_ms) * 1e3 / gpus


def _static(runs: Sequence[Run]) -> tuple[list[Point], dict[str, int]]:
    """Static batches of an eager engine: TTFT, TPOT of one estimate a run."""
    points: list[Point] = []
    skipped: dict[str, int] = {}
    for run in runs:
        batch, prompt, answer, tp = (int(run.number(k)) for k in ("batch", "isl", "osl", "tp"))
        try:
            formats = Formats.of(run.weights, None, None)
            scenario = Scenario(batch, prompt, answer, formats.weights.name, formats.activations.name, tp=tp)
            platform = node_of(run.text["gpu"], tp)
            metrics = estimate(resolve_model(run.text["model"]).model, platform, scenario, formats).metrics
        except HwsimError as error:
            skipped[error.what] = skipped.get(error.what, 0) + 1
            continue
        ttft, tpot = (float(metrics[k].value) * 1e3 for k in ("ttft_s", "tpot_s"))
        names = tuple(run.text[k] for k in ("model", "gpu", "backend", "version", "isl", "osl"))
        measured = _rate(batch, answer, tp, run.number("ttft_ms"), run.number("tpot_ms"))
        pair = (measured, _rate(batch, answer, tp, ttft, tpot))
        points.append(Point(names, (tp, 1, 1), batch, (run.number("tpot_ms"), tpot), pair))
    return points, skipped


def scores(points: Sequence[Point]) -> dict[str, Any]:
    """Order within a load, and the quality of choices under limits."""
    groups = _grouped(points, lambda p: (*p.family, p.load))
    ranks = [rank for group in groups if (rank := spearman([p.rate for p in group])) is not None]
    out: dict[str, Any] = {
        "runs": len(points),
        "groups": len(groups),
        "rate_pairs_right_percent": _pairs(groups, "rate"),
        "fewer_gpus_right_percent": _pairs([[_by_gpus(p) for p in group] for group in groups], "rate"),
        "tpot_pairs_right_percent": _pairs(groups, "tpot_ms"),
        "rate_spearman": float(np.mean(ranks)) if ranks else float("nan"),
    }
    return out | _choices(_grouped(points, lambda p: p.family))


def _by_gpus(point: Point) -> Point:
    """The point as the rule "fewer GPUs give more per GPU" would predict it: what the order alone is worth."""
    return replace(point, rate=(point.rate[0], 1.0 / point.layout[0]))


def _grouped(points: Iterable[Point], key: Any) -> list[list[Point]]:
    """Sets of points with at least two layouts; of repeated runs of one layout and load the first counts."""
    found: dict[Any, dict[Any, Point]] = {}
    for point in points:
        found.setdefault(key(point), {}).setdefault((point.layout, point.load), point)
    sets = [list(group.values()) for group in found.values()]
    return [group for group in sets if len({p.layout for p in group}) > 1]


def _pairs(groups: Sequence[Sequence[Point]], name: str) -> float:
    """Percent of pairs, further apart than repeated runs, whose order is predicted."""
    right = total = 0
    for group in groups:
        for a, b in itertools.combinations(group, 2):
            (one, mine), (two, other) = getattr(a, name), getattr(b, name)
            if abs(one - two) > TIE * max(one, two):
                total += 1
                right += (one > two) == (mine > other)
    return 100.0 * right / total if total else float("nan")


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation of (measured, predicted), or None for fewer than three."""
    if len(pairs) < 3:
        return None
    ranks = [np.argsort(np.argsort(column)) for column in zip(*pairs, strict=True)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _choices(families: Sequence[Sequence[Point]]) -> dict[str, float]:
    """For every family and limit that some run keeps: what the predicted choice reaches as measured."""
    shares, overs, same = [], [], []
    for family in families:
        for limit in LIMITS_MS:
            fine = [p for p in family if p.tpot_ms[0] <= limit]
            thought = [p for p in family if p.tpot_ms[1] <= limit]
            if not fine or not thought:
                continue
            best = max(fine, key=lambda p: p.rate[0])
            chosen = max(thought, key=lambda p: p.rate[1])
            same.append(chosen.layout == best.layout)
            overs.append(chosen.tpot_ms[0] / limit)
            shares.append(chosen.rate[0] / best.rate[0])
    if not same:
        return {"choices": 0}
    kept = np.array(overs) <= 1.0
    near = np.array(overs) <= 1.1
    return {
        "choices": len(same),
        "same_layout_percent": 100.0 * float(np.mean(same)),
        "limit_kept_percent": 100.0 * float(kept.mean()),
        "limit_kept_within_10_percent": 100.0 * float(near.mean()),
        "rate_of_best_percent": 100.0 * float(np.median(np.array(shares)[kept])) if kept.any() else float("nan"),
    }
