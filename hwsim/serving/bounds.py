"""What the options of a serving run may be: refused at the door, with the value and what to write instead.

The upper bounds are far above any cluster or trace and keep a slip of an exponent from eating the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from hwsim import units
from hwsim.errors import InputError

# option -> (least, most) of whole numbers
_WHOLE: Final = {
    "requests": (1, 10**8), "replicas": (1, 20_000), "prefill_pool": (0, 20_000), "max_batch": (1, 2**16),
    "chunk": (1, 2**24), "kv_blocks": (1, 10**9), "queue_limit": (1, 10**9), "mixed": (0, 10**9), "tp": (1, 10**5),
    "pp": (1, 10**5), "dp": (1, 1024), "seed": (0, 2**63),
}  # fmt: skip
_REAL: Final = {"rate": (1e-9, 1e9), "burstiness": (0.01, 100.0), "attainment": (1e-6, 1.0)}
MOST_TOKENS: Final = 10**9
"""Tokens of one request, as for a sequence of an estimate."""


def check_numbers(given: Mapping[str, Any]) -> None:
    """Raises InputError for a number outside its bounds, or one that belongs to an option that is not given."""
    for name, (least, most) in (_WHOLE | _REAL).items():
        value = given.get(name)
        if value is None:
            continue
        kind = "a whole number" if name in _WHOLE else "a number"
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InputError(
                f"--{name.replace('_', '-')} must be {kind} from {_text(least)} to {_text(most)}",
                where=f"--{name.replace('_', '-')}",
                seen=str(value),
            )
    if given.get("overhead") and units.parse(given["overhead"], "time", where="--overhead") < 0:
        raise InputError("--overhead must be at least 0 s", where="--overhead", seen=str(given["overhead"]))
    if given.get("prefill_pool", 0) and given["prefill_pool"] >= given["replicas"]:
        raise InputError(
            "--prefill-pool must leave a replica to decode",
            where="--prefill-pool",
            seen=f"{given['prefill_pool']} of {given['replicas']} replicas",
            fix=f"--replicas {given['prefill_pool'] + 1} or more: the pool is part of them",
        )
    if given.get("limits") and not given.get("capacity"):
        raise InputError("--limits belongs to a capacity search", where="--limits", fix="add --capacity")


def check_lengths(mean: float, cv: float, where: str) -> None:
    """Raises InputError for token counts that no request has."""
    if not (math.isfinite(mean) and 1 <= mean <= MOST_TOKENS):
        raise InputError(f"the mean length must be 1 to {_text(MOST_TOKENS)} tokens", where=where, seen=f"{mean:g}")
    if not 0 <= cv <= _REAL["burstiness"][1]:
        raise InputError("the variation of lengths must be 0 to 100", where=where, seen=f"{cv:g}")


def _text(number: float) -> str:
    return f"{number:g}"
