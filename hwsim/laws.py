"""Numbered laws that every result obeys; each is asserted at run time where it is cheap and named in a test.

LAW-1  floor <= low <= value <= high <= ceiling of every task, phase and metric; the floor of a task is at least its
       demand at the datasheet rate of every unit, memory and link, except where its family states a mechanism
LAW-2  time does not grow with a peak or a bandwidth and does not fall with work
LAW-3  conservation: operations of tasks = operations of the graph; bytes moved >= compulsory bytes; shards sum up
LAW-4  energy = dynamic + static power x makespan; bill = USD per token x tokens
LAW-5  Lindley: waits of a FIFO single server equal the recursion on the same draws
LAW-6  Little: area under N(t) = sum of sojourns
LAW-7  requests injected = done + queued + running + rejected; KV blocks used + free = total
LAW-8  critical path <= discrete-event makespan <= serial sum
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.errors import LawViolation

_REL = 1e-9


def ordered(law: str, what: str, **values: Any) -> None:
    """Check that the named values do not decrease in the order given (relative slack 1e-9). Raises LawViolation."""
    names = list(values)
    for left, right in zip(names, names[1:], strict=False):
        a, b = np.asarray(values[left], dtype=float), np.asarray(values[right], dtype=float)
        if not (bool(np.all(a <= b)) or bool(np.all(a <= b + _REL * np.maximum(np.abs(a), np.abs(b))))):
            raise LawViolation(
                f"{law}: {left} <= {right} does not hold for {what}",
                seen=f"{left}={np.max(a):.9g}, {right}={np.min(b):.9g}",
                fix="this is a bug of hwsim: please report it with the command line",
            )


def equal(law: str, what: str, left: Any, right: Any, rel: float = _REL) -> None:
    """Check that two values agree to `rel`. Raises LawViolation."""
    a, b = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if not bool(np.all(np.abs(a - b) <= rel * np.maximum(np.abs(a), np.abs(b)) + 1e-300)):
        raise LawViolation(
            f"{law}: {what} does not add up", seen=f"{np.ravel(a)[0]:.12g} against {np.ravel(b)[0]:.12g}"
        )


def finite(law: str, what: str, value: Any) -> None:
    """Check that a value is finite and not negative. Raises LawViolation."""
    a = np.asarray(value, dtype=float)
    if not bool(np.all(np.isfinite(a)) and np.all(a >= 0)):
        raise LawViolation(f"{law}: {what} is not a finite number >= 0", seen=f"{np.ravel(a)[0]}")
