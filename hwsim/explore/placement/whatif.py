"""What one more GiB, one more GB/s or a faster device would buy: the mapper is asked again for a larger machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.ir.mapped import SolverReport
from hwsim.mapping.placement.chain import Chain
from hwsim.mapping.placement.problem import GraphProblem, Site
from hwsim.mapping.placement.tiers import Phase, TierProblem
from hwsim.mapping.placement.verify import verified

# The steps that are asked about: round sizes that a reader can scale, small beside any machine.
MORE_BYTES: Final = 2.0**30  # bytes of a memory
MORE_RATE: Final = 1e9  # B/s of a link or memory
FASTER: Final = 1.1  # times the speed of a device
Changed = Iterator[tuple[str, Any]]


def what_ifs(
    problem: GraphProblem | Chain | TierProblem, objective: str, mapper: Any, base: SolverReport, budget_s: float | None
) -> list[dict[str, Any]]:
    """One row a change, largest gain first: value of the objective and what it gains; `proved` where both are optima.

    `budget_s` is for all of them together.
    """
    changes = list(_tier_changes(problem) if isinstance(problem, TierProblem) else _device_changes(problem))
    each = None if budget_s is None else budget_s / max(len(changes), 1)
    rows = []
    for text, changed in changes:
        report = verified(changed, objective, mapper.map(changed, objective, each))
        rows.append({
            "change": text,
            "value": report.objective,
            "gain": base.objective - report.objective,
            "proved": base.status == report.status == "optimal",
        })  # fmt: skip
    return sorted(rows, key=lambda r: -r["gain"])


def _device_changes(problem: GraphProblem | Chain) -> Changed:
    for s, site in enumerate(problem.sites):
        larger = replace(site, memory_bytes=site.memory_bytes + MORE_BYTES)
        yield f"1 GiB more memory of {site.name}", replace(problem, sites=_with(problem.sites, s, larger))
    for s, site in enumerate(problem.sites):
        yield f"{site.name} {100 * (FASTER - 1):.0f} % faster", _faster(problem, s)
    for i, a in enumerate(problem.sites):
        for j, b in enumerate(problem.sites[:i]):
            rates = problem.seconds_per_byte.copy()
            rates[i, j] = 1 / (1 / rates[i, j] + MORE_RATE)
            rates[j, i] = 1 / (1 / rates[j, i] + MORE_RATE)
            yield f"1 GB/s more between {b.name} and {a.name}", replace(problem, seconds_per_byte=rates)


def _with(sites: tuple[Site, ...], at: int, site: Site) -> tuple[Site, ...]:
    return (*sites[:at], site, *sites[at + 1 :])


def _faster(problem: GraphProblem | Chain, site: int) -> GraphProblem | Chain:
    """The same problem with every operator of a site faster."""
    if isinstance(problem, Chain):
        time_s = problem.time_s.copy()
        time_s[:, site] /= FASTER
        return replace(problem, time_s=time_s)
    columns = tuple(replace(c, time_s=c.time_s / FASTER) if c.site == site else c for c in problem.columns)
    return replace(problem, columns=columns)


def _tier_changes(problem: TierProblem) -> Changed:
    for t, tier in enumerate(problem.tiers):
        if np.isfinite(tier.size_bytes):
            larger = replace(tier, size_bytes=tier.size_bytes + MORE_BYTES)
            tiers = (*problem.tiers[:t], larger, *problem.tiers[t + 1 :])
            yield f"1 GiB more of {tier.name}", replace(problem, tiers=tiers)
    for t, tier in enumerate(problem.tiers):

        def quicker(phase: Phase, t: int = t) -> Phase:
            return replace(phase, rates=phase.rates + np.where(np.arange(len(phase.rates)) == t, MORE_RATE, 0.0))

        yield f"1 GB/s more of {tier.name}", _phases(problem, quicker)
    for name in dict.fromkeys(k.name for p in problem.phases for k in p.links):

        def wider(phase: Phase, name: str = name) -> Phase:
            links = (replace(k, bytes_per_s=k.bytes_per_s + MORE_RATE * (k.name == name)) for k in phase.links)
            return replace(phase, links=tuple(links))

        yield f"1 GB/s more of the {name}", _phases(problem, wider)


def _phases(problem: TierProblem, change: Callable[[Phase], Phase]) -> TierProblem:
    return replace(problem, phases=tuple(change(p) for p in problem.phases))
