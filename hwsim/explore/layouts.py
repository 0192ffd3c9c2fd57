"""Costs of every legal layout of a model: one array call of the analytic engine for each (tp, ep, sp).

Stages, replicas and batches are the arrays of a call. Layouts that fit at no batch are not priced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsim.engine.estimate import Estimate, estimate, memory_of, static_power_w
from hwsim.errors import InfeasibleError
from hwsim.explore.continuous import Loop, closed_loop
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.mapping.parallelism.columns import Columns
from hwsim.mapping.parallelism.layouts import Extents, Layout, enumerate_layouts
from hwsim.validation.endtoend import CROWD

MOST_OF_A_REPLICA: Final = 1024  # sequences; serving engines cap running sequences at 256 to 1,024
# Numbers with three significant bits: 1 to 8, then four an octave, so that a limit is met within 25 %.
GRID: Final = tuple(
    sorted({m << k for m in range(1, 8) for k in range(10) if m << k <= MOST_OF_A_REPLICA} | {MOST_OF_A_REPLICA})
)
_FIGURES: Final = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "energy_j_per_token", "cost_usd_per_mtok")


@dataclass(frozen=True, slots=True)
class Search:
    """The question: `base` holds lengths and formats; `batches` are totals over all devices (empty: find them).

    `max_tp`: no wider tensor groups (None: any), e.g. to keep them inside a node. `continuous`: clients in a closed
    loop (`hwsim.explore.continuous`) instead of one static batch.
    """

    model: Any
    platform: Platform
    base: Scenario
    formats: Any
    devices: int
    batches: tuple[int, ...] = ()
    max_tp: int | None = None
    continuous: bool = False


@dataclass(frozen=True, slots=True)
class Costed:
    """Columns of what was priced; `refused` counts layouts by why they are illegal; `unfit` are those whose least
    batch does not fit, with the bytes missing on each device."""

    columns: Columns
    refused: dict[str, int]
    unfit: dict[Layout, float]


def cost_layouts(search: Search) -> Costed:
    """Price every legal layout.

    Raises
    ------
    InputError: more devices than the platform has, impossible sizes. InfeasibleError: no layout is legal.
    """
    legal = enumerate_layouts(_extents(search), search.platform, search.devices)
    refused: Counter[str] = Counter(legal.refused)
    groups: dict[tuple[int, int, bool], list[Layout]] = {}
    for layout in legal.layouts:
        if search.max_tp is not None and layout.tp > search.max_tp:
            refused["tp above the limit asked for"] += 1
            continue
        groups.setdefault((layout.tp, layout.ep, layout.sp), []).append(layout)
    kept: list[Layout] = []
    unfit: dict[Layout, float] = {}
    parts: list[dict[str, NDArray[Any]]] = []
    for members in groups.values():
        try:
            part = _group(search, members, len(kept), unfit)
        except InfeasibleError as error:
            refused[error.what] += len(members)
            continue
        kept += members
        if part:
            parts.append(part)
    if not kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in refused.most_common(3))
        raise InfeasibleError("no legal layout", where=search.platform.name, seen=reasons, fix="another --devices")
    return Costed(_join(parts, tuple(kept), search.devices), dict(refused), unfit)


def _extents(search: Search) -> Extents:
    model, formats = search.model, search.formats
    sizes = {"decode": (1, 1, 1)}
    return Extents.of(*(model.graph(phase, *sizes.get(phase, (1, 1, 0)), formats) for phase in model.phases))


def _group(
    search: Search, members: Sequence[Layout], first: int, unfit: dict[Layout, float]
) -> dict[str, NDArray[Any]] | None:
    """Columns of layouts that differ in stages and replicas only; None where none has a batch, {} where none fits."""
    pairs = [(i, batch) for i, layout in enumerate(members) for batch in batches_of(search, layout.dp)]
    if not pairs:
        return None
    index, batch = (np.array(x, dtype=np.int64) for x in zip(*pairs, strict=True))
    memory = memory_of(search.model, search.platform, _grid(search, members, index, batch), search.formats)
    needed, usable = (np.broadcast_to(x, batch.shape) for x in (memory.needed_bytes, memory.usable_bytes))
    short = np.full(len(members), np.inf)
    np.minimum.at(short, index, needed - usable)
    unfit.update({layout: float(short[i]) for i, layout in enumerate(members) if 0 < short[i] < np.inf})
    held = short[index] <= 0
    if not held.any():
        return {}
    index, batch, needed, usable = index[held], batch[held], needed[held], usable[held]
    figures = price(search, members, index, batch)
    used = np.array([layout.devices for layout in members], dtype=np.int64)[index]
    sizes = {"layout": index + first, "batch": batch, "used": used, "needed_bytes": needed, "usable_bytes": usable}
    return {**sizes, **figures}


def price(
    search: Search,
    members: Sequence[Layout],
    index: NDArray[np.int64],
    batch: NDArray[np.int64],
    *,
    check: bool = False,
) -> dict[str, NDArray[Any]]:
    """Figures of points by column name: point i is ``members[index[i]]`` at `batch[i]`. `check` asserts the laws."""
    scenario = _grid(search, members, index, batch)
    result = estimate(search.model, search.platform, scenario, search.formats, check=check)
    figures = {name: np.broadcast_to(value, batch.shape) for name, value in figures_of(result).items()}
    if not search.continuous:
        return figures
    prompts = np.array([layout.dp for layout in members], dtype=np.int64)
    every = np.arange(len(members))
    twice, sizes = np.concatenate([every, every]), np.concatenate([prompts, prompts * CROWD])
    alone = estimate(search.model, search.platform, _grid(search, members, twice, sizes), search.formats, check=check)
    ttft = np.broadcast_to(alone.metrics["ttft_s"].value, twice.shape)
    one, crowd = ttft[: len(members)][index], ttft[len(members) :][index]
    return closed_loop(figures, one, crowd, loop_of(search, scenario))


def loop_of(search: Search, scenario: Scenario) -> Loop:
    """The closed loop that serves the sequences of a scenario."""
    power = static_power_w(search.platform, scenario.devices, scenario.efficiency)
    answer = float(np.max(scenario.output_tokens))
    return Loop(scenario.batch, scenario.batch_of_replica, scenario.devices, answer, power, search.platform)


def _grid(search: Search, members: Sequence[Layout], index: NDArray[np.int64], batch: NDArray[np.int64]) -> Scenario:
    """One scenario of many points: the layout of each by its index."""
    pp: Any = np.array([layout.pp for layout in members], dtype=np.int64)[index]
    dp = np.array([layout.dp for layout in members], dtype=np.int64)[index]
    return replace(scenario_of(search, members[0], batch, dp), pp=pp)


def batches_of(search: Search, replicas: int) -> list[int]:
    """Total batches to try with so many replicas: those asked for, or the grid of one replica times the replicas."""
    if search.batches:
        return [batch for batch in search.batches if batch >= replicas]
    return [replicas * batch for batch in GRID]


def scenario_of(search: Search, layout: Layout, batch: Any, replicas: Any) -> Scenario:
    """The scenario that `hwsim evaluate` would be given."""
    return replace(search.base, tp=layout.tp, pp=layout.pp, ep=layout.ep, sp=layout.sp, dp=replicas, batch=batch)


def figures_of(result: Estimate) -> dict[str, Any]:
    """Figures of an estimate by column name; a model of one phase has TTFT = latency and TPOT = 0."""
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    return {
        "ttft_s": metrics.get("ttft_s", metrics["latency_s"]),
        "tpot_s": metrics.get("tpot_s", 0.0),
        "latency_s": metrics["latency_s"],
        "tokens_per_s": metrics["throughput_tokens_per_s"],
        "energy_j_per_token": metrics["energy_j_per_token"],
        "cost_usd_per_mtok": metrics.get("cost_usd_per_mtok", np.nan),
    }


def _join(parts: list[dict[str, NDArray[Any]]], layouts: tuple[Layout, ...], devices: int) -> Columns:
    names = ("layout", "batch", "used", *_FIGURES, "needed_bytes", "usable_bytes")
    empty = np.array([], dtype=np.int64)
    joined = {name: np.concatenate([part[name] for part in parts]) if parts else empty for name in names}
    return Columns(layouts=layouts, devices=devices, **joined)
