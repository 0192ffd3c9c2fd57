"""`plan`, `plan_stages`, `plan_training`, `place`: how to divide a model over devices and memories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwsim.api.answer import Answer
from hwsim.api.evaluation import describe, prepare
from hwsim.api.whatif import vary
from hwsim.errors import InputError
from hwsim.ir.platform import Device, Platform


class Plan(Answer):
    """Result of `plan`, `plan_stages` and `plan_training`: the document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.parallelism import plan_text

        return plan_text(self.document)


def plan(workload: str, hardware: str | Device | Platform, **options: Any) -> Plan:
    """How to split a model over devices: tensor, pipeline, data, expert and sequence parallelism.

    Parameters
    ----------
    options: devices [all], objective (throughput, latency, energy, cost), slo (``"ttft=1s,tpot=50ms"``), batch (total
        sequences, one or several; none: a grid), batching (static, continuous), max_tp, mapper, budget; prompt, output,
        what_if and the others of `evaluate` but tp, pp, ep, dp, sp.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: nothing is legal, fits or keeps the limits.
    """
    from hwsim.explore.plan_question import PLAN_DEFAULTS, answer

    _require_model(workload)
    asked = {name: options.pop(name) for name in tuple(options) if name in PLAN_DEFAULTS}
    for name in ("tp", "pp", "ep", "dp", "sp"):
        if name in options:
            raise InputError(f"{name} is what a plan decides", where=name, fix="`hwsim evaluate` takes degrees")
    sizes = (options.pop("prompt", None), options.pop("output", 128), options.pop("what_if", None))
    model, platform, scenario, hashes = prepare(workload, hardware, 1, *sizes, options)
    about = {"workload": describe(model), "hardware": {"name": platform.name, "device": platform.device.name}}
    return Plan(answer(model.model, platform, scenario, asked, {**about, "inputs": hashes}))


def plan_stages(workload: str, stages: Sequence[str], *, batch: int = 1, **options: Any) -> Plan:
    """Layers of a pipeline over different devices: a `hwsim/stages@1` document.

    Parameters
    ----------
    stages: hardware names in the order of the pipeline, each with its tensor ranks, e.g. ``["h100-sxm:2", "l40s:4"]``.
    options: prompt, output, what_if and the others of `evaluate` but tp, pp, ep, dp, sp.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: no partition fits.
    """
    from hwsim.explore.mixed_stages import Stage, parse_stage, split_stages
    from hwsim.frontends.formats import Formats

    _require_model(workload)
    sizes = (options.pop("prompt", None), options.pop("output", 128), options.pop("what_if", None))
    found: list[Stage] = []
    hashes: dict[str, Any] = {}
    for text in stages:
        name, ranks = parse_stage(text)
        model, platform, scenario, files = prepare(workload, name, batch, *sizes, {**options, "tp": ranks})
        options.setdefault("weights", scenario.weights)  # one model: the formats of the first stage
        found.append(Stage(name, ranks, platform))
        hashes |= files
    if not found:
        raise InputError("a pipeline needs a stage", where="stages", fix='["h100-sxm:2", "l40s:4"]')
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    return Plan(split_stages(model.model, found, scenario, formats, {"workload": describe(model), "inputs": hashes}))


class Placed(Answer):
    """Result of `place`: the `hwsim/placement@1` document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.placement import placement_table

        return placement_table(self.document)


def place(workload: str, hardware: str | Sequence[str], **options: Any) -> Placed:
    """Operators on devices, or tensors in memories, with the proof.

    Parameters
    ----------
    hardware: devices and nodes (companions count); one device with `tiers`, or a fine-tuning host, places tensors.
    options: cut (graph, contiguous), objective (latency, throughput, energy, edp), tiers (memory names, ``"cz120:2"``),
        walk (serial, parallel), rooms (``{"dram": "128 GiB"}``), link, weights (one format or several), activations,
        kv_cache, keep_on_chip, phase, batch, prompt, output, efficiency, memory_fraction, budget (``"2 s"``), mapper,
        what_if (of one device), explain (what one more GiB or GB/s would buy).

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: does not fit. SolverError: no solver, no answer.
    """
    from hwsim.explore.placement.question import answer

    names = [hardware] if isinstance(hardware, str) else list(hardware)
    return Placed(
        answer(workload, names, options, lambda device, changes: vary(device, changes) if changes else device)
    )


def plan_training(workload: str, hardware: str | Device | Platform, **options: Any) -> Plan:
    """The best layout for a training step: a `hwsim/training@1` document.

    Parameters
    ----------
    options: global_batch (sequences an optimizer step), prompt (tokens a sequence [2048]), devices [all], zero
        (0-3 [1]), recompute (False), weights [bf16], efficiency, what_if.

    Raises
    ------
    InputError, UnknownNameError: bad names or values. InfeasibleError: no layout divides the batch or fits.
    """
    from hwsim.explore.training_search import TRAINING_DEFAULTS, train

    _require_model(workload)
    asked = {name: options.pop(name, value) for name, value in TRAINING_DEFAULTS.items()}
    options.setdefault("weights", "bf16")
    model, platform, scenario, hashes = prepare(
        workload, hardware, 1, options.pop("prompt", None) or 2048, 1, options.pop("what_if", None), options
    )
    about = {"workload": describe(model), "hardware": {"name": platform.name, "device": platform.device.name}}
    return Plan(train(model.model, platform, scenario, asked, {**about, "inputs": hashes}))


def _require_model(workload: str) -> None:
    """Refuse a raw operator, which has no layers, sequences or tokens to divide. Raises InputError."""
    from hwsim.frontends.raw import is_raw

    if is_raw(workload):
        raise InputError(
            "a plan divides a model over devices; this is one operator",
            where="WORKLOAD",
            seen=workload,
            fix="name a model (`hwsim list models`), or map its loops: leave out --mapper parallelism",
        )
