"""`hwsim/node@1`, `hwsim/cluster@1`, `hwsim/prices@1`: devices in groups, and dated money."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwsim.schema.base import Bandwidth, Bytes, Count, EnergyPerByte, Name, PowerW, Strict, Time, Usd, UsdPerJ, UsdPerS


class NodeFile(Strict):
    """`count` equal devices joined by their link `link`; `host_power` is the node's power without the devices."""

    schema_: Literal["hwsim/node@1"] = Field(alias="schema")
    name: Name
    title: str
    aliases: list[str] = []
    device: Name
    count: Count
    link: Name | None = None
    companions: list[Name] = []
    host_power: PowerW = 0.0
    notes: str = ""
    sources: dict[str, str]


class NetworkEntry(Strict):
    """Network port of each device towards other nodes, one direction."""

    name: Name
    bandwidth: Bandwidth
    latency: Time = 0.0
    topology: Literal["ring", "switch", "mesh", "point"] = "switch"
    in_network_reduction: bool = False
    energy: EnergyPerByte = 0.0


class ClusterFile(Strict):
    """`count` equal nodes joined by `network`."""

    schema_: Literal["hwsim/cluster@1"] = Field(alias="schema")
    name: Name
    title: str
    aliases: list[str] = []
    node: Name
    count: Count
    network: NetworkEntry
    notes: str = ""
    sources: dict[str, str]


class MemoryFile(Strict):
    """A memory or storage device that attaches to a host: CXL card, DDR, NVMe, UFS."""

    schema_: Literal["hwsim/memory@1"] = Field(alias="schema")
    name: Name
    title: str
    aliases: list[str] = []
    kind: Literal["cxl", "ddr", "nvme", "ufs", "hbm"]
    size: Bytes
    read: Bandwidth
    write: Bandwidth | None = None
    latency: Time = 0.0
    energy: EnergyPerByte = 0.0
    random_read_iops: Annotated[float, Field(gt=0, strict=False)] | None = None
    price: Usd | None = None
    notes: str = ""
    sources: dict[str, str]


class PriceEntry(Strict):
    """Rent (`rate`, one device) or purchase (`capex`, one device); each with its own source."""

    device: Name
    rate: UsdPerS | None = None
    capex: Usd | None = None
    term: str = "on-demand"
    source: Annotated[str, Field(min_length=3)]


class PricesFile(Strict):
    """Prices of one date. Bought devices are written off over `amortization` and pay `electricity` x `pue`."""

    schema_: Literal["hwsim/prices@1"] = Field(alias="schema")
    name: Name
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    currency: Literal["USD"] = "USD"
    amortization: Time
    electricity: UsdPerJ
    pue: Annotated[float, Field(ge=1, le=3, strict=False)]
    entries: list[PriceEntry]
    notes: str = ""
    sources: dict[str, str]
