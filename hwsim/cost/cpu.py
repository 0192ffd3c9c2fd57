"""CPUs on packed low-bit weights: t = max(bytes / (rate x efficiency), MACs / (threads x clock x MACs a cycle)).

Bytes at main memory and at the last-level cache; operators without products take a share of the vector peak.

The MACs a cycle of a thread are far below the SIMD peak because weights are unpacked first; that low rate makes the
time grow with the batch. Devices without a `cpu` section are priced by the generic model. See docs/formulas/pim.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed, held
from hwsim.cost.peaks import compute_path
from hwsim.cost.roofline import dynamic_energy_j, floor_parts, largest
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost

BAND: Final = 1.6  # times and divided by (assumption: no residuals of other machines are published)
_UNPACKED_BITS: Final = 8  # from this width on weights need no unpacking


def takes(device: Device) -> tuple[str, ...]:
    """Tilings where the generic model prices the device; the low-bit law has its own efficiencies."""
    return () if "cpu" in device.extra else generic.takes(device)


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution."""
    o = platform.device.extra.get("cpu")
    if o is None:
        return generic.task_cost(task, platform)
    parts = _parts(task, platform, o)
    energy = dynamic_energy_j(task, platform)
    return bracketed(largest(parts), parts, held(task, platform), BAND, energy_j=energy, model="cpu")


def _parts(task: Task, platform: Platform, o: Mapping[str, Any]) -> dict[str, Num]:
    """Seconds by resource: products of packed weights at their own rate, all else at a share of the datasheet."""
    device = platform.device
    parts = {
        "memory" if name == device.main_memory.name else name: seconds / o["memory_efficiency"]
        for name, seconds in floor_parts(task, platform).items()
        if name in task.traffic_bytes
    }
    if task.kind in ("gemm", "moe", "attention_decode", "attention_prefill"):
        bits = task.operator.weights[0].format.element_bits if task.operator.weights else _UNPACKED_BITS
        rate = o["macs_per_cycle"] if bits < _UNPACKED_BITS else o["macs_per_cycle_8bit"]
        compute = task.operator.flop / 2 / (o["threads"] * device.clock_hz * rate)
    else:
        peak = compute_path(device, task.operator.dtype, task.operator.unit).peak_flop_per_s
        compute = task.operator.flop / (peak * generic.COMPUTE_EFFICIENCY)
    return {name: plain(seconds) for name, seconds in {**parts, "compute": compute}.items()}
