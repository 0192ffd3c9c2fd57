"""`hwsim/accelerator@1`: the datasheet of one device. Every number names its source."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from hwsim.ir.platform import ComputeUnit, Device, Link, Memory, Overheads, Power
from hwsim.schema.base import (
    Area,
    Bandwidth,
    Bytes,
    Count,
    EnergyPerByte,
    EnergyPerFlop,
    FlopRate,
    Frequency,
    Length,
    Name,
    PowerW,
    Strict,
    Time,
)
from hwsim.schema.families import FAMILY_SECTIONS, Families

Source = Annotated[str, Field(min_length=3, max_length=600)]
# field of a file -> of the IR, where they differ
_OVERHEADS = {"launch": "launch_s", "layer": "layer_s", "step": "step_s", "sequence": "sequence_s"}

# Families of `hwsim.cost.registry` (a test holds them equal): a file of no family is refused at its line
Kind = Literal["gpu", "tpu", "npu", "cpu", "soc", "fpga", "wafer", "flash", "hybrid", "pim", "cxl", "split", "systolic"]


class ComputeEntry(Strict):
    """Dense peak of one unit kind for one dtype; an FMA counts as two operations."""

    unit: Literal["tensor", "vector"]
    dtype: Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8", "int4", "int2"]
    peak: FlopRate
    energy: EnergyPerFlop | None = None


class MemoryEntry(Strict):
    """One level; `size` and rates of `scope: unit` are of one SM or core. `write` defaults to `read`.

    `ecc`: ``inline`` where check bits travel with the data, ``none`` where the product runs without them.
    """

    name: Name
    size: Bytes
    read: Bandwidth
    write: Bandwidth | None = None
    latency: Time = 0.0
    energy: EnergyPerByte = 0.0
    scope: Literal["device", "unit"] = "device"
    ecc: Literal["", "none", "inline"] = ""


class LinkEntry(Strict):
    """A port; `bandwidth` is of one direction with all lanes of one device together."""

    name: Name
    bandwidth: Bandwidth
    latency: Time = 0.0
    topology: Literal["ring", "switch", "mesh", "point"] = "point"
    in_network_reduction: bool = False
    energy: EnergyPerByte = 0.0
    peers: Annotated[int, Field(ge=0)] = 0


class PowerEntry(Strict):
    """Board power in W: `tdp` sustained limit, `idle` with nothing running."""

    tdp: PowerW
    idle: PowerW = 0.0

    @model_validator(mode="after")
    def _idle_below_limit(self) -> PowerEntry:
        if not 0 <= self.idle <= self.tdp or not self.tdp:
            raise PydanticCustomError(
                "power",
                "{what}",
                {"what": "tdp must be > 0 and not below idle", "fix": "e.g. {tdp: 400 W, idle: 50 W}"},
            )
        return self


class CoresEntry(Strict):
    """Parallel units (SMs, CUs, cores) and the clock of the quoted peaks."""

    count: Count
    clock: Frequency | None = None


class AreaEntry(Strict):
    """Die area and process node."""

    die: Area | None = None
    node: Length | None = None


class OverheadEntry(Strict):
    """Fixed costs: per kernel launch, host work per layer, per engine step, per sequence of a step.

    Prompt tokens past `prompt_knee` of one batch (0: no such knee) take `prompt_slowdown` times as long.
    """

    launch: Time = 0.0
    layer: Time = 0.0
    step: Time = 0.0
    sequence: Time = 0.0
    prompt_knee: Annotated[float, Field(ge=0, strict=False)] = 0.0
    prompt_slowdown: Annotated[float, Field(ge=1, le=100, strict=False)] = 1.0


class AcceleratorFile(Families):
    """One device. Memories run from near to far; the last one is where weights and KV live."""

    schema_: Literal["hwsim/accelerator@1"] = Field(alias="schema")
    name: Name
    title: str
    kind: Kind
    status: Literal["datasheet", "measured", "estimated", "demo"] = "datasheet"
    vendor: str = ""
    generation: str = ""
    aliases: list[str] = []
    extends: Name | None = None
    cores: CoresEntry = CoresEntry(count=1)
    compute: Annotated[list[ComputeEntry], Field(min_length=1)]
    memories: Annotated[list[MemoryEntry], Field(min_length=1)]
    links: list[LinkEntry] = []
    power: PowerEntry
    area: AreaEntry = AreaEntry()
    overheads: OverheadEntry = OverheadEntry()
    notes: str = ""
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _every_number_is_cited(self) -> AcceleratorFile:
        missing = [p for p in quantity_paths(self) if not cited(p, self.sources)]
        if missing:
            group = missing[0].rsplit(".", 1)[0]
            fix = f"cite it under sources:, e.g. {group}: <citation> or default: <citation>"
            raise PydanticCustomError(
                "uncited", "{what}", {"what": f"no source for {', '.join(missing[:4])}", "fix": fix}
            )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> AcceleratorFile:
        for what, names in (
            ("compute", [f"{c.unit}/{c.dtype}" for c in self.compute]),
            ("memories", [m.name for m in self.memories]),
            ("links", [k.name for k in self.links]),
        ):
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise PydanticCustomError(
                    "twice", "{what}", {"what": f"{what} lists {sorted(twice)[0]} twice", "fix": "keep one"}
                )
        return self

    def to_device(self) -> Device:
        """The frozen IR form, SI throughout."""
        return Device(
            name=self.name,
            kind=self.kind,
            title=self.title,
            compute=tuple(ComputeUnit(c.unit, c.dtype, c.peak, c.energy or 0.0) for c in self.compute),
            memories=tuple(_memory(m) for m in self.memories),
            links=tuple(_link(k) for k in self.links),
            power=Power(self.power.tdp, self.power.idle),
            overheads=Overheads(**{_OVERHEADS.get(name, name): value for name, value in self.overheads}),
            generation=self.generation,
            units=self.cores.count,
            clock_hz=self.cores.clock or 0.0,
            die_area_mm2=self.area.die or 0.0,
            process_m=self.area.node or 0.0,
            status=self.status,
            aliases=tuple(self.aliases),
            extra={s: getattr(self, s).model_dump() for s in FAMILY_SECTIONS if getattr(self, s) is not None},
            sources=dict(self.sources),
        )


def _memory(entry: MemoryEntry) -> Memory:
    write = entry.read if entry.write is None else entry.write
    return Memory(entry.name, entry.size, entry.read, write, entry.latency, entry.energy, entry.scope, entry.ecc)


def _link(entry: LinkEntry) -> Link:
    return Link(
        entry.name,
        entry.bandwidth,
        entry.latency,
        entry.topology,
        entry.in_network_reduction,
        entry.energy,
        entry.peers,
    )


_TEXT_KEYS = frozenset(
    {
        "schema",
        "schema_",
        "name",
        "title",
        "kind",
        "status",
        "vendor",
        "generation",
        "aliases",
        "extends",
        "notes",
        "sources",
    }
)


def quantity_paths(file: AcceleratorFile) -> list[str]:
    """Dotted paths of every number given in the file; list items go by name (``memories.hbm.read``)."""
    given = file.model_dump(exclude_unset=True, by_alias=True)
    return [p for key, value in given.items() if key not in _TEXT_KEYS for p in _leaves(key, value)]


def _leaves(path: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [p for key, item in value.items() for p in _leaves(f"{path}.{key}", item)]
    if isinstance(value, list):
        out = []
        for index, item in enumerate(value):
            label = _label(item, index)
            out += _leaves(f"{path}.{label}", item)
        return out
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _label(item: Any, index: int) -> str:
    if isinstance(item, dict) and "dtype" in item:
        return f"{item.get('unit', '')}.{item['dtype']}"
    return str(item.get("name", index)) if isinstance(item, dict) else str(index)


def cited(path: str, sources: dict[str, str]) -> bool:
    """True if `sources` has the path, a prefix of it, or ``default``."""
    return "default" in sources or citation(path, sources) != ""


def citation(path: str, sources: dict[str, str]) -> str:
    """The source of a dotted path: the longest prefix listed, else ``default``, else ""."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        found = sources.get(".".join(parts[:end]))
        if found is not None:
            return found
    return sources.get("default", "")
