"""Which peak a dtype computes at on a device that may lack a native path for it.

Rule: a dtype without units of its own is widened to the nearest dtype that can hold its values (fp8 and int8 to
16 bit, 16 bit to tf32/fp32), first on the tensor unit, then on the vector unit. Widening is reported, never silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hwsim.errors import InfeasibleError
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device

WIDER: Final[dict[str, tuple[str, ...]]] = {
    "fp4": ("fp8", "bf16", "fp16", "tf32", "fp32"),
    "fp8": ("bf16", "fp16", "tf32", "fp32"),
    "int2": ("int4", "int8", "bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "tf32", "fp32"),
    "int8": ("bf16", "fp16", "tf32", "fp32"),
    "bf16": ("fp16", "tf32", "fp32"),
    "fp16": ("bf16", "tf32", "fp32"),
    "tf32": ("fp32",),
    "fp32": (),
    "fp64": (),
}
UNIT_ORDER: Final = {"tensor": ("tensor", "vector"), "vector": ("vector", "tensor")}


@dataclass(frozen=True, slots=True)
class Path:
    """The compute path chosen: its peak, the dtype and unit that really run, and whether values were widened."""

    peak_flop_per_s: Num
    dtype: str
    unit: str
    widened: bool


def compute_path(device: Device, dtype: str, unit: str = "tensor") -> Path:
    """Find the path for `dtype`, preferring `unit`.

    Raises
    ------
    InfeasibleError: the device has no unit that can hold values of this dtype.
    """
    for where in UNIT_ORDER[unit]:
        for candidate in (dtype, *WIDER.get(dtype, ())):
            peak = device.peak(candidate, where)
            if peak is not None:
                return Path(peak, candidate, where, candidate != dtype)
    raise InfeasibleError(
        f"{device.name} has no compute path for {dtype}",
        where=f"{device.name} compute",
        seen=", ".join(f"{c.unit}/{c.dtype}" for c in device.compute),
        fix="choose --weights/--activations of a dtype the device supports",
    )


def native_16bit(device: Device) -> str:
    """``bf16`` where the device computes it, else ``fp16`` (widened where it has none): a scenario's default format."""
    for dtype in ("bf16", "fp16"):
        if device.peak(dtype) is not None or device.peak(dtype, "vector") is not None:
            return dtype
    return "fp16"
