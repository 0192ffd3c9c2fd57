"""From what a user asks of `hwsim.plan` to a search, its goal and the identity of the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim import units
from hwsim.errors import InputError, unknown_name
from hwsim.explore.layouts import MOST_OF_A_REPLICA, Search
from hwsim.explore.parallelism import Goal, plan
from hwsim.frontends.formats import Formats
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.mapping.parallelism.columns import OBJECTIVES, Limits
from hwsim.mapping.registry import load_mapper

PLAN_DEFAULTS: Final[Mapping[str, Any]] = {
    "devices": None, "objective": "throughput", "slo": None, "batch": (), "mapper": "parallelism", "budget": None,
    "max_tp": None, "batching": "static",
}  # fmt: skip
BATCHING: Final = ("static", "continuous")
_MOST_DEVICES: Final = 65_536


def answer(
    model: Any, platform: Platform, scenario: Scenario, asked: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The `hwsim/parallelism@1` document of a resolved question; `asked` has the keys of `PLAN_DEFAULTS`.

    Raises
    ------
    InputError, UnknownNameError: impossible wishes. InfeasibleError: nothing is legal, fits or keeps the limits.
    """
    asked = {**PLAN_DEFAULTS, **asked}
    if asked["objective"] not in OBJECTIVES:
        raise unknown_name("objective", str(asked["objective"]), OBJECTIVES, where="--objective")
    mapper = load_mapper(asked["mapper"]).mapper
    if getattr(mapper, "kind", "tiling") != "layout":
        raise InputError(
            f"{mapper.name} does not choose layouts",
            where="--mapper",
            fix="parallelism, or a file whose MAPPER has kind = 'layout'",
        )
    platform, devices = sized(platform, asked["devices"])
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    base = replace(
        scenario, weights=formats.weights.name, activations=formats.activations.name, kv_cache=formats.kv_cache.name
    )
    limits = _batches(asked["batch"]), _max_tp(asked["max_tp"])
    search = Search(model, platform, base, formats, devices, *limits, _continuous(asked["batching"], model))
    goal = Goal(asked["objective"], limits_of(asked["slo"]), _budget(asked["budget"]))
    return plan(search, mapper, goal, {**about, "scenario": {**_scenario(base), "batching": asked["batching"]}})


def sized(platform: Platform, devices: object) -> tuple[Platform, int]:
    """The platform with as many devices as asked for; a bare device is copied, its link makes the node."""
    if devices is None:
        return platform, platform.count
    if not isinstance(devices, int) or isinstance(devices, bool) or not 1 <= devices <= _MOST_DEVICES:
        raise InputError(
            f"--devices must be a whole number from 1 to {_MOST_DEVICES:,}", where="devices", seen=str(devices)[:40]
        )
    bare = platform.count == 1 and platform.scale_out is None
    return (platform.with_(count=devices) if bare else platform), devices


def _continuous(batching: object, model: Any) -> bool:
    if batching not in BATCHING:
        raise unknown_name("batching", str(batching), BATCHING, where="--batching")
    if batching == "continuous" and "decode" not in model.phases:
        raise InputError(f"{model.name} has no decode steps to batch", where="--batching", fix="--batching static")
    return batching == "continuous"


def _max_tp(limit: object) -> int | None:
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InputError("--max-tp must be a whole number of at least 1", where="max_tp", seen=str(limit)[:40])
    return limit


def _batches(batch: object) -> tuple[int, ...]:
    """Total batches to try, sorted, once each."""
    given: Sequence[Any] = list(batch) if isinstance(batch, Sequence | np.ndarray) else [batch]
    values = [b for b in given if b is not None]
    most = MOST_OF_A_REPLICA * _MOST_DEVICES
    if not all(isinstance(b, int | np.integer) and 1 <= b <= most for b in values):
        raise InputError(f"--batch must be a whole number from 1 to {most:,}", where="batch", seen=str(batch)[:60])
    return tuple(sorted({int(b) for b in values}))


def limits_of(slo: object) -> Limits:
    """``ttft=1s,tpot=50ms``, or a mapping of the names to quantity strings or seconds. Raises InputError, UnitError."""
    if slo is None:
        return Limits()
    pairs: Mapping[str, Any]
    if isinstance(slo, str):
        parts = [part.partition("=") for part in slo.split(",") if part.strip()]
        pairs = {name.strip(): value.strip() for name, _, value in parts}
    elif isinstance(slo, Mapping):
        pairs = slo
    else:
        raise InputError("--slo needs NAME=TIME pairs", seen=str(slo)[:60], fix="--slo ttft=1s,tpot=50ms")
    found: dict[str, float] = {}
    for name, value in pairs.items():
        if name not in ("ttft", "tpot"):
            raise unknown_name("limit", name, ("ttft", "tpot"), where="--slo")
        seconds = units.parse(value, "time", where=f"--slo {name}") if isinstance(value, str) else float(value)
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"the limit {name} must be a finite time above 0", where="--slo", seen=str(value))
        found[f"{name}_s"] = seconds
    return Limits(**found)


def _budget(budget: object) -> float | None:
    if budget is None:
        return None
    seconds = units.parse(budget, "time", where="--budget") if isinstance(budget, str) else float(str(budget))
    if not seconds > 0:
        raise InputError("--budget must be above 0", where="--budget", seen=str(budget))
    return seconds


def _scenario(base: Scenario) -> dict[str, Any]:
    return {
        "prompt_tokens": base.prompt_tokens,
        "output_tokens": base.output_tokens,
        "weights": base.weights,
        "activations": base.activations,
        "kv_cache": base.kv_cache,
        "efficiency": base.efficiency,
        "memory_fraction": base.memory_fraction,
    }
