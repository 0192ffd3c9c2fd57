"""A mesh mapper's squares for the operators of one phase, on top of the plan that the family makes by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Platform
from hwsim.ir.workload import WorkloadGraph
from hwsim.mapping.lower import lower
from hwsim.mapping.mesh.problem import checked, problem_of
from hwsim.mapping.registry import load_mapper


def mesh(graph: WorkloadGraph, platform: Platform, mapping: Mapping, budget_s: float | None) -> Mapping:
    """The mapping with a square for every operator. Raises InfeasibleError, SolverError, CheckFailedError."""
    mapper: Any = load_mapper(mapping.mapper).mapper
    problem = problem_of(lower(graph, platform, replace(mapping, operators={})))
    decision = mapper.map(problem, "latency", budget_s)
    squares = checked(problem, decision)
    return replace(mapping, operators={name: {"mesh": one} for name, one in squares.items()}, report=decision.report)
