"""Names to model, platform and scenario, through the same rules as `hwsim evaluate`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwsim import __version__
from hwsim.cost.peaks import native_16bit
from hwsim.frontends.catalog import resolve_model
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.schema.loader import load_hardware


def resolve(
    workload: str, hardware: str | Platform, options: Mapping[str, Any]
) -> tuple[Any, Platform, Scenario, dict[str, Any]]:
    """(model, platform, scenario, facts for the document). Raises UnknownNameError, InputError."""
    loaded = resolve_model(workload)
    files: tuple[Path, ...] = ()
    if isinstance(hardware, Platform):
        platform = hardware
    else:
        machine = load_hardware(hardware)
        platform, files = machine.platform, machine.files
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in platform.device.extra.get("native", {}).items():
        given.setdefault(name, value)
    given.setdefault("weights", native_16bit(platform.device))
    scenario = Scenario(**given)
    if platform.count == 1 and platform.scale_out is None:
        platform = platform.with_(count=max(1, scenario.tp * scenario.pp * int(scenario.dp)))
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (loaded.entry.path, *files)}
    parallel = {"tp": scenario.tp, "pp": scenario.pp, **({"dp": scenario.dp} if scenario.dp != 1 else {})}
    facts = {
        "workload": {"name": loaded.model.name, "parameters": loaded.model.parameters},
        "hardware": {
            "name": platform.name,
            "device": platform.device.name,
            "devices": scenario.tp * scenario.pp * int(scenario.dp),
            "kind": platform.device.kind,
        },
        "formats": {"weights": scenario.weights, "kv_cache": scenario.kv_cache},
        "parallel": parallel,
        "provenance": {"hwsim": __version__, "inputs": hashes},
    }
    return loaded.model, platform, scenario, facts
