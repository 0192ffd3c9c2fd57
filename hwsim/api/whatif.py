"""What-ifs: a device with some fields replaced, by dotted path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwsim import units
from hwsim.errors import InputError, unknown_name
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device
from hwsim.schema import families


def vary(device: Device, changes: Mapping[str, Num | str]) -> Device:
    """A device with some fields replaced; values are SI numbers, arrays, or quantity strings.

    Paths: ``compute.UNIT.DTYPE.peak``, ``memories.NAME.read|write|size|latency``, ``links.NAME.bandwidth|latency``,
    ``power.tdp|idle``, ``overheads.launch|layer|step|sequence|prompt_knee|prompt_slowdown``,
    any field of a family section (``fpga.clock``).
    Raises UnknownNameError, UnitError, InputError.
    """
    for path, value in changes.items():
        device = _vary_one(device, path, value)
    return device


_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "compute": {"peak": ("peak_flop_per_s", "flop_per_s"), "energy": ("energy_j_per_flop", "energy_per_flop")},
    "memories": {
        "read": ("read_bytes_per_s", "bytes_per_s"),
        "write": ("write_bytes_per_s", "bytes_per_s"),
        "size": ("size_bytes", "bytes"),
        "latency": ("latency_s", "time"),
    },
    "links": {"bandwidth": ("bandwidth_bytes_per_s", "bytes_per_s"), "latency": ("latency_s", "time")},
    "power": {"tdp": ("tdp_w", "power"), "idle": ("idle_w", "power")},
    "overheads": {
        "launch": ("launch_s", "time"),
        "layer": ("layer_s", "time"),
        "step": ("step_s", "time"),
        "sequence": ("sequence_s", "time"),
        "prompt_knee": ("prompt_knee", "number"),
        "prompt_slowdown": ("prompt_slowdown", "number"),
    },
}


def _vary_one(device: Device, path: str, value: Num | str) -> Device:
    section, _, rest = path.partition(".")
    item, _, field = rest.rpartition(".")
    if section in device.extra:
        section_data = families.changed(section, device.extra[section], rest, value)
        return device.with_(extra={**device.extra, section: section_data})
    if section not in _FIELDS:
        raise unknown_name("section of a device", section, _FIELDS, where=path)
    if field not in _FIELDS[section]:
        raise unknown_name(f"field of {section}", field, _FIELDS[section], where=path)
    attribute, dimension = _FIELDS[section][field]
    number = units.parse(value, dimension, where=path) if isinstance(value, str) else value
    _check_range(path, number, may_be_zero=section in ("power", "overheads") or field in ("latency", "energy"))
    if section in ("power", "overheads"):
        return device.with_(**{section: replace(getattr(device, section), **{attribute: number})})
    entries: Sequence[Any] = getattr(device, section)
    names = [f"{e.unit}.{e.dtype}" if section == "compute" else e.name for e in entries]
    if item not in names:
        raise unknown_name(f"entry of {section} of {device.name}", item, names, where=path)
    changed = tuple(replace(e, **{attribute: number}) if n == item else e for e, n in zip(entries, names, strict=True))
    return device.with_(**{section: changed})


# Smallest rate, size or peak that a what-if may set: below it times overflow and mean nothing.
_LEAST = 1e-3


def _check_range(path: str, number: Num, *, may_be_zero: bool) -> None:
    values = np.asarray(number, dtype=float)
    least = 0.0 if may_be_zero else _LEAST
    if values.size == 0 or not bool(np.all(np.isfinite(values)) and np.all(values >= least)):
        bound = ">= 0" if may_be_zero else "> 0"
        raise InputError(
            f"{path} must be a finite number {bound}", where=path, seen=str(number)[:60], fix="check the value"
        )
