"""A mapper's decision for every operator of one phase, as the JSON-able mapping that `lower` hands to the cost models.

Equal products are decided once (and kept by content hash, `hwsim.mapping.cache`); every decision is checked and
costed here, never taken at its word.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hwsim.cost import registry
from hwsim.errors import InputError
from hwsim.ir.mapped import IDEAL, Mapping, SolverReport
from hwsim.ir.platform import Device, Platform
from hwsim.ir.workload import Operator, WorkloadGraph
from hwsim.mapping import plan
from hwsim.mapping.decide import library
from hwsim.mapping.decide.effects import Effect, effect_of, total
from hwsim.mapping.decide.mesh import mesh
from hwsim.mapping.decide.overlay import overlay
from hwsim.mapping.decide.products import Product, products_of
from hwsim.mapping.decide.setup import Machines
from hwsim.mapping.fused import operators as fused
from hwsim.mapping.fused.decide import decide_attention
from hwsim.mapping.fused.search import FusedDecision
from hwsim.mapping.lower import shard
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.protocol import costed
from hwsim.mapping.registry import load_mapper

FAMILY_PLANS: Final = {"mesh": mesh, "overlay": overlay}  # mappers of one device family's plan
DEFAULT_OBJECTIVE: Final = "latency"
SCORE_PASSES: Final = 4  # of scores between separate kernels: product writes, softmax reads and writes, product reads


@dataclass(frozen=True, slots=True)
class Decided:
    """One product: its tiling, effect, checked report and cycles."""

    tiling: Tiling
    effect: Effect
    report: SolverReport
    cycles: float
    utilization: float
    levels: tuple[str, ...]
    block: library.Block | None = None


@dataclass(slots=True)
class Decider:
    """Decides products of one device, each distinct one once. `deadline`: wall clock at which the budget ends."""

    machines: Machines
    deadline: float = math.inf
    use_cache: bool = True
    done: dict[Any, Decided | None] = field(default_factory=dict)
    fused: dict[Any, FusedDecision | None] = field(default_factory=dict)

    def product(self, operator: Operator, product: Product, blocks: registry.Tiles | None) -> Decided | None:
        """The decision for a product; None where the mapper decides no loops (the ideal)."""
        setup = self.machines.setup(operator, product.bits)
        key = (setup.machine, product.gemm.batch, *product.gemm.extents, blocks)
        if key not in self.done:
            self.done[key] = self._decide(setup, product.gemm, blocks)
        return self.done[key]

    def attention(self, operator: Operator, products: tuple[Product, ...]) -> _Choice | None:
        """The fused mapping of an attention, where the mapper makes one."""
        (act, cache, score), out = products[0].bits, products[1].bits[2]
        setup = self.machines.setup(operator, products[0].bits)
        machine = setup.machine.with_(widths=(1.0, 1.0, 1.0))
        a = fused.attention_of(operator, (act, cache, score, out), machine.word_bits)
        key = (machine, replace(a, name=""))
        if key not in self.fused:
            lanes = fused.vector_per_cycle(setup.device)
            self.fused[key] = decide_attention(setup.loaded, machine, a, setup.objective, lanes, self.use_cache)
        decision = self.fused[key]
        if decision is None:
            return None
        effect = fused.effect_of_fused(machine, setup.device, a, decision)
        shown = fused.fused_document(machine, a, decision, setup.known)
        data = {"mapper": setup.loaded.mapper.name, **effect.to_dict(), "products": [], "fused": shown}
        return _Choice(data, [(decision.report, 1)])

    def _decide(self, setup: plan.Setup, gemm: Gemm, blocks: registry.Tiles | None) -> Decided | None:
        mapper, machine, block = setup.loaded.mapper, setup.machine, None
        kernels: list[tuple[library.Block, Tiling]] = []
        if blocks and hasattr(mapper, "pick"):
            machine = library.free_of(machine)
            kernels = library.kernels(machine, setup.device, gemm, blocks)
        if kernels:
            block, decision = library.picked(mapper, machine, gemm, kernels, setup.objective)
        else:
            left = None if math.isinf(self.deadline) else max(self.deadline - time.perf_counter(), 0.0)
            decision, _ = plan.decide(machine, gemm, setup.objective, setup.loaded, left, self.use_cache)
        if decision.tiling is None:
            return None
        counts, report = costed(machine, gemm, setup.objective, decision)
        if blocks and block is None:
            block = library.block_of(machine, setup.device, decision.tiling)
        return Decided(
            decision.tiling,
            effect_of(machine, setup.device, gemm, counts),
            report,
            float(counts.cycles),
            float(counts.utilization),
            tuple(level.name for level in machine.levels),
            block,
        )


def decide(
    graph: WorkloadGraph,
    platform: Platform,
    mapping: Mapping,
    *,
    objective: str | None = None,
    budget_s: float | None = None,
    use_cache: bool = True,
) -> Mapping:
    """The mapping with a choice for every operator that its mapper decides; unchanged for the ideal (roofline).

    Parameters
    ----------
    mapping: its `mapper` names who decides; its degrees say how operators are sharded first.
    objective: ``latency`` (default), ``energy`` or ``edp``. budget_s: wall seconds for the whole graph.

    Raises
    ------
    InputError: a grid of scenarios, a device family that takes no tiling, a mapper that decides something else.
    InfeasibleError: an operator does not fit. SolverError: no answer in the budget.
    """
    if mapping.mapper == IDEAL:
        return mapping
    begun = time.perf_counter()
    mapper = load_mapper(mapping.mapper).mapper
    kind = getattr(mapper, "kind", "tiling")
    _require(kind, mapping.mapper, platform.device)
    if kind in FAMILY_PLANS:
        return FAMILY_PLANS[kind](graph, platform, mapping, budget_s)
    machines = Machines(platform.device, mapping.mapper, objective or DEFAULT_OBJECTIVE)
    decider = Decider(machines, math.inf if budget_s is None else begun + budget_s, use_cache)
    choices: dict[str, MappingType[str, Any]] = {}
    reports: list[tuple[SolverReport, int]] = []
    for operator in graph.operators:
        choice = _choice(shard(operator, mapping)[0], platform, decider, mapper.name)
        if choice is not None:
            choices[operator.name] = {"tiling": choice.data}
            reports += [(report, times * operator.repeat) for report, times in choice.reports]
    whole = _sum(reports, time.perf_counter() - begun) if reports else None
    return replace(mapping, operators=choices, report=whole)


@dataclass(frozen=True, slots=True)
class _Choice:
    data: dict[str, Any]
    reports: list[tuple[SolverReport, int]]


def _require(kind: str, mapper: str, device: Device) -> None:
    taken = registry.takes(device)
    if kind not in taken:
        other = f"its models take: {', '.join(taken)}" if taken else "use --mapper roofline"
        raise InputError(
            f"the cost model of {device.name} ({device.kind}) does not use the decisions of mapper {mapper!r} ({kind})",
            where="--mapper",
            seen=mapper,
            fix=f"{other}; `hwsim map WORKLOAD --hw {device.name} --mapper {mapper}` shows the mapping itself",
        )


def _choice(operator: Operator, platform: Platform, decider: Decider, mapper: str) -> _Choice | None:
    """Every product of an operator decided; None where there is none, or the mapper leaves it ideal."""
    products = products_of(operator)
    blocks = registry.tiles(operator, platform) if products else None
    if blocks == ():
        return None
    if operator.kind.startswith("attention") and (whole := decider.attention(operator, products)) is not None:
        return whole
    decided = [(product, decider.product(operator, product, blocks)) for product in products]
    found = [(product, item) for product, item in decided if item is not None]
    if not found or len(found) < len(products):
        return None
    between = _scores_bytes(products) if operator.kind.startswith("attention") else 0.0
    effect = total([(item.effect, product.times) for product, item in found], between)
    data = {"mapper": mapper, **effect.to_dict(), "products": [_product(product, item) for product, item in found]}
    if blocks:
        data |= _block(found[0][1].block, blocks)
    return _Choice(data, [(item.report, product.times) for product, item in found])


def _block(block: library.Block | None, blocks: registry.Tiles) -> dict[str, Any]:
    """The thread block that the kernel model uses, or why it keeps its own choice."""
    if block in blocks:
        return {"block": dict(zip(("rows", "cols", "split"), block, strict=True))}
    said = "x".join(map(str, block)) if block else "none"
    return {"note": f"no kernel of the library has the tile {said} (rows x columns x splits): its own choice stays"}


def _scores_bytes(products: tuple[Product, ...]) -> float:
    """Scores between the two products of attention: written, read and written by the softmax, read again."""
    scores = products[0]
    return SCORE_PASSES * scores.gemm.m * scores.gemm.n * scores.gemm.batch * scores.bits[2] / 8


def _product(product: Product, item: Decided) -> dict[str, Any]:
    gemm, report = product.gemm, item.report
    tiles = {name: list(item.tiling.tile(index)) for index, name in enumerate(item.levels)}
    return {
        "name": gemm.name,
        "gemm": {"batch": gemm.batch, "m": gemm.m, "n": gemm.n, "k": gemm.k},
        "times": product.times,
        "tiles": tiles,
        "tiling": item.tiling.to_dict(),
        "cycles": item.cycles,
        "utilization": item.utilization,
        "solver": report.solver,
        "status": report.status,
        "objective": report.objective,
        "bound": report.bound,
        "gap": report.gap,
    }


def _sum(reports: list[tuple[SolverReport, int]], seconds: float) -> SolverReport:
    """One report of all products, each as often as it runs; optimal only where all are."""
    value = sum(report.objective * times for report, times in reports)
    bound = sum(report.bound * times for report, times in reports)
    gap = (value - bound) / value if value else 0.0
    status = "optimal" if all(report.status == "optimal" for report, _ in reports) else "feasible"
    first = reports[0][0]
    return SolverReport(first.solver, first.version, status, value, bound, gap, seconds)
