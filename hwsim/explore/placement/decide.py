"""Place the operators of a model on devices and describe the result: the `hwsim/placement@1` document."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.explore.placement.devices import Member, members_of
from hwsim.explore.placement.phases import Request, check_request
from hwsim.explore.placement.price import Options, Priced, price
from hwsim.explore.placement.whatif import what_ifs
from hwsim.frontends.catalog import resolve_model
from hwsim.ir.mapped import SolverReport
from hwsim.mapping.placement.answer import OBJECTIVES, Staging, known_objective
from hwsim.mapping.placement.baselines import alone, equal_stages, greedy
from hwsim.mapping.placement.chain import Chain, best_columns, chain_of, cost_of_stages, stage_violations
from hwsim.mapping.placement.problem import Choice, GraphProblem, PlacementCost, cost_of, violations
from hwsim.mapping.placement.verify import verified
from hwsim.mapping.registry import load_mapper
from hwsim.units import gib

CUTS = ("graph", "contiguous")
SCHEMA = "hwsim/placement@1"
Described = tuple[dict[str, Any], tuple[GraphProblem | Chain, SolverReport]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is decided, for what, by whom.

    Attributes
    ----------
    cut: ``graph`` (every operator of every layer anywhere) or ``contiguous`` (pipeline stages).
    objective: ``latency`` and ``energy`` of a request, ``throughput`` (time of the busiest device), ``edp``.
    mapper: catalog name or path of a placement mapper.
    budget_s: wall seconds of the mapper; None: until proved. explain: also ask what a larger machine would buy
        (as many seconds again).
    """

    cut: str = "graph"
    objective: str = "latency"
    mapper: str = "placement"
    budget_s: float | None = None
    explain: bool = False


