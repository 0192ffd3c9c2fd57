"""The datasheet numbers of a GPU that kernel models use, taken from a `Device` once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device, Link

# Where a device lacks a path, its kernels run on the next one of the same width.
# 16-bit values run on fp32 units where a device (P4, P40) has no 16-bit ones.
_SAME_PATH = {
    "bf16": ("bf16", "fp16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "fp8_blk": ("fp8",),
    "fp4": ("fp4", "nvfp4", "mxfp4"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """SI numbers; any of them may be an array that broadcasts against the rows.

    `link` is the port to peers inside a node (None: PCIe only); `sms` counts SMs or CUs.
    """

    name: str
    generation: str
    sms: Num
    clock_hz: Num
    l2_bytes: Num
    dram_bytes_per_s: Num
    tensor_flop_per_s: Mapping[str, Num]
    vector_flop_per_s: Mapping[str, Num]
    tdp_w: Num = 0.0
    link: Link | None = None
    host_bytes_per_s: Num = 32e9
    process_m: Num = 0.0

    def peak(self, dtype: str) -> Num:
        """Dense FLOP/s of the path a `dtype` GEMM takes: plain fp32 on vector units unless matrix units do fp32.

        Raises InputError where the device has no such path.
        """
        if dtype == "fp32":
            found = self.tensor_flop_per_s.get("fp32", self.vector_flop_per_s.get("fp32"))
            if found is not None:
                return found
        for name in _SAME_PATH.get(dtype, (dtype,)):
            for table in (self.tensor_flop_per_s, self.vector_flop_per_s):
                if name in table:
                    return table[name]
        known = ", ".join(sorted({*self.tensor_flop_per_s, *self.vector_flop_per_s}))
        raise InputError(f"{self.name} has no {dtype} arithmetic", seen=dtype, fix=f"its formats: {known}")


def facts(device: Device) -> Facts:
    """Collect what kernel models need. Raises InputError where the device lacks a number they depend on."""
    cache = device.last_level_cache
    _require(device, "units", device.units)
    _require(device, "clock", device.clock_hz)
    return Facts(
        name=device.name,
        generation=device.generation,
        sms=device.units,
        clock_hz=device.clock_hz,
        l2_bytes=cache.size_bytes if cache is not None else 4e6,
        dram_bytes_per_s=device.main_memory.read_bytes_per_s,
        tensor_flop_per_s={c.dtype: c.peak_flop_per_s for c in device.compute if c.unit == "tensor"},
        vector_flop_per_s={c.dtype: c.peak_flop_per_s for c in device.compute if c.unit == "vector"},
        tdp_w=device.power.tdp_w,
        link=_peer_link(device),
        host_bytes_per_s=_host_bytes_per_s(device),
        process_m=device.process_m,
    )


def _peer_link(device: Device) -> Link | None:
    """The fastest link that is not PCIe."""
    peers = [link for link in device.links if not link.name.lower().startswith(("pcie", "host"))]
    return max(peers, key=lambda link: link.bandwidth_bytes_per_s) if peers else None


def _host_bytes_per_s(device: Device) -> Num:
    """PCIe rate of one direction; generation 4 with 16 lanes where the file says nothing."""
    hosts = [link for link in device.links if link.name.lower().startswith(("pcie", "host"))]
    return hosts[0].bandwidth_bytes_per_s if hosts else 32e9


def _require(device: Device, what: str, value: Any) -> None:
    if isinstance(value, int | float) and not value > 0:
        raise InputError(
            f"{device.name} states no {what}, which GPU kernel models need", fix=f"add `{what}:` to its hardware file"
        )
