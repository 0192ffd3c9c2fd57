"""From names to IR: accelerators (with `extends`), nodes, clusters, prices, and the calibration of a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim import content
from hwsim.errors import InputError, unknown_name
from hwsim.ir.platform import Device, Link, Platform, Price
from hwsim.schema.accelerator import AcceleratorFile
from hwsim.schema.base import validate
from hwsim.schema.calibration import load_calibration
from hwsim.schema.reader import Document, read
from hwsim.schema.systems import ClusterFile, MemoryFile, NodeFile, PricesFile

_MAX_EXTENDS = 8
# Devices of a bare accelerator are taken to share one scale-up domain of this size (an HGX board) unless its
# link says how many peers it reaches; a node file states it exactly.
_DEFAULT_NODE_SIZE = 8


@dataclass(frozen=True, slots=True)
class LoadedHardware:
    """A platform with where it came from, for provenance."""

    platform: Platform
    entry: content.Entry
    files: tuple[Path, ...]


def load_accelerator(name: str, *, where: str = "") -> tuple[Device, tuple[Path, ...]]:
    """The device that `name` means, and the files read; `where` says which line named it.

    Raises
    ------
    UnknownNameError: no such name. InputError: a malformed file.
    """
    entry = _resolve(name, "accelerator", where)
    file, paths = _accelerator_file(entry.path)
    return _with_calibration(file.to_device()), paths


def load_hardware(name: str) -> LoadedHardware:
    """The platform that an accelerator, node or cluster name (or path) means.

    Raises
    ------
    UnknownNameError: no such name. InputError: a malformed file, or one of another schema.
    """
    entry = content.resolve(name, *content.HARDWARE_KINDS)
    document = read(entry.path)
    schema = document.data.get("schema") if isinstance(document.data, dict) else None
    if schema == "hwsim/node@1":
        return _node(document, entry)
    if schema == "hwsim/cluster@1":
        return _cluster(document, entry)
    if schema == "hwsim/memory@1":
        validate(MemoryFile, document)
        raise InputError(
            f"{entry.name} is a memory, not something that computes",
            where=str(entry.path),
            fix="name it as a companion of a node",
        )
    file, paths = _accelerator_file(entry.path)
    return LoadedHardware(single(_with_calibration(file.to_device())), entry, paths)


def single(device: Device) -> Platform:
    """One device as a platform; copies of it would be joined by its first link."""
    link = device.links[0] if device.links else None
    size = link.peers + 1 if link is not None and link.peers else _DEFAULT_NODE_SIZE
    return Platform(
        device.name, device, count=1, node_size=size, scale_up=link, scale_out=None, price=price_of(device.name)
    )


def _resolve(name: str, kind: str, where: str) -> content.Entry:
    """`content.resolve`, whose errors say which line of which file named the thing."""
    try:
        return content.resolve(name, kind)
    except InputError as error:
        raise type(error)(error.what, where=error.where or where, seen=error.seen, fix=error.fix) from None


def _node(document: Document, entry: content.Entry) -> LoadedHardware:
    file = validate(NodeFile, document)
    device, paths = load_accelerator(file.device, where=document.where(("device",)))
    link = device.links[0] if device.links else None
    if file.link is not None:
        link = next((k for k in device.links if k.name == file.link), None)
        if link is None:
            raise unknown_name(
                f"link of {device.name}", file.link, [k.name for k in device.links], where=document.where(("link",))
            )
    companions = tuple(
        load_accelerator(name, where=document.where(("companions", i)))[0] for i, name in enumerate(file.companions)
    )
    platform = Platform(
        file.name, device, file.count, file.count, link, None, companions, file.host_power, price_of(device.name)
    )
    return LoadedHardware(platform, entry, (entry.path, *paths))


def _cluster(document: Document, entry: content.Entry) -> LoadedHardware:
    file = validate(ClusterFile, document)
    node_entry = _resolve(file.node, "node", document.where(("node",)))
    node = _node(read(node_entry.path), node_entry)
    network = file.network
    scale_out = Link(
        network.name,
        network.bandwidth,
        network.latency,
        network.topology,
        network.in_network_reduction,
        network.energy,
    )
    platform = replace(
        node.platform,
        name=file.name,
        count=node.platform.count * file.count,
        node_size=node.platform.count,
        scale_out=scale_out,
    )
    return LoadedHardware(platform, entry, (entry.path, *node.files))


def _accelerator_file(path: Path) -> tuple[AcceleratorFile, tuple[Path, ...]]:
    document, paths = _extended(read(path), (path,))
    return validate(AcceleratorFile, document), paths


def resolved_accelerator(name: str) -> dict[str, Any]:
    """Plain data of an accelerator with `extends` merged in, as `hwsim show --resolved` prints it."""
    entry = content.resolve(name, "accelerator")
    document, _ = _extended(read(entry.path), (entry.path,))
    validate(AcceleratorFile, document)
    return dict(document.data)


def _extended(document: Document, chain: tuple[Path, ...]) -> tuple[Document, tuple[Path, ...]]:
    data = document.data
    if not isinstance(data, dict) or not isinstance(data.get("extends"), str):
        return document, chain
    where = document.where(("extends",))
    parent_name = data["extends"]
    if "/" in parent_name or "\\" in parent_name or len(chain) > _MAX_EXTENDS:
        raise InputError(
            "extends must be a catalog name, in a chain of at most 8",
            where=where,
            seen=repr(parent_name)[:80],
            fix="name a device as `hwsim list accelerator` shows it",
        )
    parent_path = _resolve(parent_name, "accelerator", where).path
    if parent_path.resolve() in {p.resolve() for p in chain}:
        raise InputError(
            "extends leads back to the file itself", where=where, seen=parent_name, fix="name another device"
        )
    parent, paths = _extended(read(parent_path), (*chain, parent_path))
    base = (
        {k: v for k, v in parent.data.items() if k not in ("aliases", "extends")}
        if isinstance(parent.data, dict)
        else {}
    )
    return Document(merge(base, data), document.path, document.lines), paths


def merge(base: Any, change: Any) -> Any:
    """`change` over `base`: mappings merge by key; lists merge by item name if every item is known, else replace."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{k: merge(base[k], v) if k in base else v for k, v in change.items()}}
    if isinstance(base, list) and isinstance(change, list):
        known = {_item_key(item): item for item in base}
        if None not in known and change and all(_item_key(item) in known for item in change):
            changed = {_item_key(item): item for item in change}
            return [merge(item, changed[key]) if key in changed else item for key, item in known.items()]
    return change


