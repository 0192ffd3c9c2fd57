"""Scores predicted TTFT and TPOT against serving benchmarks of real engines (``e2e_serving.csv`` schema).

Kernel times come from the ordinary engine (`hwsim.engine.estimate`) with shipped calibrations; nothing here is
fitted to these rows but the front-end time below. The benchmarks are closed loops: C clients each wait for their
answer and ask again, all prompts and answers have the same length. From a decode step D(C) at the mean context and a
prompt pass P(1):

- TPOT = D + (C - 1) P' / osl: within one answer every other client's prompt passes once, in a step that streams the
  weights anyway; P' is the cost of one more prompt, (P(8) - P(1)) / 7.
- TTFT = P (1 + sqrt(C) / 2) + D + front end: clients of equal length drift into step, and the prompts ahead of a new
  one grow as the fluctuation of C random phases (1 at C = 4); then the running step and the server's front end.
- dense models under TensorRT-LLM 1.0 wait as if the engine had one slot less than clients: + osl TPOT / C.

Not modelled: attention data parallelism (priced as tensor parallelism), prefix reuse, disaggregation, engines bound
by their host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsim.engine.estimate import estimate
from hwsim.frontends.catalog import resolve_model
from hwsim.frontends.formats import Formats
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.validation.endtoend_runs import (
    Deployment,
    Report,
    Run,
    Scored,
    node_of,
    read_runs,
    score_deployments,
    unusable,
)

Array = NDArray[Any]
# Front end between a request's arrival and its first scheduling, seconds: tokenizer, HTTP, scheduler hand-over.
# Median of what the DEV rows of each engine leave over the queueing terms above.
FRONT_END_S: Final = {"trtllm": 0.045, "vllm": 0.0, "sglang": 0.0}
CROWD: Final = 8  # prompts of the pass whose cost beyond one prompt gives that of one more prompt in a running batch
LOW_CONCURRENCY: Final = 8  # clients; at most so many is reported apart, as batches are small


def predict_runs(runs: Sequence[Run]) -> Report:
    """TTFT and TPOT of every aggregated closed-loop run; one engine call a deployment, arrays over its runs."""
    return score_deployments(runs, unusable, _predict)


def _predict(deployment: Deployment, runs: Sequence[Run]) -> list[Scored]:
    name, gpu, weights, tp, ep = deployment
    model = resolve_model(name).model
    platform = node_of(gpu, tp)
    isl, osl, clients = (np.array([r.number(k) for r in runs]) for k in ("isl", "osl", "concurrency"))
    formats = Formats.of(weights, "bf16" if weights == "mxfp4" else None, None)
    base = Scenario(1, isl, osl, formats.weights.name, formats.activations.name, formats.kv_cache.name, tp=tp, ep=ep)
    prompt_s = _metric(model, platform, base, formats, "ttft_s") + 0.0 * isl
    step_s = _metric(model, platform, replace(base, batch=clients), formats, "tpot_s") + 0.0 * isl
    crowd_s = _metric(model, platform, replace(base, batch=CROWD), formats, "ttft_s") + 0.0 * isl
    one_more_s = (crowd_s - prompt_s) / (CROWD - 1)
    tpot = step_s + (clients - 1.0) * one_more_s / osl
    backend = [r.text["backend"] for r in runs]
    ahead = 0.5 * np.sqrt(clients) * np.minimum(clients - 1.0, 1.0)
    ttft = (1.0 + ahead) * prompt_s + step_s + np.array([FRONT_END_S.get(b, 0.0) for b in backend])
    short = np.array([b == "trtllm" for b in backend]) & (model.spec.moe is None)
    ttft = ttft + np.where(short, osl * tpot / clients, 0.0)
    return [Scored(r, float(a) * 1e3, float(b) * 1e3) for r, a, b in zip(runs, ttft, tpot, strict=True)]


def _metric(model: Any, platform: Platform, scenario: Scenario, formats: Formats, name: str) -> Array:
    return np.asarray(estimate(model, platform, scenario, formats).metrics[name].value)


def validate_endtoend(path: Path | str, *, simulated: bool = False) -> dict[str, Any]:
    """Score a file, or ``e2e_serving.csv`` of a folder: one row a model, engine and concurrency band, and in all.

    `simulated` replays the closed loops in the request-level simulator instead of the closed formulas above.
    """
    path = Path(path)
    path = path / "e2e_serving.csv" if path.is_dir() else path
    runs = read_runs(path)
    if simulated:
        from hwsim.validation.endtoend_loops import simulate_runs  # loads the request-level simulator

        report = simulate_runs(runs)
    else:
        report = predict_runs(runs)
    groups: dict[tuple[str, str, str, str], list[Scored]] = {}
    for item in report.scored:
        text = item.run.text
        low = item.run.number("concurrency") <= LOW_CONCURRENCY
        band = f"<= {LOW_CONCURRENCY}" if low else f"> {LOW_CONCURRENCY}"
        for key in ((text["model"], text["gpu"], text["backend"], band), ("all", "all", "all", band)):
            groups.setdefault(key, []).append(item)
    for backend in sorted({item.run.text["backend"] for item in report.scored}):
        groups["all", "all", backend, "all"] = [i for i in report.scored if i.run.text["backend"] == backend]
    if report.scored:
        groups["all", "all", "all", "all"] = list(report.scored)
    rows = [
        {"model": m, "gpu": u, "backend": b, "concurrency": c, **score(g)} for (m, u, b, c), g in sorted(groups.items())
    ]
    return {
        "schema": "hwsim/validate-endtoend@1",
        "file": path.name,
        "method": "simulation" if simulated else "formula",
        "rows": rows,
        "skipped": dict(report.skipped),
    }


def score(items: Sequence[Scored]) -> dict[str, float]:
    """Mean and median absolute percentage error and bias of TPOT, TTFT and end-to-end time."""
    out: dict[str, float] = {"n": len(items)}
    ours = {name: np.array([getattr(s, f"{name}_ms") for s in items]) for name in ("tpot", "ttft")}
    theirs = {name: np.array([s.run.number(f"{name}_ms") for s in items]) for name in ours}
    after = np.array([s.run.number("osl") - 1.0 for s in items])
    for times in (ours, theirs):
        times["e2e"] = times["ttft"] + times["tpot"] * after
    for name in ("tpot", "ttft", "e2e"):
        ratio = ours[name] / theirs[name]
        error = 100.0 * np.abs(ratio - 1.0)
        out |= {f"{name}_mape_percent": float(error.mean()), f"{name}_median_percent": float(np.median(error))}
        out[f"{name}_bias_percent"] = float(100.0 * (ratio - 1.0).mean())
    return out
