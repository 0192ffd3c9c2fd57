"""Mapping: from operators to loops, devices and memories. Public names load when they are first used."""

from __future__ import annotations

import importlib
from typing import Any, Final

from hwsim.errors import InfeasibleError

_HOME: Final = {
    "Attention": "fused.problem",
    "Chain": "placement.chain",
    "Choice": "parallelism.choose",
    "Columns": "parallelism.columns",
    "Counts": "problem",
    "Decision": "protocol",
    "FusedDecision": "fused.search",
    "Gemm": "problem",
    "GraphProblem": "placement.problem",
    "Layout": "parallelism.layouts",
    "Level": "machine",
    "Limits": "parallelism.columns",
    "Loops": "problem",
    "Machine": "machine",
    "Mapper": "protocol",
    "MeshDecision": "mesh.problem",
    "MeshProblem": "mesh.problem",
    "OverlayDecision": "overlay.problem",
    "OverlayProblem": "overlay.problem",
    "Options": "candidates",
    "Placement": "placement.answer",
    "Program": "ilp",
    "Refine": "parallelism.choose",
    "Staging": "placement.answer",
    "TierProblem": "placement.tiers",
    "Tiering": "placement.answer",
    "Tiling": "problem",
    "allowed": "parallelism.columns",
    "balance": "parallelism.stages",
    "best_attention": "fused.search",
    "best_overlay": "overlay.problem",
    "best_squares": "mesh.search",
    "best_tiling": "optimize",
    "check": "legality",
    "check_mapper": "conformance",
    "choose": "parallelism.choose",
    "claim": "protocol",
    "count": "counts",
    "cycle_floor": "tiling.result",
    "divisors": "candidates",
    "enumerate_best": "enumerate",
    "floor_of": "protocol",
    "goal_of": "tiling.goal",
    "load_mapper": "registry",
    "machine_from_dict": "machine",
    "machine_of": "adapt",
    "map_workload": "plan",
    "pick_least": "decide.library",
    "place_chain": "placement.contiguous",
    "place_graph": "placement.place",
    "place_tiers": "placement.tier_program",
    "solve": "solve",
    "violations": "legality",
    "works_of": "gemms",
}
__all__ = sorted((*_HOME, InfeasibleError.__name__))  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"hwsim.mapping.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
