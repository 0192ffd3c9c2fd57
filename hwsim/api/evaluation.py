"""`evaluate` and `compare`: one scenario on one machine or on several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwsim import content
from hwsim.api.whatif import vary
from hwsim.cost.peaks import native_16bit
from hwsim.engine.document import document
from hwsim.engine.estimate import Estimate, estimate
from hwsim.engine.fit import require_fit
from hwsim.errors import InputError, unknown_name
from hwsim.frontends.catalog import LoadedModel, resolve_model
from hwsim.frontends.formats import Formats
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.ir.scenario import Scenario
from hwsim.schema.loader import LoadedHardware, load_hardware, price_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

ENGINES: Final = ("analytic", "des")
DEFAULT_OUTPUT: Final = 128  # tokens a sequence
SIZES: Final = ("batch", "prompt_tokens", "output_tokens")
OPTIONS: Final = tuple(f.name for f in fields(Scenario) if f.name not in SIZES)


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`: `.document` is the contract, the methods show it."""

    estimate: Estimate
    workload: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @cached_property
    def document(self) -> dict[str, Any]:
        """Plain data, built when first asked for: a grid of arrays becomes long lists."""
        return document(self.estimate, self.workload, self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """The `hwsim/estimate@1` document."""
        return self.document

    def to_frame(self) -> Any:
        """One row a task as a pandas frame. Raises MissingExtraError without pandas."""
        from hwsim.report.frames import task_frame

        return task_frame(self.document)

    def figure(self) -> go.Figure:
        """Roofline plot of the tasks; hover names the operator."""
        from hwsim.report.figures import roofline_figure

        return roofline_figure(self.document)

    def _repr_html_(self) -> str:
        from hwsim.report.html import fragment

        return fragment(self.document)

    def __getattr__(self, name: str) -> Num:
        """``result.ttft_s`` is the value of the metric of that name."""
        metrics = self.__dict__.get("estimate")
        if metrics is not None and name in metrics.metrics:
            value: Num = metrics.metrics[name].value
            return value
        raise AttributeError(name)


def evaluate(
    workload: str,
    hardware: str | Device | Platform,
    *,
    batch: Num = 1,
    prompt: Num | None = None,
    output: Num | None = None,
    what_if: Mapping[str, Num | str] | None = None,
    check_fit: bool = True,
    **options: Any,
) -> Evaluation:
    """Time, energy, cost and memory of a model on hardware.

    Parameters
    ----------
    workload: catalog name, alias or path of a model (YAML or HF ``config.json``).
    hardware: catalog name, alias or path of an accelerator, node or cluster; or an IR device or platform.
    batch, prompt, output: sequences together, prompt tokens (default 512, or the model's fixed input), output
        tokens a sequence (default 128; not used, and said so, where a model generates none); scalars, or arrays that
        broadcast together for a grid.
    what_if: device fields to replace, by dotted path, e.g. ``{"memories.hbm.read": "3 TB/s"}`` or SI numbers or arrays.
    check_fit: refuse a scenario that does not fit in memory.
    options: weights, activations, kv_cache (format names), tp, pp, ep, dp, sp, efficiency, engine, price,
        memory_fraction; mapper (catalog name or path of a file; ``roofline`` decides nothing), map_objective
        (``latency``, ``energy``, ``edp``), map_budget_s (wall seconds a phase).

    Raises
    ------
    InputError: unknown names or options, or impossible values. InfeasibleError: does not fit, or degrees do not divide.
    """
    model, platform, scenario, hashes = prepare(workload, hardware, batch, prompt, output, what_if, options)
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    scenario = replace(
        scenario, weights=formats.weights.name, activations=formats.activations.name, kv_cache=formats.kv_cache.name
    )
    result = estimate(model.model, platform, scenario, formats)
    if check_fit:
        require_fit(model.model.name, platform, scenario, result.memory)
    if output is not None and "forward" in model.model.phases:
        result = replace(result, warnings=(*result.warnings, no_tokens(model.model.name, output)))
    return Evaluation(result, describe(model), hashes)


def no_tokens(workload: str, output: Num) -> str:
    """What is said of output tokens that were asked of a model that generates none."""
    return f"{workload} answers in one pass and generates no tokens: output {str(output)[:40]} is not used"


def prepare(
    workload: str,
    hardware: str | Device | Platform,
    batch: Num,
    prompt: Num | None,
    output: Num | None,
    what_if: Mapping[str, Num | str] | None,
    options: Mapping[str, Any],
) -> tuple[LoadedModel, Platform, Scenario, dict[str, Any]]:
    """Resolve names, apply what-ifs, fill defaults. Raises InputError."""
    model = resolve_model(workload)
    platform, files = platform_of(hardware)
    if what_if:
        device = vary(platform.device, what_if)
        joined = platform.scale_up and next((k for k in device.links if k.name == platform.scale_up.name), None)
        platform = platform.with_(device=device, scale_up=joined or platform.scale_up)
    scenario = _scenario(model, platform, batch, prompt, output, options)
    if not isinstance(hardware, Platform):
        devices = scenario.devices
        bare = platform.count == 1 and platform.scale_out is None
        platform = platform.with_(count=max(platform.count, devices)) if bare else platform
    if scenario.price:
        platform = platform.with_(price=price_of(platform.device.name, scenario.price))
    chosen = (content.resolve(scenario.mapper, "mapper").path,) if scenario.mapper != "roofline" else ()
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (model.entry.path, *files, *chosen)
        if path.is_file()
    }
    return model, platform, scenario, hashes


