"""How it is computed: the mapping decision, and tasks with demands on named resources."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any, Final

from hwsim.ir.numbers import Num
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator

# The mapper that decides nothing: operators take their ideal time.
IDEAL: Final = "roofline"


@dataclass(frozen=True, slots=True)
class SolverReport:
    """What a solver said and what was checked of it. `gap` is relative: (objective - bound) / |objective|."""

    solver: str
    version: str
    status: str
    objective: float
    bound: float
    gap: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Mapping:
    """A JSON-able decision: parallel degrees, and per operator whatever its mapper decided.

    Stages and replicas may be arrays, for a grid of layouts.
    `operators` maps an operator name to plain data (tiles, loop order, device, memory of each tensor).
    """

    mapper: str = IDEAL
    tensor_parallel: int = 1
    pipeline_parallel: Num = 1
    expert_parallel: int = 1
    data_parallel: Num = 1
    sequence_parallel: int = 1
    operators: MappingType[str, MappingType[str, Any]] = field(default_factory=dict)
    report: SolverReport | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One operator after sharding, on one device, executed `count` times.

    `flop` maps dtype (on the operator's unit) or ``unit/dtype`` to operations, `traffic_bytes` memory or link name
    to bytes (one execution).
    `depends` names earlier tasks; `resource` is the device or link group that runs it.
    """

    name: str
    operator: Operator
    count: int
    flop: MappingType[str, Num]
    traffic_bytes: MappingType[str, Num]
    resource: str = "device0"
    depends: tuple[str, ...] = ()
    launches: int = 1
    choice: MappingType[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.operator.kind


@dataclass(frozen=True, slots=True)
class MappedGraph:
    """Tasks in topological order on a platform: what both engines take."""

    workload: str
    phase: str
    platform: Platform
    mapping: Mapping
    tasks: tuple[Task, ...]
    tokens: Num = 1
    batch: Num = 1
    layers: int = 1
    notes: tuple[str, ...] = ()
