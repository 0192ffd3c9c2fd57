"""`synthesize`: resources and cycles of a small network on an FPGA."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.api.answer import Answer
from hwsim.errors import InputError

SCHEMA = "hwsim/synthesis@1"


@dataclass(frozen=True)
class Synthesis(Answer):
    """Result of `synthesize`."""

    def __str__(self) -> str:
        from hwsim.report.synthesis import synthesis_text

        return synthesis_text(self.document)


def synthesize(
    network: str, hardware: str = "u280", *, reuse: int = 1, weight_bits: int = 16, activation_bits: int = 16
) -> Synthesis:
    """DSP slices, look-up tables, flip-flops, memory blocks and cycles of a network built by high-level synthesis.

    Parameters
    ----------
    network: layers such as ``dense:16x64,dense:64x5`` or ``conv:3x28x28x1x16``.
    hardware: an FPGA of the catalog, whose slices and memory blocks must hold the network.
    reuse: products that one multiplier computes in turn; each layer takes the nearest legal factor.
    weight_bits, activation_bits: widths of the operands.

    Raises
    ------
    InputError: a text that is no network, widths out of range, hardware that is no FPGA. InfeasibleError: too large.
    """
    from hwsim.cost import hls_network
    from hwsim.schema.loader import load_accelerator

    device = load_accelerator(hardware)[0]
    if device.kind != "fpga":
        raise InputError("networks are synthesised for FPGAs", where="hardware", seen=f"{device.name} ({device.kind})")
    built = hls_network.build(hls_network.network(network), reuse, weight_bits, activation_bits)
    total = hls_network.totals(built)
    have = hls_network.require_device(total, device)
    clock = float(device.clock_hz)
    names = ("dsp", "lut", "ff", "bram18", "cycles", "interval")
    layers = [
        {"layer": b.layer.text, "reuse": b.reuse, **{name: float(getattr(b.cost, name)) for name in names}}
        for b in built
    ]
    return Synthesis(
        {
            "schema": SCHEMA,
            "network": network,
            "hardware": device.name,
            "asked": {"reuse": reuse, "weight_bits": weight_bits, "activation_bits": activation_bits},
            "layers": layers,
            "total": total,
            "device": have,
            "unrolled_too_far": [b.layer.text for b in built if b.multipliers > hls_network.UNROLL_LIMIT],
            "latency_s": total["cycles"] / clock,
            "inferences_per_s": clock / total["interval"],
        }
    )
