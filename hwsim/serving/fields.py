"""Options with several named fields: ``gap=0.2,period=1s`` as text, or a mapping from Python or a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hwsim import units
from hwsim.errors import InputError, unknown_name

Fields = Mapping[str, str]  # field -> dimension of `hwsim.units`; "number" for a plain number, "text" for a word


def fields_of(given: Any, known: Fields, where: str) -> dict[str, Any]:
    """Field -> SI number or word.

    Raises
    ------
    InputError, UnknownNameError, UnitError: not pairs, an unknown field, a value that is no such quantity.
    """
    found: dict[str, Any] = {}
    for name, value in _pairs(given, where).items():
        if name not in known:
            raise unknown_name("field", name, known, where=where)
        found[name] = _quantity(value, known[name], f"{where} {name}")
    return found


def _pairs(given: Any, where: str) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if given is True or given == "":
        return {}
    pairs: dict[str, Any] = {}
    for part in str(given).split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{where} needs NAME=VALUE pairs", where=where, seen=part.strip())
        if name.strip() in pairs:
            raise InputError(f"{where} gives {name.strip()} twice", where=where, seen=str(given), fix="keep one")
        pairs[name.strip()] = value.strip()
    return pairs


def _quantity(value: Any, dimension: str, where: str) -> Any:
    if dimension == "text":
        return str(value)
    if isinstance(value, bool) or value is None:
        raise InputError(f"{where} needs a number", where=where, seen=repr(value))
    if isinstance(value, int | float):
        number = float(value)
    elif dimension == "number" or _bare(value):
        number = _number(value, where)
    else:
        number = units.parse(str(value), dimension, where=where)
    if not math.isfinite(number):
        raise InputError(f"{where} must be finite", where=where, seen=repr(value))
    return number


def _bare(value: Any) -> bool:
    """Numbers without a unit are SI."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where} needs a number", where=where, seen=repr(value)) from None
