"""Which placement is asked for: operators on devices, tensors in tiers, or fine-tuning state. One document each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsim import units
from hwsim.errors import InputError, unknown_name
from hwsim.explore.placement.decide import place_model
from hwsim.explore.placement.finetune import finetune_case
from hwsim.explore.placement.offload import offload_case
from hwsim.explore.placement.phases import Request, check_request
from hwsim.explore.placement.price import Options
from hwsim.explore.placement.tensors import place_case
from hwsim.frontends.catalog import resolve_model
from hwsim.ir.platform import Device
from hwsim.schema.loader import load_hardware

DEFAULTS: Final[dict[str, Any]] = {
    "cut": "graph", "objective": "latency", "tiers": (), "walk": "serial", "rooms": {}, "link": None, "weights": (),
    "activations": None, "kv_cache": None, "keep_on_chip": False, "phase": None, "batch": 1, "prompt": None,
    "output": 128, "efficiency": "calibrated", "memory_fraction": 0.9, "budget": None, "mapper": "placement",
    "what_if": {}, "explain": False,
}  # fmt: skip
DEFAULT_PROMPT: Final = 512
Vary = Callable[[Device, Mapping[str, Any]], Device]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Options read and filled in."""

    request: Request
    options: Options
    how: dict[str, Any]
    table: dict[str, Any]


def answer(workload: str, hardware: Sequence[str], given: Mapping[str, Any], vary: Vary) -> dict[str, Any]:
    """The `hwsim/placement@1` document of a question; `given` are options of `DEFAULTS`.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: does not fit; names device or tier, operators
    or tensors, shortfall. SolverError: a solver is missing, or gave no answer in the budget.
    """
    for name in given:
        if name not in DEFAULTS:
            raise unknown_name("option", name, DEFAULTS)
    if not hardware:
        raise InputError("a placement needs hardware", where="--hw", fix="--hw A --hw B")
    asked = _read(workload, {**DEFAULTS, **given})
    device = _only(hardware)
    if asked.table["tiers"]:
        return _tiers(workload, hardware, device, asked, vary)
    if device is not None and device.kind == "cxl":
        return _fine_tuning(workload, hardware[0], vary(device, asked.table["what_if"]), asked)
    if asked.table["what_if"]:
        raise InputError("what-ifs are for one device", where="--set", fix="write a device file for the variant")
    table = asked.table
    question = {"cut": table["cut"], "objective": table["objective"]}
    return place_model(workload, hardware, request=asked.request, options=asked.options, **question, **asked.how)


def _read(workload: str, table: dict[str, Any]) -> _Asked:
    model = resolve_model(workload).model
    prompt = table["prompt"] if table["prompt"] is not None else model.fixed_tokens or DEFAULT_PROMPT
    request = Request(table["batch"], prompt, table["output"], table["phase"] or "")
    check_request(request)
    if not 0 < table["memory_fraction"] <= 1:
        raise InputError(
            "memory fraction must lie in (0, 1]", where="memory_fraction", seen=str(table["memory_fraction"])
        )
    weights = table["weights"]
    options = Options(
        weights=(weights,) if isinstance(weights, str) else tuple(weights),
        activations=table["activations"],
        kv_cache=table["kv_cache"],
        efficiency=table["efficiency"],
        keep=table["keep_on_chip"],
        memory_fraction=table["memory_fraction"],
        rooms=tuple((name, _quantity(size, "bytes", "--room")) for name, size in dict(table["rooms"]).items()),
        link_bytes_per_s=None if table["link"] is None else _quantity(table["link"], "bytes_per_s", "--link"),
    )
    budget = None if table["budget"] is None else _quantity(table["budget"], "time", "--budget")
    return _Asked(request, options, {"mapper": table["mapper"], "budget_s": budget, "explain": table["explain"]}, table)


def _quantity(value: Any, dimension: str, where: str) -> float:
    """SI value of a string with a unit, or of a number that is SI already. Raises InputError unless > 0."""
    number = units.parse(value, dimension, where=where) if isinstance(value, str) else float(value)
    if not 0 < number < float("inf"):
        raise InputError(f"{where} must be above zero", where=where, seen=str(value))
    return number


def _only(hardware: Sequence[str]) -> Device | None:
    return load_hardware(hardware[0]).platform.device if len(hardware) == 1 else None


def _tiers(workload: str, hardware: Sequence[str], device: Device | None, asked: _Asked, vary: Vary) -> dict[str, Any]:
    if device is None:
        raise InputError(
            "tensors are placed around one device", where="--tier", seen=", ".join(hardware), fix="one --hw"
        )
    _only_latency(asked)
    model, changed = resolve_model(workload).model, vary(device, asked.table["what_if"])
    tiers = asked.table["tiers"]
    names = (tiers,) if isinstance(tiers, str) else tuple(tiers)
    case = offload_case(model, changed, names, asked.request, asked.options)
    return place_case(model.name, device.name, case, **asked.how)


def _fine_tuning(workload: str, name: str, device: Device, asked: _Asked) -> dict[str, Any]:
    _only_latency(asked)
    model = resolve_model(workload).model
    case = finetune_case(model, device, asked.request, asked.table["walk"], asked.options.rooms)
    return place_case(model.name, name, case, **asked.how)


def _only_latency(asked: _Asked) -> None:
    if asked.table["objective"] != "latency":
        raise InputError("tensors are placed for latency", where="--objective", seen=str(asked.table["objective"]))