def _item_key(item: Any) -> tuple[Any, ...] | None:
    if not isinstance(item, dict):
        return None
    if isinstance(item.get("dtype"), str):
        return (item.get("unit"), item["dtype"])
    return (item["name"],) if isinstance(item.get("name"), str) else None


@lru_cache(maxsize=8)
def _price_files(stamp: tuple[tuple[str, int], ...]) -> tuple[PricesFile, ...]:
    files = [validate(PricesFile, read(Path(path))) for path, _ in stamp]
    return tuple(sorted(files, key=lambda f: (f.date, f.name), reverse=True))


def price_of(device: str, name: str | None = None) -> Price | None:
    """The newest price of a device, or the one in the price file `name`; None where no file lists it."""
    if name is not None:
        files: tuple[PricesFile, ...] = (validate(PricesFile, read(content.resolve(name, "price").path)),)
    else:
        files = _price_files(tuple(_mentioning(device)))
    for file in files:
        for entry in file.entries:
            if content.normalize(entry.device) == content.normalize(device):
                return _price(file, entry.device, entry.rate, entry.capex, f"{entry.source} ({file.name})", entry.term)
    return None


def _mentioning(device: str) -> Iterator[tuple[str, int]]:
    """Price files whose text holds the device's name: only these are worth reading strictly."""
    wanted = content.normalize(device)
    for path in content.catalog("price").values():
        if wanted in content.normalize(path.read_text(encoding="utf-8", errors="replace")):
            yield str(path), path.stat().st_mtime_ns


def _price(file: PricesFile, device: str, rate: float | None, capex: float | None, source: str, term: str) -> Price:
    written_off = capex / file.amortization if rate is None and capex is not None else 0.0
    return Price(
        device=device,
        rate_usd_per_s=rate if rate is not None else written_off,
        date=file.date,
        source=source,
        term=term if rate is not None else "bought",
        capex_usd=capex or 0.0,
        energy_usd_per_j=0.0 if rate is not None else file.electricity * file.pue,
    )


def _with_calibration(device: Device) -> Device:
    """Attach the fitted or transferred calibration of the device, where its family has one."""
    found = load_calibration(device)
    return device if found is None else device.with_(calibration=found)
