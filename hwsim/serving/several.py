"""Several models in one cluster: their engines, which requests ask for which, and how each fares.

`--also "llama-3.1-70b share=0.3 tp=4 replicas=2, qwen3-8b share=0.2"` (or a list of mappings in Python and in scenario
files) adds models beside the one of the run. Each has replicas of its own behind a router of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.serving.arrivals import Lengths, stream
from hwsim.serving.result import ServingResult, summary
from hwsim.serving.traces import Trace

_NUMBERS: Final = ("share", "replicas", "tp", "pp", "dp", "max_batch", "chunk", "kv_blocks")
_WORDS: Final = ("workload", "name", "hw", "policy", "weights", "activations", "kv_cache", "prompt", "output")
_MODELS: Final = 5  # purpose of the random stream that deals requests to models
_LENGTHS: Final = {"prompt": 2, "output": 3}
_SHOWN: Final = ("mean", "p50", "p99")


@dataclass(frozen=True, slots=True)
class Companion:
    """A model beside that of the run: name in traces, share of the requests, and options that differ from the run's."""

    name: str
    share: float | None
    replicas: int
    options: Mapping[str, Any]


def companions_of(given: Mapping[str, Any]) -> list[Companion]:
    """The models of ``also``; empty where there are none.

    Raises InputError, UnknownNameError: unknown fields, shares that leave nothing, options that go with one model only.
    """
    also = given.get("also")
    if not also:
        return []
    rows = [_fields(part) for part in also.split(",")] if isinstance(also, str) else list(also)
    found = [_companion(row) for row in rows]
    names = [str(given["workload"]), *(one.name for one in found)]
    if len(set(names)) < len(names):
        raise InputError("two models of a cluster have one name", where="--also", seen=", ".join(names), fix="name=...")
    if sum(one.share or 0.0 for one in found) >= 1:
        raise InputError("the shares of --also leave no requests to the model of the run", where="--also")
    for option in ("prefill_pool", "partition", "autoscale", "closed_loop", "application", "reference", "decode_hw"):
        if given.get(option):
            raise InputError("this option serves clusters of one model", where=f"--{option.replace('_', '-')}")
    if any("hw" in one.options for one in found) and (given.get("what_if") or given.get("price")):
        raise InputError("what-if fields and price lists change one machine; --also names another", where="--also")
    return found


def _fields(text: str) -> dict[str, str]:
    first, *pairs = text.split() or [""]
    row = {"workload": first}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError("--also takes MODEL NAME=VALUE ...", where="--also", seen=pair, fix="share=0.3 tp=4")
        row[name] = value
    return row


def _companion(row: Any) -> Companion:
    if not isinstance(row, Mapping) or not row.get("workload"):
        raise InputError("each model of --also needs a workload", where="--also", seen=str(row)[:60])
    for name in row:
        if name not in (*_NUMBERS, *_WORDS):
            raise unknown_name("field", str(name), (*_NUMBERS, *_WORDS), where="--also")
    numbers = {name: _number(name, row[name]) for name in _NUMBERS if name in row}
    share = numbers.pop("share", None)
    if share is not None and not 0 < share < 1:
        raise InputError("the share of a model lies between 0 and 1", where="--also share", seen=str(share))
    options: dict[str, Any] = {name: int(value) for name, value in numbers.items()}
    options |= {name: row[name] for name in _WORDS if name in row and name != "name"}
    return Companion(str(row.get("name", row["workload"])), share, options.pop("replicas", 1), options)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number > 0 or (name != "share" and not number.is_integer()):
        raise InputError(f"{name} of a model must be a number above 0", where=f"--also {name}", seen=repr(value))
    return number


def dealt(given: Mapping[str, Any], trace: Trace, also: Sequence[Companion]) -> Trace:
    """The trace with a model for each request: its own column, or drawn by the shares (the rest: the run's model).

    Models that state lengths of their own get those, where the requests are generated. Raises InputError.
    """
    if trace.models is not None and any(one.share is not None for one in also):
        raise InputError("the trace says which model each request asks for; shares do too", where="--also share")
    if trace.models is not None:
        return trace
    if any(one.share is None for one in also):
        raise InputError(
            "each model of --also needs a share of the requests, or the trace a column `model`", where="--also share"
        )
    shares = [1 - sum(one.share or 0.0 for one in also), *(one.share or 0.0 for one in also)]
    picks = stream(int(given["seed"]), _MODELS).choice(len(shares), size=len(trace), p=shares)
    names = [str(given["workload"]), *(one.name for one in also)]
    made = replace(trace, models=[names[pick] for pick in picks])
    for number, one in enumerate(also, start=1):
        made = _own_lengths(given, made, one, picks == number)
    return made


def _own_lengths(given: Mapping[str, Any], trace: Trace, one: Companion, mine: Any) -> Trace:
    columns = {name: getattr(trace, name) for name in _LENGTHS}
    for name in _LENGTHS:
        if name not in one.options:
            continue
        if given.get("trace") is not None:
            raise InputError(f"the trace says how long each {name} is", where=f"--also {name}")
        sizes = Lengths.of(one.options[name], f"--also {name}")
        drawn = sizes.draw(given["lengths"], len(trace), int(given["seed"]), _LENGTHS[name])
        columns[name] = array("l", np.where(mine, drawn, getattr(trace, name)).tolist())
    return replace(trace, prompt=columns["prompt"], output=columns["output"])


def requests_of(trace: Trace, name: str) -> Trace:
    """The requests that ask for a model; the whole trace where none does."""
    rows = [i for i, model in enumerate(trace.models or ()) if model == name]
    if not rows:
        return trace
    arrival, prompt, output = trace.arrival_s, trace.prompt, trace.output
    return Trace(
        trace.name, array("d", [arrival[i] for i in rows]), array("l", [prompt[i] for i in rows]),
        array("l", [output[i] for i in rows]),
    )  # fmt: skip


def per_model(result: ServingResult, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a model: replicas, requests, finished ones, means and percentiles of TTFT, TPOT, end to end."""
    serving = [replica.spec.model for replica in result.cluster.everyone]
    models = np.asarray(result.cluster.source.models, dtype=object)
    done = result.finished
    rows = []
    for name in names:
        mine = models == name
        row: dict[str, Any] = {"name": name, "replicas": serving.count(name), "requests": int(mine.sum()),
                               "finished": int((mine & done).sum())}  # fmt: skip
        kept = mine[done]
        for metric in ("ttft_s", "tpot_s", "e2e_s"):
            found = summary(metric, getattr(result, metric)[kept])
            row |= {f"{metric}_{s}": found[f"{metric}_{s}"]["value"] for s in _SHOWN if found}
        row["slo_attainment"] = float(result.good()[kept].sum() / mine.sum()) if mine.any() else 0.0
        rows.append(row)
    return rows
