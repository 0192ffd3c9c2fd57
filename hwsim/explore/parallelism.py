"""`hwsim.plan`: search the layouts of a model on a machine, let a mapper choose, and say what binds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import CheckFailedError, InfeasibleError, InputError
from hwsim.explore.layout_claims import Asked, Verdict, judged, keeps, same_figures
from hwsim.explore.layout_stages import refiner
from hwsim.explore.layouts import Costed, Search, cost_layouts, price
from hwsim.mapping.parallelism.choose import Choice, Refined, as_is
from hwsim.mapping.parallelism.columns import Columns, Limits, allowed, failures, pareto
from hwsim.units import gib

SCHEMA: Final = "hwsim/parallelism@1"
RANKED: Final = 12
AGREEMENT: Final = 1e-9  # relative: the chosen column re-costed alone


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of the search."""

    objective: str
    limits: Limits = Limits()
    budget_s: float | None = None


def plan(search: Search, mapper: Any, goal: Goal, about: Mapping[str, Any]) -> dict[str, Any]:
    """The `hwsim/parallelism@1` document of a search. `about` is put in front (workload, hardware, inputs).

    Raises
    ------
    InfeasibleError: no layout is legal, fits or keeps the limits; the message names the limit and what is missing.
    CheckFailedError: the mapper chose a layout that breaks a limit, or whose figures are not the engine's, or claims
    another objective than it has. That it calls best what another layout beats is said in the document (``solver``).
    """
    costed = cost_layouts(search)
    columns = costed.columns
    _answerable(costed, goal, search)
    refine = Asked(refiner(search, columns))
    choice: Choice = mapper.map(columns, goal.objective, goal.limits, refine, goal.budget_s)
    _check(search, columns, choice, goal, refine)
    ranking = _ranking(columns, goal, refine, choice)
    verdict = judged(columns, goal.objective, goal.limits, choice, refine)
    good = allowed(columns, goal.limits)
    return {
        "schema": SCHEMA,
        **about,
        "devices": search.devices,
        "objective": goal.objective,
        "slo": {name: _finite(getattr(goal.limits, name)) for name in ("ttft_s", "tpot_s")},
        "mapper": mapper.name,
        "considered": _considered(costed, goal),
        "chosen": _row(columns, choice.best),
        "solver": _report(columns, choice, verdict),
        "ranking": [_row(columns, one) for one in ranking],
        "pareto": [_row(columns, as_is(columns, int(i))) for i in pareto(columns, good)],
        "binds": _binds(columns, goal, choice, verdict.report.bound),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _report(columns: Columns, choice: Choice, verdict: Verdict) -> dict[str, Any]:
    """What holds of the choice; `claimed` is the mapper's own word, `better` the best known layout if another."""
    report = verdict.report
    return {
        "solver": report.solver,
        "version": report.version,
        "status": report.status,
        "objective": report.objective,
        "bound": report.bound,
        "gap": report.gap,
        "refined": len(choice.refined),
        "claimed": choice.report.status,
        "better": None if verdict.better is None else _row(columns, verdict.better),
    }


def _answerable(costed: Costed, goal: Goal, search: Search) -> None:
    """Raise what is missing where nothing can be chosen."""
    columns, limits = costed.columns, goal.limits
    columns.value(goal.objective)
    fits = columns.fits
    if not fits.any():
        raise _too_big(costed, search)
    if goal.objective == "cost" and search.platform.price is None:
        raise InputError(
            f"no price of {search.platform.device.name} in the price files: nothing to minimise",
            where="--objective cost",
            fix="--price FILE, or another objective",
        )
    for name, metric in (("ttft", columns.ttft_s), ("tpot", columns.tpot_s)):
        limit = getattr(limits, f"{name}_s")
        if not (fits & (metric <= limit)).any():
            raise _too_slow(columns, name, metric, limit, fits)
    if not allowed(columns, limits).any():
        quick = fits & (columns.ttft_s <= limits.ttft_s)
        raise _too_slow(
            columns, "tpot", columns.tpot_s, limits.tpot_s, quick, " among layouts that keep the ttft limit"
        )


def _too_big(costed: Costed, search: Search) -> InfeasibleError:
    if not costed.unfit:
        return InfeasibleError(
            "no layout has work for all its replicas", seen=f"batch {search.batches}", fix="a larger --batch"
        )
    layout, short = min(costed.unfit.items(), key=lambda item: item[1])
    return InfeasibleError(
        f"{search.model.name} fits in no layout of {search.devices} devices: memory, {gib(short)} short on each device",
        where=f"memory of {search.platform.device.name} at the least short layout, {layout}",
        seen=f"{len(costed.unfit)} layouts, none fits",
        fix="more --devices, narrower --weights or --kv-cache, a smaller --batch or shorter --prompt",
        budget={"short_bytes": short},
    )


def _too_slow(columns: Columns, name: str, metric: Any, limit: float, among: Any, note: str = "") -> InfeasibleError:
    at = int(np.flatnonzero(among)[np.argmin(metric[among])])
    best = float(metric[at])
    layout = columns.layouts[int(columns.layout[at])]
    return InfeasibleError(
        f"no layout keeps {name} <= {limit * 1e3:.4g} ms{note}: {(best - limit) * 1e3:.4g} ms missing",
        where=f"the quickest is {layout} at batch {columns.batch[at]}",
        seen=f"{name} {best * 1e3:.4g} ms",
        fix=f"allow {name}={best * 1e3 * 1.001:.4g}ms, more --devices, narrower formats or a smaller --batch",
        budget={f"{name}_short_s": best - limit},
    )


def _check(search: Search, columns: Columns, choice: Choice, goal: Goal, refine: Asked) -> None:
    """The chosen column, re-costed as `hwsim evaluate` would with all laws on, must agree and keep the limits."""
    best = choice.best
    layout = columns.layouts[int(columns.layout[best.index])]
    batch = columns.batch[best.index : best.index + 1]
    for name, value in price(search, [layout], np.array([0]), batch, check=True).items():
        seen, true = float(getattr(columns, name)[best.index]), float(value[0])
        if np.isfinite(seen) and abs(seen - true) > AGREEMENT * abs(true):
            raise CheckFailedError(f"{name} of {layout} is not the engine's", seen=f"{seen} and {true}")
    if not keeps(best, goal.limits) or not bool(columns.fits[best.index]):
        raise CheckFailedError("the mapper chose a layout that breaks a limit", where=str(layout))
    if not same_figures(best, refine(best.index)):
        raise CheckFailedError("the mapper changed the figures of its choice", where=str(layout))


def _considered(costed: Costed, goal: Goal) -> dict[str, Any]:
    """How many layouts there are, and why the others fail."""
    columns = costed.columns
    legal, priced, unfit = len(columns.layouts), len(np.unique(columns.layout)), len(costed.unfit)
    late = {name: count for name, count in failures(columns, goal.limits).items() if name != "memory"}
    failed = {"memory": unfit, "more replicas than sequences": legal - priced - unfit, **late}
    return {
        "legal": legal,
        "illegal": dict(sorted(costed.refused.items(), key=lambda item: -item[1])),
        "priced_layouts": priced,
        "priced_points": len(columns),
        "failed": {name: count for name, count in failed.items() if count},
        "memory_short_bytes": min(costed.unfit.values(), default=None),
        "feasible": priced - sum(late.values()),
    }


def _ranking(columns: Columns, goal: Goal, refine: Any, choice: Choice) -> list[Refined]:
    """The best point of each of the best layouts, refined; the chosen one first."""
    value = columns.value(goal.objective)
    good = allowed(columns, goal.limits) & np.isfinite(value)
    order = np.flatnonzero(good)[np.argsort(value[good], kind="stable")]
    _, firsts = np.unique(columns.layout[order], return_index=True)
    chosen = int(columns.layout[choice.best.index])
    ranked = [choice.best]
    for index in order[np.sort(firsts)].tolist():
        if len(ranked) == RANKED:
            break
        if int(columns.layout[index]) == chosen:
            continue
        try:
            ranked.append(refine(index))
        except InfeasibleError:
            continue
    kept = [r for r in ranked[1:] if keeps(r, goal.limits)]
    return [choice.best, *sorted(kept, key=lambda r: r.value(goal.objective, columns.devices))]


def _row(columns: Columns, one: Refined) -> dict[str, Any]:
    """Plain data of one point."""
    at = one.index
    layout = columns.layouts[int(columns.layout[at])]
    speed = one.tpot_s or one.latency_s
    return {
        "tp": layout.tp,
        "pp": layout.pp,
        "dp": layout.dp,
        "ep": layout.ep,
        "sp": layout.sp,
        "devices": layout.devices,
        "batch": int(columns.batch[at]),
        "ttft_s": one.ttft_s,
        "tpot_s": one.tpot_s,
        "latency_s": one.latency_s,
        "tokens_per_s": one.tokens_per_s,
        "tokens_per_s_device": one.tokens_per_s / columns.devices,
        "tokens_per_s_user": 1.0 / speed,
        "energy_j_per_token": one.energy_j_per_token,
        "cost_usd_per_mtok": _finite(one.cost_usd_per_mtok),
        "memory_fill": float(columns.needed_bytes[at] / columns.usable_bytes[at]),
        "memory_bytes": float(columns.needed_bytes[at]),
        "stage_layers": None if one.partition is None else list(one.partition.counts),
        "equal_stages_latency_s": float(columns.latency_s[at]),
    }


def _binds(columns: Columns, goal: Goal, choice: Choice, bound: float) -> list[dict[str, Any]]:
    """What each limit costs: the best bound without it, over the bound with all (the chosen value, where proved)."""
    value = columns.value(goal.objective)
    found: list[dict[str, Any]] = []
    cases = {
        "ttft": (allowed(columns, goal.limits.without("ttft_s")), goal.limits.ttft_s, choice.best.ttft_s),
        "tpot": (allowed(columns, goal.limits.without("tpot_s")), goal.limits.tpot_s, choice.best.tpot_s),
        "memory": (
            allowed(columns, goal.limits, memory=False),
            float(columns.usable_bytes[choice.best.index]),
            float(columns.needed_bytes[choice.best.index]),
        ),
    }
    for name, (open_, limit, used) in cases.items():
        if not math.isfinite(limit) or not open_.any():
            continue
        best = float(value[open_].min())
        gain = (bound - best) / abs(bound)
        found.append({"limit": name, "allowed": limit, "used": used, "gain_without": max(gain, 0.0)})
    return found
