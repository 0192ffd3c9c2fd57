"""The one place that knows which file of `hwsim.cost` prices which kind of device.

A family module exposes ``task_cost(task, platform) -> TaskCost``. To add a family: write its file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from hwsim.cost import roofline
from hwsim.errors import unknown_name
from hwsim.ir.mapped import Task
from hwsim.ir.platform import Platform
from hwsim.ir.result import TaskCost

CostFunction = Callable[[Task, Platform], TaskCost]

FAMILIES: Final[dict[str, str]] = {
    "gpu": "hwsim.cost.gpu",
    "tpu": "hwsim.cost.generic",
    "npu": "hwsim.cost.generic",
    "cpu": "hwsim.cost.generic",
    "soc": "hwsim.cost.generic",
    "fpga": "hwsim.cost.generic",
    "wafer": "hwsim.cost.generic",
    "systolic": "hwsim.cost.generic",
}


def cost_function(kind: str, efficiency: str = "calibrated") -> CostFunction:
    """The function that prices a task on a device of `kind`.

    `efficiency` ``datasheet`` gives the bare roofline for every family.
    Raises UnknownNameError for an unknown kind or efficiency.
    """
    if efficiency not in ("calibrated", "datasheet"):
        raise unknown_name("efficiency", efficiency, ("calibrated", "datasheet"))
    if kind not in FAMILIES:
        raise unknown_name("device kind", kind, FAMILIES)
    if efficiency == "datasheet":
        return roofline.task_cost
    function: CostFunction = importlib.import_module(FAMILIES[kind]).task_cost
    return function