def platform_of(hardware: str | Device | Platform) -> tuple[Platform, tuple[Path, ...]]:
    """The platform that is meant, and the files that say so. Raises UnknownNameError, InputError."""
    from hwsim.schema.loader import single

    if isinstance(hardware, Platform):
        return hardware, ()
    if isinstance(hardware, Device):
        return single(hardware), ()
    loaded: LoadedHardware = load_hardware(str(hardware))
    return loaded.platform, loaded.files


def _scenario(
    model: LoadedModel,
    platform: Platform,
    batch: Num,
    prompt: Num | None,
    output: Num | None,
    options: Mapping[str, Any],
) -> Scenario:
    for name in options:
        if name not in OPTIONS:
            raise unknown_name("option", name, OPTIONS)
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in platform.device.extra.get("native", {}).items():
        given.setdefault(name, value)  # devices without a 16-bit matrix path say what they take
    given.setdefault("weights", native_16bit(platform.device))
    if given.get("engine", "analytic") not in ENGINES:
        raise unknown_name("engine", str(given["engine"]), ENGINES)
    if "mapper" in given:
        content.resolve(str(given["mapper"]), "mapper")
    length = prompt if prompt is not None else model.model.fixed_tokens or 512
    sizes = {"batch": batch, "prompt_tokens": length, "output_tokens": DEFAULT_OUTPUT if output is None else output}
    arrays: dict[str, Any] = {
        name: np.asarray(size) if isinstance(size, list | tuple) else size for name, size in sizes.items()
    }
    return Scenario(**arrays, **given)


def describe(model: LoadedModel) -> dict[str, Any]:
    """What identifies the workload in a document."""
    spec = model.model.spec
    return {
        "name": model.model.name,
        "title": spec.title,
        "arch": spec.arch,
        "parameters": model.model.parameters,
        "active_parameters": model.model.active_parameters,
        "layers": model.model.layers,
    }


def compare(workload: str, hardware: Sequence[str], **scenario: Any) -> dict[str, Any]:
    """The same scenario on several machines: a `hwsim/comparison@1` document.

    A machine that cannot hold or map the workload appears with the reason instead of metrics. Raises InputError for
    fewer than two machines, and as `evaluate`.
    """
    from hwsim.errors import InfeasibleError

    if len(hardware) < 2:
        raise InputError("compare needs at least two machines", seen=str(list(hardware)), fix="--hw a100 --hw h100")
    columns: list[dict[str, Any]] = []
    for name in hardware:
        try:
            columns.append(evaluate(workload, name, **scenario).document)
        except InfeasibleError as error:
            columns.append({"hardware": {"name": name}, "infeasible": error.render(), "budget": error.budget})
    what_if = {path: str(value) for path, value in (scenario.get("what_if") or {}).items()}
    return {"schema": "hwsim/comparison@1", "what_if": what_if, "columns": columns}
