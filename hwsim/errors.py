"""The one exception tree of hwsim.

::

    HwsimError                 exit code 1 (never raised itself)
    ├── InputError             2  the user's file, name or option is wrong
    │   ├── UnitError             a quantity string cannot be read
    │   ├── UnknownNameError      a name is not in the catalog
    │   └── MissingExtraError     an optional package is not installed
    ├── InfeasibleError        3  nothing satisfies the constraints (memory, mapping, SLO)
    │   └── SolverError           a solver is missing, failed or ran out of time with no answer
    │       └── OutOfTimeError    the last of these
    └── CheckFailedError       4  a validation or a law did not hold
        └── LawViolation          a numbered law of `hwsim.laws` is broken: a bug of hwsim

Every message has up to four lines: what, where (file:line and key path), the value seen, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HwsimError(Exception):
    """Root of the tree. Holds the four lines so that the CLI and tests need no parsing."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", seen: str = "", fix: str = "") -> None:
        self.what, self.where, self.seen, self.fix = what, where, seen, fix
        super().__init__(self.render())

    def render(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.seen:
            lines.append(f"  value: {self.seen}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class InputError(HwsimError):
    """Bad input: unknown key, bare number, impossible value, malformed file."""

    exit_code = 2


class UnitError(InputError):
    """A quantity string has no unit, an unknown unit, or one of another dimension."""


class UnknownNameError(InputError):
    """A name that no catalog entry carries; the message proposes the nearest ones."""


class MissingExtraError(InputError):
    """A command needs an optional package; the message holds the exact pip line."""

    def __init__(self, package: str, extra: str, why: str = "") -> None:
        super().__init__(
            f"{why or 'this command'} needs the package {package}, which is not installed",
            fix=f'pip install "hwsim[{extra}]"',
        )


class InfeasibleError(HwsimError):
    """The request is well-formed but nothing satisfies it; `budget` says what is short."""

    exit_code = 3

    def __init__(
        self, what: str, *, where: str = "", seen: str = "", fix: str = "", budget: dict[str, float] | None = None
    ) -> None:
        super().__init__(what, where=where, seen=seen, fix=fix)
        self.budget = budget or {}


class SolverError(InfeasibleError):
    """A solver is missing, crashed, or stopped without any solution."""


class OutOfTimeError(SolverError):
    """A solver's time ended before it had any solution."""


class CheckFailedError(HwsimError):
    """A check that the user asked for did not pass."""

    exit_code = 4


class LawViolation(CheckFailedError):
    """A numbered law does not hold on a result: a bug of hwsim, never of the input."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The up to `n` known names most like `name`, best first (case-insensitive)."""
    by_lower: dict[str, str] = {}
    for item in known:
        by_lower.setdefault(item.lower(), item)
    return [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)]


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "", fix: str = "") -> UnknownNameError:
    """An `UnknownNameError` that proposes the nearest names of `known`."""
    options = sorted(set(known))
    close = nearest(name, options)
    if close:
        hint = "did you mean " + " or ".join(close) + "?"
    elif len(options) <= 12:
        hint = "known: " + ", ".join(options)
    else:
        hint = fix or f"`hwsim list` shows the {len(options)} known names"
    return UnknownNameError(f"no {kind} named {name!r}", where=where, seen=repr(name), fix=hint)
