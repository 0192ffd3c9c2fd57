"""Quantity strings to SI floats and back: the only place that knows unit names.

Inside hwsim every number is in SI (seconds, bytes, FLOP/s, joules, watts, US dollars) and its name says so.
At the door (YAML, options) a quantity is a string with a unit: ``2039 GB/s``, ``80 GiB``, ``312 TFLOP/s``.
``k M G T P`` are decimal, ``Ki Mi Gi Ti`` binary; ``B`` is a byte and ``bit`` a bit, never ``b``.
"""

from __future__ import annotations

import math
import re
from typing import Final

from hwsim.errors import UnitError, nearest

_PREFIX: Final = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3,
    "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip

# dimension -> {unit: factor to SI}. The second element says which prefixes make sense.
_SMALL: Final = ("", "f", "p", "n", "u", "µ", "m")
_LARGE: Final = ("", "k", "K", "M", "G", "T", "P", "E")
_BINARY: Final = ("", "k", "K", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti")
_DIMENSIONS: Final[dict[str, dict[str, tuple[float, tuple[str, ...]]]]] = {
    "time": {"s": (1.0, _SMALL), "min": (60.0, ("",)), "h": (3600.0, ("",)), "year": (31_536_000.0, ("",))},
    "bytes": {"B": (1.0, _BINARY), "bit": (0.125, _BINARY)},
    "bytes_per_s": {"B/s": (1.0, _BINARY), "bit/s": (0.125, _BINARY)},
    "flop_per_s": {"FLOP/s": (1.0, _LARGE), "OP/s": (1.0, _LARGE)},
    "flop": {"FLOP": (1.0, _LARGE), "OP": (1.0, _LARGE)},
    "frequency": {"Hz": (1.0, _LARGE)},
    "rate": {"1/s": (1.0, ("",)), "req/s": (1.0, ("", "k"))},
    "power": {"W": (1.0, ("", "m", "k", "M"))},
    "energy": {"J": (1.0, (*_SMALL, "k", "M")), "Wh": (3600.0, ("", "k", "M"))},
    "energy_per_byte": {"J/B": (1.0, _SMALL), "J/bit": (8.0, _SMALL)},
    "energy_per_flop": {"J/FLOP": (1.0, _SMALL), "J/OP": (1.0, _SMALL), "J/MAC": (0.5, _SMALL)},
    "area": {"mm2": (1.0, ("",)), "cm2": (100.0, ("",))},
    "length": {"m": (1.0, ("n", "u", "m", ""))},
    "usd": {"USD": (1.0, ("", "k", "M"))},
    "usd_per_s": {"USD/h": (1 / 3600.0, ("",)), "USD/s": (1.0, ("",))},
    "usd_per_j": {"USD/kWh": (1 / 3.6e6, ("",)), "USD/MWh": (1 / 3.6e9, ("",))},
    "number": {"": (1.0, ("",))},
}
_EXAMPLE: Final = {
    "time": "25 us", "bytes": "80 GiB", "bytes_per_s": "2039 GB/s", "flop_per_s": "312 TFLOP/s", "flop": "1 TFLOP",
    "frequency": "1410 MHz", "rate": "3 req/s", "power": "400 W", "energy": "1.5 pJ", "energy_per_byte": "4 pJ/bit",
    "energy_per_flop": "0.7 pJ/FLOP", "area": "826 mm2", "length": "7 nm", "usd": "10 kUSD", "usd_per_s": "2.10 USD/h",
    "usd_per_j": "0.08 USD/kWh", "number": "2048",
}  # fmt: skip
# What no machine, run or bill comes near, in SI: a slip of an exponent or a unit, not a quantity. Values within cannot
# overflow in sums and powers of times. Zero and signs are for the reader of the value to judge.
_LIMITS: Final = {
    "time": (1e-24, 1e12), "bytes": (1e-3, 1e24), "bytes_per_s": (1.0, 1e24), "flop_per_s": (1.0, 1e24),
    "frequency": (1e-3, 1e18), "rate": (1e-12, 1e12), "power": (1e-12, 1e15),
}  # fmt: skip
_ANY_LIMITS: Final = (1e-30, 1e30)
_NUMBER: Final = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*\Z", re.DOTALL)


def _table(dimension: str) -> dict[str, float]:
    """All spellings of one dimension with their factor to SI."""
    return {
        prefix + unit: _PREFIX[prefix] * factor
        for unit, (factor, prefixes) in _DIMENSIONS[dimension].items()
        for prefix in prefixes
    }


_TABLES: Final = {dimension: _table(dimension) for dimension in _DIMENSIONS}


def parse(text: object, dimension: str, *, where: str = "") -> float:
    """Read a quantity string of `dimension` into a finite SI float.

    Parameters
    ----------
    text: what the file or option holds, e.g. ``"2039 GB/s"``.
    dimension: a key of the unit table, e.g. ``"bytes_per_s"``.
    where: file:line and key path for the error message.

    Raises
    ------
    UnitError: a bare number, an unknown unit, a unit of another dimension, NaN, infinity, an absurd exponent.
    """
    example = _EXAMPLE[dimension]
    if isinstance(text, bool) or not isinstance(text, str):
        fix = f"write it with its unit, e.g. {example!r}"
        raise UnitError(
            f"{dimension} needs a quantity string, not a bare value", where=where, seen=repr(text)[:80], fix=fix
        )
    match = _NUMBER.match(text[:200])
    if match is None:
        raise UnitError(f"not a quantity of {dimension}", where=where, seen=repr(text)[:80], fix=f"e.g. {example!r}")
    number, unit = match.groups()
    if not unit and dimension != "number":
        raise UnitError(f"{dimension} without a unit", where=where, seen=repr(text)[:80], fix=f"e.g. {example!r}")
    factor = _TABLES[dimension].get(unit)
    if factor is None:
        raise UnitError(
            f"{unit[:40]!r} is not a unit of {dimension}",
            where=where,
            seen=repr(text)[:80],
            fix=_unit_hint(unit, dimension),
        )
    value = float(number.replace("_", "")) * factor
    if not math.isfinite(value):
        raise UnitError(f"{dimension} must be finite", where=where, seen=repr(text)[:80], fix=f"e.g. {example!r}")
    least, most = _LIMITS.get(dimension, _ANY_LIMITS)
    if value and not least <= abs(value) <= most:
        bound = f"at least {least:g}" if abs(value) < least else f"at most {most:g}"
        raise UnitError(
            f"{dimension} must be {bound} in SI units",
            where=where,
            seen=repr(text)[:80],
            fix=f"check the exponent and the unit, e.g. {example!r}",
        )
    return value


def _unit_hint(unit: str, dimension: str) -> str:
    owner = next((d for d, table in _TABLES.items() if unit in table), None)
    if owner is not None:
        return f"that is a unit of {owner}; write e.g. {_EXAMPLE[dimension]!r}"
    close = nearest(unit, _TABLES[dimension])
    return (f"did you mean {close[0]!r}? " if close else "") + f"e.g. {_EXAMPLE[dimension]!r}"


_SI_OUT: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"),
                  (1e-9, "n"), (1e-12, "p"))  # fmt: skip


_LONG_S, _VERY_LONG_S = 999.5, 1e9  # nobody says kiloseconds


def si(value: float, unit: str, digits: int = 3) -> str:
    """Format with an SI prefix: ``si(6.87e-3, "s") == "6.87 ms"``; long times stay in seconds, ``4,090 s``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    if unit == "s" and abs(value) >= _LONG_S:
        return f"{value:,.0f} s" if abs(value) < _VERY_LONG_S else f"{value:.3g} s"
    # round first, so that 999.96 us becomes 1.00 ms and not 1000 us
    magnitude = abs(float(f"{value:.{digits - 1}e}"))
    scale, prefix = next(((s, p) for s, p in _SI_OUT if magnitude >= s), _SI_OUT[-1])
    scaled = value / scale
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{scaled:.{digits - 1}e}")))))
    return f"{scaled:.{decimals}f} {prefix}{unit}"


def gib(value: float, digits: int = 2) -> str:
    """Bytes as GiB, the unit in which memory is sold and budgets are read."""
    return f"{value / 2**30:.{digits}f} GiB"