def place_model(
    workload: str,
    hardware: Sequence[str],
    *,
    request: Request | None = None,
    options: Options | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """Operators of `workload` on the devices of `hardware` (accelerators and nodes, companions included).

    `asked` are fields of `Asked`.

    Raises
    ------
    InputError: unknown names, impossible values. InfeasibleError: does not fit; names device, operators, shortfall.
    SolverError: missing solver, or no answer in the budget.
    """
    begun, ask = time.perf_counter(), Asked(**asked)
    request, options = request or Request(), options or Options()
    check_request(request)
    known_objective(ask.objective)
    if ask.cut not in CUTS:
        raise unknown_name("cut", ask.cut, CUTS, where="--cut")
    model = resolve_model(workload).model
    members = members_of(hardware)
    _known_rooms(members, options)
    priced = price(model, members, request, options)
    loaded = load_mapper(ask.mapper)
    if getattr(loaded.mapper, "kind", "") != "placement":
        raise InputError(
            f"{ask.mapper} does not place", where="--using", seen=str(loaded.path), fix="kind = 'placement'"
        )
    head = {
        "schema": SCHEMA,
        "kind": ask.cut,
        "workload": model.name,
        "hardware": [m.name for m in members],
        "objective": ask.objective,
        "mapper": loaded.mapper.name,
        "scenario": _scenario(request, options),
    }
    describe = _graph if ask.cut == "graph" else _stages
    body, solved = describe(priced, ask.objective, loaded.mapper, ask.budget_s)
    if ask.explain:
        body["what_if"] = what_ifs(solved[0], ask.objective, loaded.mapper, solved[1], ask.budget_s)
    return {**head, **body, "links": _links(priced), "seconds": time.perf_counter() - begun}


def _scenario(request: Request, options: Options) -> dict[str, Any]:
    plain = asdict(request) | {k: v for k, v in asdict(options).items() if k not in ("rooms",)}
    return {**plain, "rooms": dict(options.rooms)}


def _known_rooms(members: Sequence[Member], options: Options) -> None:
    known = {m.name for m in members} | {m.device.name for m in members}
    for name, _ in options.rooms:
        if name not in known:
            raise unknown_name("device", name, known, where="--room")


def _graph(priced: Priced, objective: str, mapper: Any, budget_s: float | None) -> Described:
    problem = priced.whole
    answer = mapper.map(problem, objective, budget_s)
    report = verified(problem, objective, answer)
    cost = cost_of(problem, answer.choice)
    phases = {name: cost_of(p, answer.choice).time_s for name, p in priced.phases.items()}
    others = [_alone(problem, s, objective) for s in range(len(problem.sites))]
    others.append(_row("greedy", problem, greedy(problem, objective), objective))
    others.append(_proved_stages(problem, objective, mapper, budget_s))
    body = {
        "metrics": _metrics(cost, phases, _band(priced, answer.choice, cost)),
        "sites": _sites(problem, cost, answer.choice),
        "operators": _operators(problem, answer.choice),
        "transfers": _transfers(problem, cost),
        "binding": _binding(problem, cost, answer.choice, objective),
        "baselines": [_against(r, cost.value(objective)) for r in others],
        "report": plain_report(report),
    }
    return body, (problem, report)


def _stages(priced: Priced, objective: str, mapper: Any, budget_s: float | None) -> Described:
    problem = priced.whole
    chain = chain_of(problem, objective)
    answer: Staging = mapper.map(chain, objective, budget_s)
    report = verified(chain, objective, answer)
    cost = cost_of_stages(chain, answer.stages, answer.order)
    columns = np.array([chain.column[np.flatnonzero(chain.item == i)[0]] for i in range(len(problem.items))])
    phases = {
        name: cost_of_stages(chain_of(p, objective, columns), answer.stages, answer.order).time_s
        for name, p in priced.phases.items()
    }
    choice = _choice_of(chain, answer, len(problem.items))
    by_site = _by_site(cost, answer.order, len(problem.sites))
    others = [_alone(problem, s, objective) for s in range(len(problem.sites))]
    others.append(_equal(chain, objective))
    body = {
        "metrics": _metrics(cost, phases, _band(priced, choice, cost)),
        "sites": _sites(problem, by_site, choice),
        "stages": _stage_rows(problem, chain, answer, cost),
        "operators": _operators(problem, choice),
        "transfers": _hops(chain, answer, cost),
        "binding": _binding(problem, by_site, choice, objective),
        "baselines": [_against(r, cost.value(objective)) for r in others],
        "report": plain_report(report),
    }
    return body, (chain, report)


def _choice_of(chain: Chain, answer: Staging, items: int) -> Choice:
    site = np.asarray(answer.order)[answer.stages]
    column = chain.column[np.arange(len(site)), site]
    return tuple(column[chain.item == i] for i in range(items))


def _by_site(cost: PlacementCost, order: tuple[int, ...], sites: int) -> PlacementCost:
    """Arrays by stage as arrays by site."""
    busy, memory = np.zeros(sites), np.zeros(sites)
    busy[list(order)], memory[list(order)] = cost.busy_s, cost.memory_bytes
    return PlacementCost(cost.time_s, cost.compute_s, cost.transfer_s, cost.energy_j, busy, memory, cost.sends)


def _metrics(cost: PlacementCost, phases: dict[str, float], band: dict[str, float]) -> dict[str, Any]:
    named = {"prefill": "ttft_s", "decode": "tpot_s", "forward": "forward_s"}
    return {
        "time_s": {"value": cost.time_s, **band},
        **{named[name]: {"value": value} for name, value in phases.items()},
        "compute_s": {"value": cost.compute_s},
        "transfer_s": {"value": cost.transfer_s},
        "busiest_s": {"value": float(cost.busy_s.max())},
        "energy_j": {"value": cost.energy_j},
    }


def _band(priced: Priced, choice: Choice, cost: PlacementCost) -> dict[str, float]:
    """Low, high and floor of the whole: those of the operators, transfers as they are."""
    picked = np.concatenate(choice)
    parts = {"low": priced.low_s, "high": priced.high_s, "floor": priced.floor_s}
    return {name: float(values[picked].sum()) + cost.transfer_s for name, values in parts.items()}


def _sites(problem: GraphProblem, cost: PlacementCost, choice: Choice) -> list[dict[str, Any]]:
    picked = np.concatenate(choice)
    own = np.bincount(problem.column_site[picked], problem.of("time_s")[picked], len(problem.sites))
    count = np.bincount(problem.column_site[picked], minlength=len(problem.sites))
    return [
        {
            "name": site.name,
            "operators": int(count[s]),
            "compute_s": float(own[s]),
            "receive_s": max(float(cost.busy_s[s] - own[s]), 0.0),
            "used_bytes": float(cost.memory_bytes[s]),
            "room_bytes": site.memory_bytes,
            "fill": float(cost.memory_bytes[s] / site.memory_bytes),
        }
        for s, site in enumerate(problem.sites)
    ]


def _operators(problem: GraphProblem, choice: Choice) -> list[dict[str, Any]]:
    rows = []
    for item, picked in zip(problem.items, choice, strict=True):
        columns, counts = np.unique(picked, return_counts=True)
        places = []
        for c, n in zip(columns, counts, strict=True):
            column = problem.columns[c]
            places.append({
                "device": problem.sites[column.site].name,
                "layers": int(n),
                "format": column.label,
                "on_chip": sorted(problem.flows[k].name for k in column.keeps),
                "time_s": column.time_s * int(n),
                "memory_bytes": column.memory_bytes * int(n),
            })  # fmt: skip
        rows.append({"name": item.name, "count": item.copies, "places": places})
    return rows


def _transfers(problem: GraphProblem, cost: PlacementCost) -> list[dict[str, Any]]:
    """What crosses between devices over the request, largest first."""
    rows = []
    for k, source, target, copies in cost.sends:
        flow = problem.flows[k]
        rows.append({
            "tensor": flow.name,
            "from": problem.sites[source].name,
            "to": problem.sites[target].name,
            "layers": copies,
            "bytes": flow.sent_bytes * copies,
            "time_s": float(problem.send_s(flow)[source, target]) * copies,
        })  # fmt: skip
    return sorted(rows, key=lambda r: -r["time_s"])


def _hops(chain: Chain, answer: Staging, cost: PlacementCost) -> list[dict[str, Any]]:
    rows = []
    for at, d, e, _ in cost.sends:
        source, target = answer.order[d], answer.order[e]
        rows.append({
            "tensor": f"after {_where(chain, at)}",
            "from": chain.sites[source].name,
            "to": chain.sites[target].name,
            "layers": 1,
            "bytes": float(chain.hop_bytes[at]),
            "time_s": float(chain.hop_s(source, target)[at]),
        })  # fmt: skip
    return rows


def _where(chain: Chain, at: int) -> str:
    """Operator and layer of a position."""
    repeats = int((chain.item == chain.item[at]).sum()) > 1
    return f"{chain.names[at]} of layer {int(chain.copy[at])}" if repeats else chain.names[at]


def _stage_rows(problem: GraphProblem, chain: Chain, answer: Staging, cost: PlacementCost) -> list[dict[str, Any]]:
    rows = []
    for stage, site in enumerate(answer.order):
        at = np.flatnonzero(answer.stages == stage)
        rows.append({
            "stage": stage,
            "device": chain.sites[site].name,
            "operators": len(at),
            "first": _where(chain, int(at[0])) if len(at) else None,
            "last": _where(chain, int(at[-1])) if len(at) else None,
            "time_s": float(cost.busy_s[stage]),
            "used_bytes": float(cost.memory_bytes[stage]),
            "room_bytes": problem.sites[site].memory_bytes,
        })  # fmt: skip
    return rows


def _binding(problem: GraphProblem, cost: PlacementCost, choice: Choice, objective: str) -> list[str]:
    """What holds the objective up: memories too full for operators they would run faster, then the busiest device."""
    top = int(np.argmax(cost.busy_s))
    share = cost.busy_s[top] / cost.time_s if cost.time_s else 0.0
    word = "is the busiest stage" if objective == "throughput" else "takes most of the time"
    busiest = f"{problem.sites[top].name} {word} ({100 * share:.1f} % of all busy time)"
    return [*_crowded(problem, cost, choice), busiest]


def _crowded(problem: GraphProblem, cost: PlacementCost, choice: Choice) -> list[str]:
    found = []
    best, time_s, memory = best_columns(problem), problem.of("time_s"), problem.of("memory_bytes")
    for s, site in enumerate(problem.sites):
        left = site.memory_bytes - cost.memory_bytes[s]
        gains: dict[str, float] = {}
        for i, item in enumerate(problem.items):
            away = choice[i][problem.column_site[choice[i]] != s]
            if best[i, s] >= 0 and len(away) and memory[best[i, s]] > left:
                gains[item.name] = float(np.maximum(time_s[away] - time_s[best[i, s]], 0.0).sum())
        if any(gains.values()):
            name = max(gains, key=lambda key: gains[key])
            found.append(f"memory of {site.name}: {gib(left)} left, {name} would run faster there")
    return found


def _alone(problem: GraphProblem, site: int, objective: str) -> dict[str, Any]:
    return _row(f"all on {problem.sites[site].name}", problem, alone(problem, site, objective), objective)


def _row(name: str, problem: GraphProblem, choice: Choice | None, objective: str) -> dict[str, Any]:
    """A baseline: its value, or why it cannot be."""
    if choice is None:
        return {"name": name, "value": None, "why": "finds no room for an operator"}
    wrong = violations(problem, choice)
    if wrong:
        return {"name": name, "value": None, "why": wrong[0]}
    return {"name": name, "value": cost_of(problem, choice).value(objective), "why": ""}


def _equal(chain: Chain, objective: str) -> dict[str, Any]:
    order, stages = tuple(range(len(chain.sites))), equal_stages(chain)
    wrong = stage_violations(chain, stages, order)
    value = math.inf if wrong else cost_of_stages(chain, stages, order).value(objective)
    if not math.isfinite(value):
        return {"name": "equal stages", "value": None, "why": wrong[0] if wrong else "a device cannot run an operator"}
    return {"name": "equal stages", "value": value, "why": ""}


def _proved_stages(problem: GraphProblem, objective: str, mapper: Any, budget_s: float | None) -> dict[str, Any]:
    from hwsim.errors import InfeasibleError

    chain = chain_of(problem, objective)
    try:
        answer = mapper.map(chain, objective, budget_s)
    except InfeasibleError as error:
        return {"name": "contiguous stages", "value": None, "why": error.what}
    return {"name": "contiguous stages", "value": verified(chain, objective, answer).objective, "why": ""}


def _against(row: dict[str, Any], best: float) -> dict[str, Any]:
    ratio = None if row["value"] is None or best <= 0 else row["value"] / best
    return {**row, "ratio": ratio}


def _links(priced: Priced) -> list[dict[str, Any]]:
    """Rates between devices, each pair once."""
    sites, rates = priced.whole.sites, priced.whole.seconds_per_byte
    return [
        {"between": [sites[i].name, sites[j].name], "link": name, "bytes_per_s": float(1 / rates[i, j])}
        for (i, j), name in priced.links.items()
        if i < j
    ]


def plain_report(report: SolverReport) -> dict[str, Any]:
    """A solver report as plain data; what is not a number is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(report).items()
    }


__all__ = ["CUTS", "OBJECTIVES", "place_model", "plain_report"]
