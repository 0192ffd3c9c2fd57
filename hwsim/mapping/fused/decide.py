"""A mapper's fused decision, checked here, kept by the hash of everything that led to it (as `hwsim.mapping.cache`)."""

from __future__ import annotations

from dataclasses import asdict

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
        cache.write(key, found.tiling.to_dict(), found.report)
    return found


def _key(machine: Machine, a: Attention, objective: str, vector_per_cycle: float, sha256: str) -> str:
    """Hash of the problem. The attention's name plays no part."""
    return "fused-" + cache.hash_of(machine, {**asdict(a), "name": ""}, objective, vector_per_cycle, sha256)


def _load(key: str) -> FusedDecision | None:
    try:
        data = cache.read(key)
        tiling = data["tiling"]
        places = {name: Spread(*(tuple(v) for v in tiling[name].values())) for name in ("qk", "av")}
        return FusedDecision(FusedTiling(**{**tiling, **places}), FusedCounts({}, {}, {}, 0.0), cache.report_of(data))
    except Exception:  # an entry that is absent or damaged is no entry: it is computed again
        return None
