"""`simulate`: a stream of requests on engines, routers and pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hwsim.api.answer import Answer
from hwsim.api.evaluation import platform_of
from hwsim.api.whatif import vary
from hwsim.errors import InputError, unknown_name
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Platform
from hwsim.schema.loader import price_of

SIMULATE_DEFAULTS: Mapping[str, Any] = {
    "trace": None, "rate": None, "requests": None, "arrivals": "poisson", "prompt": "1024", "output": "256",
    "lengths": "lognormal", "seed": 0, "policy": "vllm", "max_batch": None, "chunk": None, "queue": "fcfs",
    "replicas": 1, "router": "round_robin", "slo": None, "prefill_pool": 0, "capacity": False, "attainment": 0.9,
    "kv_blocks": None, "overhead": None, "weights": None, "activations": None, "kv_cache": None, "tp": 1, "pp": 1,
    "efficiency": "calibrated", "steady": False, "table": None, "limits": None, "capacity_tolerance": 0.01,
    "capacity_start": None,
    "burstiness": 1.0, "closed_loop": None, "application": None, "reference": None, "migration": None,
    "autoscale": None, "failures": None, "partition": None, "queue_limit": None, "decode_hw": None,
    "kv_transfer": "layerwise", "kv_link": None, "mixed": 0, "price": None,
    "what_if": None, "also": None, "dp": 1, "prefix_cache": None,
}  # fmt: skip


class Simulation(Answer):
    """Result of `simulate`: the `hwsim/serving@1` document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.serving import table_text

        return table_text(self.document)


def simulate(
    workload: str,
    hardware: str | Device | Platform | None = None,
    *,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> Simulation:
    """Serve a stream of requests; `options` are those of ``hwsim simulate`` with underscores (`SIMULATE_DEFAULTS`).

    `workload` may be a file of a `hwsim/serving-scenario@1`: it then names the rest; what is given here wins.
    `note` is told about progress.

    Raises UnknownNameError, InputError, InfeasibleError.
    """
    from hwsim.serving.scenario import is_scenario, read_scenario
    from hwsim.serving.session import run_session

    for name in options:
        if name not in SIMULATE_DEFAULTS:
            raise unknown_name("option", name, SIMULATE_DEFAULTS)
    file = read_scenario(workload, SIMULATE_DEFAULTS) if is_scenario(workload) else {"workload": workload}
    given = {**SIMULATE_DEFAULTS, **file, **options}
    machine = hardware if hardware is not None else file.get("hw")
    if machine is None:
        raise InputError("a run needs hardware", where="--hw", fix="--hw NAME, or `hw:` in the scenario file")
    given["hw"] = _varied(machine, given["what_if"], given["price"])
    for other in ("decode_hw", "reference"):
        if given[other] is not None:
            given[other] = _varied(given[other], given["what_if"], given["price"])
    return Simulation(run_session(given, note))


def _varied(
    hardware: str | Device | Platform, what_if: Mapping[str, Num | str] | None, price: str | None
) -> str | Platform:
    """A name as it is where nothing changes, else the platform with changed device fields or price list."""
    if isinstance(hardware, str) and not what_if and not price:
        return hardware
    platform, _ = platform_of(hardware)
    platform = platform.with_(device=vary(platform.device, what_if)) if what_if else platform
    return platform.with_(price=price_of(platform.device.name, price)) if price else platform
