"""What computes: devices with compute units, memories near to far, links and power, and platforms of them.

All values are SI; any may be an array for a grid of what-ifs. `Device.extra` holds the section of a device
family (``fpga``, ``mesh``, ``pim`` ...) as plain nested mappings of SI numbers; only that family's file in
`hwsim.cost` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hwsim.ir.numbers import Num

Direction = Literal["ring", "switch", "mesh", "point"]


@dataclass(frozen=True, slots=True)
class ComputeUnit:
    """Dense peak of one kind of unit (``tensor`` or ``vector``) for one dtype; an FMA counts as two."""

    unit: str
    dtype: str
    peak_flop_per_s: Num
    energy_j_per_flop: Num = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """One level. `scope`: ``device`` (shared by all units) or ``unit`` (one per SM or core; sizes and rates of one)."""

    name: str
    size_bytes: Num
    read_bytes_per_s: Num
    write_bytes_per_s: Num
    latency_s: Num = 0.0
    energy_j_per_byte: Num = 0.0
    scope: Literal["device", "unit"] = "device"
    ecc: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A port to other devices; `bandwidth_bytes_per_s` is of one direction, all lanes of one device together."""

    name: str
    bandwidth_bytes_per_s: Num
    latency_s: Num = 0.0
    topology: Direction = "point"
    in_network_reduction: bool = False
    energy_j_per_byte: Num = 0.0
    peers: int = 0


@dataclass(frozen=True, slots=True)
class Power:
    """Limit of the board and draw without work, watts of one device."""

    tdp_w: Num
    idle_w: Num = 0.0


@dataclass(frozen=True, slots=True)
class Overheads:
    """First-class fixed costs: one kernel launch on the device; host work a layer, an engine step, a sequence of it.

    Some serving stacks slow down on crowded prompt batches: tokens past `prompt_knee` take `prompt_slowdown` times
    as long (a knee of 0: none does).
    """

    launch_s: Num = 0.0
    layer_s: Num = 0.0
    step_s: Num = 0.0
    sequence_s: Num = 0.0
    prompt_knee: Num = 0.0
    prompt_slowdown: Num = 1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted parameters of one device, or pooled over a family and moved by datasheet ratios.

    `families` maps a kernel family (``gemm``, ``attention_decode`` ...) to what its cost model needs; the
    layout below that is the business of that model and of `hwsim.validation`.
    """

    name: str
    device: str
    kind: Literal["measured", "transferred"]
    families: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator or processor. `units` counts SMs, CUs or cores; `memories` run from near to far."""

    name: str
    kind: str
    title: str
    compute: tuple[ComputeUnit, ...]
    memories: tuple[Memory, ...]
    links: tuple[Link, ...] = ()
    power: Power = Power(0.0)
    overheads: Overheads = Overheads()
    generation: str = ""
    units: Num = 1
    clock_hz: Num = 0.0
    die_area_mm2: Num = 0.0
    process_m: Num = 0.0
    status: str = "datasheet"
    aliases: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None

    def peak(self, dtype: str, unit: str = "tensor") -> Num | None:
        """Dense peak in FLOP/s of `unit` for `dtype`, or None where the device has no such path."""
        for item in self.compute:
            if item.unit == unit and item.dtype == dtype:
                return item.peak_flop_per_s
        return None

    def dtypes(self, unit: str = "tensor") -> tuple[str, ...]:
        return tuple(c.dtype for c in self.compute if c.unit == unit)

    def memory(self, name: str) -> Memory:
        """The level called `name`. Raises KeyError."""
        for item in self.memories:
            if item.name == name:
                return item
        raise KeyError(name)

    @property
    def main_memory(self) -> Memory:
        """Where weights and KV live: the first device-wide level flagged by name, else the farthest level."""
        return self.memories[-1]

    @property
    def last_level_cache(self) -> Memory | None:
        """The farthest device-wide level nearer than the main memory, if any."""
        shared = [m for m in self.memories[:-1] if m.scope == "device"]
        return shared[-1] if shared else None

    def link(self, name: str) -> Link:
        for item in self.links:
            if item.name == name:
                return item
        raise KeyError(name)

    def with_(self, **changes: Any) -> Device:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Price:
    """Dated price of a device in USD/s. Bought hardware is written off and pays `energy_usd_per_j`; rent covers it."""

    device: str
    rate_usd_per_s: Num
    date: str
    source: str
    term: str = "on-demand"
    capex_usd: Num = 0.0
    energy_usd_per_j: Num = 0.0


@dataclass(frozen=True, slots=True)
class Platform:
    """`count` equal devices in groups of `node_size` joined by `scale_up`, groups joined by `scale_out`.

    `companions` are other devices of a hybrid (host CPU, NPU beside a GPU, memory cards), nearest first.
    """

    name: str
    device: Device
    count: int = 1
    node_size: int = 1
    scale_up: Link | None = None
    scale_out: Link | None = None
    companions: tuple[Device, ...] = ()
    host_power_w: Num = 0.0
    price: Price | None = None

    def with_(self, **changes: Any) -> Platform:
        return replace(self, **changes)
