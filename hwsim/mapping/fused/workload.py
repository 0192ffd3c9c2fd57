"""The attentions of a workload as fused mappings beside the same attention in three separate passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.ir.platform import Device
from hwsim.ir.workload import Operator, WorkloadGraph
from hwsim.mapping.decide.products import products_of
from hwsim.mapping.decide.setup import Machines
from hwsim.mapping.fused import operators as fused
from hwsim.mapping.fused.counts import OPS_PER_SCORE
from hwsim.mapping.fused.decide import decide_attention
from hwsim.mapping.machine import Machine

PASSES_OF_SOFTMAX = 2  # the scores are read and written once more between the two products


def fused_rows(
    graphs: Sequence[WorkloadGraph],
    device: Device,
    mapped: Sequence[Mapping[str, Any]],
    *,
    objective: str | None,
    mapper: str,
    use_cache: bool = True,
) -> list[dict[str, Any]]:
    """One row for every distinct attention of the graphs; empty where the mapper fuses nothing.

    A row is `fused.fused_document` plus ``count`` and ``apart``: cycles and main-memory words of the two products as
    `mapped` (the rows of a mapping document) has them, with the softmax as a pass of its own between them.
    Raises as `hwsim.mapping.decide.graph.decide`.
    """
    machines = Machines(device, mapper, objective)
    by_name = {name: row for row in mapped for name in row["used_by"]}
    rows: dict[Any, dict[str, Any]] = {}
    for graph in graphs:
        for operator in graph.operators:
            if operator.kind.startswith("attention"):
                name = operator.name if len(graphs) == 1 else f"{graph.phase}.{operator.name}"
                row = _row(operator, machines, [by_name.get(f"{name}.{part}") for part in ("qk", "av")], use_cache)
                if row is None:
                    return []
                key = (tuple(row["problem"].values()), row["compulsory_words"])
                rows.setdefault(key, {**row, "name": name, "count": 0})["count"] += operator.repeat
    return list(rows.values())


def _row(operator: Operator, machines: Machines, products: Sequence[Any], use_cache: bool) -> dict[str, Any] | None:
    bits = [product.bits for product in products_of(operator)]
    setup = machines.setup(operator, bits[0])
    machine = setup.machine.with_(widths=(1.0, 1.0, 1.0))
    a = fused.attention_of(operator, (*bits[0], bits[1][2]), machine.word_bits)
    lanes = fused.vector_per_cycle(setup.device)
    decision = decide_attention(setup.loaded, machine, a, setup.objective, lanes, use_cache)
    if decision is None:
        return None
    row = fused.fused_document(machine, a, decision, setup.known)
    mapped = [p for p in products if p is not None and p["levels"]]
    apart = _apart(machine, mapped, a.widths[2], lanes) if len(mapped) == len(products) else None
    return {**row, "main": machine.levels[-1].memory, "apart": apart}


def _apart(machine: Machine, products: Sequence[Mapping[str, Any]], width: float, lanes: float) -> dict[str, float]:
    """The two products one after the other, softmax between them."""
    cycles = sum(row["cycles"] for row in products)
    words = sum(t["reads"] + t["updates"] for row in products for t in row["levels"][-1]["traffic"].values())
    gemm = products[0]["gemm"]
    scores = gemm["m"] * gemm["n"] * gemm["batch"]
    moved = PASSES_OF_SOFTMAX * scores * width
    ops = OPS_PER_SCORE * scores / (lanes or machine.multipliers)
    return {
        "cycles": cycles + max(ops, moved / machine.levels[-1].read_words_per_cycle),
        "main_words": words + moved,
    }
