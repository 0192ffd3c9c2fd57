"""The number type of the whole cost path: a Python number or a numpy array, never a list.

Problem sizes, counts and device parameters may each be scalars or arrays that broadcast together
(decision 1 of `docs/architecture.md`): a grid of design points is one call.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Num: TypeAlias = int | float | np.ndarray[Any, Any]


def exact(value: Num) -> Num:
    """Python int for an integral scalar, float64 array otherwise: counts stay exact and cannot overflow.

    int64 would wrap silently above 9.2e18, which a 400B model reaches within one long prefill.
    """
    if np.ndim(value) == 0:
        scalar = value.item() if isinstance(value, np.generic | np.ndarray) else value
        return int(scalar) if isinstance(scalar, float) and scalar.is_integer() else scalar
    return np.asarray(value, dtype=np.float64)


def plain(value: Num) -> Num:
    """Python float of a zero-dimensional result; arrays as they are."""
    return float(value) if np.ndim(value) == 0 else value
