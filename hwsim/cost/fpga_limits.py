"""What an FPGA overlay cannot do: slices, patterns, weight widths and block memory, each refused with what is missing.

Slices: engines x MACs a cycle / products that one slice packs <= slices of the device. Patterns: N:M with at least one
weight of M kept, on chains built for it. Widths: those that the unpacking units list. Block memory: activations of a
decode step, where they never leave the chip. See docs/formulas/fpga.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device

MATRICES: Final = ("gemm", "moe")


def dsp_used(o: Mapping[str, Any]) -> Num:
    """DSP slices of all cores: MACs a cycle over the products that one slice packs; none for ternary adders."""
    return 0 if o["ternary"] else o["engines"] * max(o["mm_macs"], o["mv_macs"]) / o["macs_per_dsp"]


def require_dsp(device: Device, o: Mapping[str, Any]) -> None:
    """Raise InfeasibleError where the overlay needs more DSP slices than the device has."""
    needed, have = dsp_used(o), float(np.min(device.units))
    if needed > have:
        raise InfeasibleError(
            f"the overlay needs {needed - have:,.0f} DSP slices more than {device.name} has",
            where=f"{device.name} fpga.engines x fpga.mm_macs / fpga.macs_per_dsp",
            seen=f"{needed:,.0f} needed, {have:,.0f} on the device",
            fix="lower fpga.mm_macs or fpga.engines",
            budget={"dsp_needed": float(needed), "dsp": have, "dsp_missing": float(needed) - have},
        )


def require_sparsity(device: Device, o: Mapping[str, Any]) -> None:
    """Kept shares below one need chains of an N:M pattern, and at least one of M kept. Raises InfeasibleError."""
    kept = min(o["density"], o["qk_density"])
    if kept < 1 and not o["group"]:
        raise InfeasibleError(
            f"the chains of {device.name} take no N:M pattern: a density of {kept:g} has no path",
            where=f"{device.name} fpga.group",
            seen=f"density {o['density']:g}, of queries and keys {o['qk_density']:g}; group 0 (dense chains)",
            fix="density 1, or fpga.group=16 for chains that skip the zeros of 16",
            budget={"density": kept, "missing": 1 - kept},
        )
    if kept * max(o["group"], 1) < 1:
        raise InfeasibleError(
            f"a density of {kept:g} keeps fewer than one weight of a group of {o['group']}",
            where=f"{device.name} fpga.density",
            seen=f"{kept * o['group']:g} of {o['group']}",
            fix=f"{1 / o['group']:g} or more, or a larger fpga.group",
            budget={"kept": kept * o["group"], "missing": 1 - kept * o["group"]},
        )


def require_width(task: Task, device: Device, o: Mapping[str, Any]) -> None:
    """The unpacking units have a path for the weights: a listed width. Raises InfeasibleError."""
    widths = sorted(o["weight_bits"])
    for weight in task.operator.weights[:1] if task.kind in MATRICES else ():  # biases are added in the vector unit
        bits = weight.format.element_bits
        if bits in widths:
            continue
        nearest = min((b for b in widths if b > bits), default=widths[-1])
        off = f"{bits - nearest:g} bit too many" if bits > nearest else f"{nearest - bits:g} bit below the next width"
        raise InfeasibleError(
            f"{device.name} has no {bits:g}-bit weight path: its chains take {', '.join(map(str, widths))} bit, {off}",
            where=task.name,
            seen=weight.format.name,
            fix="--weights ternary" if o["ternary"] else "--weights int4 or int8",
            budget={"bits": bits, "most_bits": widths[-1], "nearest_bits": nearest},
        )


def require_on_chip(graph: MappedGraph, o: Mapping[str, Any]) -> None:
    """Activations of an operator of a decode step stay in block memory (logits leave it). Raises InfeasibleError."""
    if graph.phase != "decode" or not o["on_chip_decode"]:
        return
    device, memory = graph.platform.device, graph.platform.device.memories[0]
    inside = [t for t in graph.tasks if t.operator.segment != "head"]
    needed, where = max((float(np.max(t.operator.moved_bytes("activation"))), t.name) for t in inside)
    have = float(np.min(memory.size_bytes))
    if needed > have:
        raise InfeasibleError(
            f"activations of a decode step need {needed - have:,.0f} B more block memory than {device.name} has",
            where=f"{where}, batch {float(np.max(graph.batch)):g}",
            seen=f"{needed:,.0f} B of {have:,.0f} B (URAM and BRAM)",
            fix="a smaller --batch, or fpga.on_chip_decode=false",
            budget={"needed_bytes": needed, "on_chip_bytes": have, "short_bytes": needed - have},
        )
