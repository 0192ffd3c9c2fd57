"""A small network as a chain of synthesised layers: parsing, legal reuse factors, totals, and the budget of a device.

Text: layers separated by commas, ``dense:64x32`` (inputs x outputs) or ``conv:3x28x28x1x16`` (kernel, height, width,
channels, filters; stride 1, no padding). Layers run as a dataflow: latency adds up, the interval is the longest.
Source: hls4ml concepts; see `hwsim.cost.hls` for the rules of one layer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsim.cost import hls
from hwsim.errors import InfeasibleError, InputError
from hwsim.ir.platform import Device

BRAM18_BITS: Final = 18 * 1024
UNROLL_LIMIT: Final = 4096  # multipliers of one layer that Vivado HLS unrolls (hls4ml issue 1013)
_LAYER: Final = re.compile(r"(dense|conv):(\d+(?:x\d+)*)\Z")
_SIZES: Final = {"dense": 2, "conv": 5}
MOST_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the inputs and outputs of its matrix, how often it runs, and lines of pixels that wait in memory."""

    text: str
    inputs: int
    outputs: int
    positions: int = 1
    line_elements: int = 0


@dataclass(frozen=True, slots=True)
class Built:
    """A layer with the reuse factor that it got and what it costs."""

    layer: Layer
    reuse: int
    cost: hls.LayerCost

    @property
    def multipliers(self) -> int:
        """Products computed at the same time."""
        return -(-self.layer.inputs * self.layer.outputs // self.reuse)


def network(text: str) -> tuple[Layer, ...]:
    """The layers of a text. Raises InputError where one is not a layer or does not fit the one before it."""
    layers = tuple(_layer(part.strip()) for part in text.split(","))
    for before, after in zip(layers, layers[1:], strict=False):
        given = before.outputs * before.positions
        wanted = after.inputs if after.text.startswith("dense") else given
        if given != wanted:
            raise InputError(
                "a layer takes what the one before it gives",
                where=after.text,
                seen=f"{given} outputs of {before.text}, {wanted} inputs",
                fix=f"dense:{given}x{after.outputs}",
            )
    return layers


def _layer(text: str) -> Layer:
    match = _LAYER.match(text)
    sizes = [int(s) for s in match[2].split("x")] if match else []
    if match is None or len(sizes) != _SIZES[match[1]] or min(sizes) < 1 or max(sizes) > 10**6:
        raise InputError(
            "not a layer",
            where="network",
            seen=text[:80],
            fix="dense:INxOUT or conv:KERNELxHEIGHTxWIDTHxCHANNELSxFILTERS",
        )
    if match[1] == "dense":
        return Layer(text, sizes[0], sizes[1])
    kernel, height, width, channels, filters = sizes
    if kernel > min(height, width):
        raise InputError("a kernel is not larger than its image", where=text, seen=str(kernel), fix="a smaller kernel")
    positions = (height - kernel + 1) * (width - kernel + 1)
    return Layer(text, kernel * kernel * channels, filters, positions, (kernel - 1) * width * channels)


def build(layers: Sequence[Layer], reuse: int, weight_bits: int, activation_bits: int) -> list[Built]:
    """Cost of each layer at the legal reuse factor nearest to `reuse`.

    Raises InputError for a reuse factor or widths out of range.
    """
    for name, value, most in (
        ("reuse", reuse, 10**9),
        ("weight_bits", weight_bits, MOST_BITS),
        ("activation_bits", activation_bits, MOST_BITS),
    ):
        if not 1 <= value <= most:
            raise InputError(f"{name} must be from 1 to {most}", where=name, seen=str(value))
    found = []
    for layer in layers:
        legal = hls.legal_reuse(layer.inputs, layer.outputs, reuse)
        one = hls.dense(layer.inputs, layer.outputs, legal, weight_bits, activation_bits)
        lines = int(np.ceil(layer.line_elements * activation_bits / BRAM18_BITS))
        repeated = layer.positions * legal if layer.positions > 1 else one.interval
        latency = repeated + one.cycles if layer.positions > 1 else one.cycles
        cost = hls.LayerCost(one.dsp, one.lut, one.ff, one.bram18 + lines, latency, repeated, legal)
        found.append(Built(layer, legal, cost))
    return found


def totals(built: Sequence[Built]) -> dict[str, float]:
    """Resources and cycles of a dataflow of layers."""
    sums = {name: float(sum(getattr(b.cost, name) for b in built)) for name in ("dsp", "lut", "ff", "bram18", "cycles")}
    return {**sums, "interval": float(max(b.cost.interval for b in built))}


def require_device(needed: dict[str, float], device: Device) -> dict[str, float]:
    """DSP slices and 18-kbit memory blocks of a device, if they hold the network.

    Assumption: all block memory serves as 18-kbit blocks. Device files give no look-up tables or flip-flops.
    Raises InfeasibleError naming the resource and the amount missing.
    """
    have = {
        "dsp": float(np.min(device.units)),
        "bram18": float(np.floor(np.min(device.memories[0].size_bytes) * 8 / BRAM18_BITS)),
    }
    for name, budget in have.items():
        if needed[name] > budget:
            raise InfeasibleError(
                f"the network needs {needed[name] - budget:,.0f} {name} more than {device.name} has",
                where=f"{name} of {device.name}",
                seen=f"{needed[name]:,.0f} of {budget:,.0f}",
                fix="a larger --reuse, or operands of at most 9 bit (multiplied in look-up tables)"
                if name == "dsp"
                else "a smaller --reuse, narrower weights, or a smaller network",
                budget={"needed": needed[name], "have": budget, "missing": needed[name] - budget},
            )
    return have
