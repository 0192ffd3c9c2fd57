"""The one list of kernel families; a new family is one module with a `FAMILY` and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache

from hwsim.cost.gpu.family import Family
from hwsim.errors import InputError, nearest, unknown_name

_MODULES = ("gemm", "attention_prefill", "attention_decode", "moe", "vector", "collective")


@cache
def families() -> dict[str, Family]:
    """Every family by name. Modules are imported here so that none imports another."""
    found = {}
    for module in _MODULES:
        family: Family = importlib.import_module(f"hwsim.cost.gpu.{module}").FAMILY
        found[family.name] = family
    return found


def family(name: str) -> Family:
    """The family called `name`. Raises UnknownNameError with the nearest names."""
    known = families()
    if name not in known:
        raise unknown_name("kernel family", name, known)
    return known[name]


def family_of(columns: Iterable[str], *, where: str = "") -> Family:
    """The family whose signature columns are all in `columns`; the longest signature wins.

    Raises InputError that names the family with most columns present and what it misses.
    """
    header = list(columns)
    present = set(header)
    matches = [f for f in families().values() if present >= set(f.signature)]
    if matches:
        return max(matches, key=lambda f: len(f.signature))
    closest = max(families().values(), key=lambda f: len(present & set(f.signature)) / len(f.signature))
    missing = [c for c in closest.signature if c not in present]
    hints = [f"{close[0]!r} may be {m!r}" for m in missing if (close := nearest(m, present, 1))]
    raise InputError(
        "the columns fit no kernel family",
        where=where,
        seen=", ".join(header)[:200],
        fix=f"nearest is {closest.name}: add {', '.join(missing)}" + (f" ({'; '.join(hints)})" if hints else ""),
    )
