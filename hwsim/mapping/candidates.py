"""Which tile extents are worth offering: divisors, and for sizes with few divisors those of rounded-up sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FEW_DIVISORS = 12  # below this many divisors, `auto` also offers tiles that leave a partial last tile
ROUND_UP_TO = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Options:
    """`partial`: offer tiles that do not divide - ``never`` (even tilings only), ``auto`` or ``always``."""

    partial: Literal["never", "auto", "always"] = "auto"


def divisors(n: int) -> tuple[int, ...]:
    """All divisors of n >= 1, ascending."""
    small = [i for i in range(1, int(n**0.5) + 1) if n % i == 0]
    return tuple(sorted({*small, *(n // i for i in small)}))


def admissible_extents(extent: int, options: Options) -> tuple[int, ...]:
    """Tile extents of one dimension, ascending. With partial tiles they may reach past the extent."""
    exact = divisors(extent)
    if options.partial == "never" or (options.partial == "auto" and len(exact) >= FEW_DIVISORS):
        return exact
    padded = {-(-extent // g) * g for g in ROUND_UP_TO if g < 2 * extent}
    return tuple(sorted({*exact, *(e for p in padded for e in divisors(p))}))
