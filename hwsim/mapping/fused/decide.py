"""A mapper's fused decision, checked here, kept by the hash of everything that led to it (as `hwsim.mapping.cache`)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim.ir.mapped import SolverReport
from hwsim.mapping import cache
from hwsim.mapping.fused.counts import FusedCounts
from hwsim.mapping.fused.problem import Attention, FusedTiling, Spread
from hwsim.mapping.fused.search import FusedDecision, checked
from hwsim.mapping.machine import Machine
from hwsim.mapping.registry import LoadedMapper


def decide_attention(
    loaded: LoadedMapper,
    machine: Machine,
    a: Attention,
    objective: str,
    vector_per_cycle: float,
    use_cache: bool = True,
) -> FusedDecision | None:
    """The mapper's fused mapping, costed again; None where the mapper fuses nothing.

    Raises InfeasibleError, CheckFailedError: as `hwsim.mapping.fused.search.checked`.
    """
    ask = getattr(loaded.mapper, "map_attention", None)
    if ask is None:
        return None
    key = _key(machine, a, objective, vector_per_cycle, loaded.sha256)
    kept = _load(key) if use_cache else None
    decision = kept or ask(machine, a, objective, vector_per_cycle)
    found = checked(machine, a, objective, vector_per_cycle, decision)
    if use_cache and kept is None:
        _store(key, found)
    return found


def _key(machine: Machine, a: Attention, objective: str, vector_per_cycle: float, sha256: str) -> str:
    problem = [{**asdict(machine), "name": "", "notes": ""}, {**asdict(a), "name": ""}]
    text = json.dumps([problem, objective, vector_per_cycle, sha256, _code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(key: str) -> FusedDecision | None:
    try:
        data = json.loads((cache.folder() / f"fused-{key}.json").read_text(encoding="utf-8"))
        tiling = data["tiling"]
        places = {name: Spread(*(tuple(v) for v in tiling[name].values())) for name in ("qk", "av")}
        return FusedDecision(
            FusedTiling(**{**tiling, **places}), FusedCounts({}, {}, {}, 0.0), SolverReport(**data["report"])
        )
    except Exception:  # an entry that is absent or damaged is no entry: it is computed again
        return None


def _store(key: str, decision: FusedDecision) -> None:
    folder = cache.folder()
    data: dict[str, Any] = {"tiling": decision.tiling.to_dict(), "report": asdict(replace(decision.report))}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream, allow_nan=False)
        os.replace(name, folder / f"fused-{key}.json")
    except (OSError, ValueError):
        return
