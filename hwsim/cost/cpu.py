"""CPUs on packed low-bit weights: t = max(bytes / (rate x efficiency), MACs / (threads x clock x MACs a cycle)).

The MACs a cycle of a thread are far below the SIMD peak because weights are unpacked first; that low rate makes the
time grow with the batch. Devices without a `cpu` section are priced by the generic model. See docs/formulas/pim.md.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import TaskCost

BAND: Final = 1.6  # times and divided by (assumption: no residuals of other machines are published)
_UNPACKED_BITS: Final = 8  # from this width on weights need no unpacking


def takes(device: Device) -> tuple[str, ...]:
    """Tilings where the generic model prices the device; the low-bit law has its own efficiencies."""
    return () if "cpu" in device.extra else generic.takes(device)


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution."""
    o, device = platform.device.extra.get("cpu"), platform.device
    if o is None:
        return generic.task_cost(task, platform)
    moved = sum((t.moved_bytes for t in task.operator.inputs if t.role in ("weight", "kv_cache", "state")), 0)
    bits = task.operator.weights[0].format.element_bits if task.operator.weights else _UNPACKED_BITS
    rate = o["macs_per_cycle"] if bits < _UNPACKED_BITS else o["macs_per_cycle_8bit"]
    matrix = task.kind in ("gemm", "moe", "attention_decode", "attention_prefill")
    macs = task.operator.flop / 2 if matrix else 0.0
    peak = device.main_memory.read_bytes_per_s
    parts = {
        "memory": plain(moved / (peak * o["memory_efficiency"])),
        "compute": plain(macs / (o["threads"] * device.clock_hz * rate)),
    }
    energy = dynamic_energy_j(task, platform)
    value = np.maximum(parts["memory"], parts["compute"])
    return bracketed(value, parts, {"memory": moved / peak}, BAND, energy_j=energy, model="cpu")
