"""A `TaskCost` from the value of a family model, its parts, and the floor at datasheet peaks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.cost.roofline import largest, total
from hwsim.ir.numbers import Num, plain
from hwsim.ir.result import TaskCost


def bracketed(
    value_s: Num,
    parts_s: Mapping[str, Num],
    floor_parts_s: Mapping[str, Num],
    band: float,
    *,
    run_w: Num = 0.0,
    energy_j: Num | None = None,
    model: str = "",
) -> TaskCost:
    """Bracket of one execution: value within a factor `band`, never below the floor.

    `run_w` (watts above idle while the device works) gives the energy where the family measured power, else
    `energy_j`. A value below the floor is raised to it: a fitted model may not beat the datasheet.
    """
    floor = largest(floor_parts_s) if floor_parts_s else 0.0
    value = plain(np.maximum(value_s, floor))
    low = plain(np.maximum(value / band, floor))
    high = value * band
    ceiling = plain(np.maximum(total(parts_s) * band, high))
    joules = run_w * value if energy_j is None else energy_j
    return TaskCost(value, low, high, floor, ceiling, dict(parts_s), dict(floor_parts_s), joules, model)
