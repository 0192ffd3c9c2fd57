"""Which devices take part, and how they reach each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.ir.platform import Device, Link, Platform
from hwsim.schema.loader import load_hardware, single

Array = np.ndarray[Any, Any]
# kinds whose model prices a whole pass (a plan binds its operators together): no operator of theirs has a price alone
WHOLE = ("flash", "wafer", "split", "pim", "fpga", "hybrid", "cxl")
MOST_SITES = 16


@dataclass(frozen=True, slots=True)
class Member:
    """One device; members of one `group` are equal and joined by the `joint` link of their node."""

    name: str
    device: Device
    group: str
    joint: Link | None


def members_of(names: Sequence[str]) -> list[Member]:
    """The devices behind names of accelerators and nodes, companions of a node included, in the order given.

    Raises
    ------
    InputError: unknown names, fewer than two devices, too many, or a kind whose operators have no price alone.
    """
    found: list[Member] = []
    for name in names:
        platform = load_hardware(name).platform
        found += _expanded(platform)
    if len(found) < 2:
        fix = "name more devices (--hw A --hw B), a node with companions, or memories (--tier NAME)"
        raise InputError("a placement needs at least two devices", where="--hw", seen=", ".join(names), fix=fix)
    if len(found) > MOST_SITES:
        raise InputError(f"a placement takes at most {MOST_SITES} devices", where="--hw", seen=str(len(found)))
    for member in found:
        if member.device.kind in WHOLE:
            raise InputError(
                f"{member.device.name} has no price of a single operator",
                where="--hw",
                seen=f"kind {member.device.kind}",
                fix="place on gpu, cpu, npu, tpu, soc or systolic devices",
            )
    return _renamed(found)


def _expanded(platform: Platform) -> list[Member]:
    copies = [Member(platform.device.name, platform.device, platform.name, platform.scale_up)] * platform.count
    return copies + [Member(d.name, d, d.name, None) for d in platform.companions]


def _renamed(members: Sequence[Member]) -> list[Member]:
    """Names made unique: equal ones get a number."""
    names = [m.name for m in members]
    seen: dict[str, int] = {}
    out = []
    for m in members:
        at = seen[m.name] = seen.get(m.name, -1) + 1
        name = f"{m.name}:{at}" if names.count(m.name) > 1 else m.name
        out.append(Member(name, m.device, m.group, m.joint))
    return out


def platform_of(device: Device) -> Platform:
    """A device alone, as the price of its operators needs it."""
    return single(device)


@dataclass(frozen=True, eq=False)
class Network:
    """Between members, shape (members, members): s a byte, s a message, J a byte; `names` of the links."""

    seconds_per_byte: Array
    latency_s: Array
    joules_per_byte: Array
    names: dict[tuple[int, int], str]


def network_of(members: Sequence[Member], override_bytes_per_s: float | None = None) -> Network:
    """Links between all pairs: that of their node, else the fastest port of a name that both have.

    A transfer runs at the slower end's rate, with the longer latency. `override_bytes_per_s` serves every pair.
    Raises InputError where two devices share no kind of port.
    """
    n = len(members)
    tables = np.zeros((3, n, n))
    names = {}
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            rate, latency, joules, names[i, j] = _between(members[i], members[j], override_bytes_per_s)
            tables[:, i, j] = 1 / rate, latency, joules
    return Network(tables[0], tables[1], tables[2], names)


def _between(a: Member, b: Member, override: float | None) -> tuple[float, float, float, str]:
    if override is not None:
        return override, 0.0, 0.0, "--link"
    if a.group == b.group and a.joint is not None:
        return _figures(a.joint, a.joint)
    shared = [(x, y) for x in a.device.links for y in b.device.links if x.name == y.name]
    if not shared:
        raise InputError(
            f"{a.name} and {b.name} have no port of the same name",
            where="--hw",
            seen=f"{_ports(a)} and {_ports(b)}",
            fix='give the rate between devices: --link "32 GB/s"',
        )
    return _figures(*max(shared, key=lambda p: min(p[0].bandwidth_bytes_per_s, p[1].bandwidth_bytes_per_s)))


def _figures(x: Link, y: Link) -> tuple[float, float, float, str]:
    rate = min(float(x.bandwidth_bytes_per_s), float(y.bandwidth_bytes_per_s))
    latency = max(float(x.latency_s), float(y.latency_s))
    return rate, latency, max(float(x.energy_j_per_byte), float(y.energy_j_per_byte)), x.name


def _ports(member: Member) -> str:
    return ", ".join(k.name for k in member.device.links) or "none"
