"""How the laws call a mapper, and what they note."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hwsim.errors import HwsimError
from hwsim.mapping.foreign import MapperFailedError

Breach = tuple[str, str]  # law, what happened


def guarded(call: Callable[[], Any]) -> tuple[Any, HwsimError | None, str]:
    """(value, typed error, text of an untyped exception) of a call into foreign code."""
    try:
        return call(), None, ""
    except MapperFailedError as error:
        return None, None, error.seen
    except HwsimError as error:
        return None, error, ""
    except Exception as error:  # the mapper is not ours: any exception is a finding, not a crash
        return None, None, f"{type(error).__name__}: {error}"


def tally(counts: dict[str, int], names: Iterable[str]) -> None:
    """Count one more case for each law."""
    for name in names:
        counts[name] = counts.get(name, 0) + 1
