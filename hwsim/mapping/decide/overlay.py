"""An overlay mapper's build for one phase, on top of the plan that the FPGA family makes by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Platform
from hwsim.ir.workload import WorkloadGraph
from hwsim.mapping.lower import lower
from hwsim.mapping.overlay.problem import checked, problem_of
from hwsim.mapping.registry import load_mapper


def overlay(graph: WorkloadGraph, platform: Platform, mapping: Mapping, budget_s: float | None) -> Mapping:
    """The mapping with one build for every operator. Raises InfeasibleError, CheckFailedError."""
    mapper: Any = load_mapper(mapping.mapper).mapper
    problem = problem_of(lower(graph, platform, replace(mapping, operators={})))
    decision = mapper.map(problem, "latency", budget_s)
    build = checked(problem, decision)
    return replace(mapping, operators={o.name: {"overlay": build} for o in graph.operators}, report=decision.report)
