"""The mapping of one operator in words: tiles, what they cost beyond the ideal, and what is proved."""

from __future__ import annotations

from typing import Any

from hwsim.units import si

Document = Any


def mapping_lines(task: Document, main_memory: str) -> list[str]:
    """Lines about the mapper's choice for one task; none where the task is ideal."""
    mapping = task.get("mapping")
    if mapping is None:
        return []
    if "grid" in mapping:
        moved = f", {mapping['move_cycles']:,.0f} cycles to get there" if mapping["move_cycles"] else ""
        return [f"  mapped on a square of {mapping['grid']} x {mapping['grid']} cores{moved}"]
    if "built" in mapping:
        fields = ", ".join(f"{name} {value}" for name, value in mapping["built"].items())
        return [f"  built with {fields}: {mapping['needs']['dsp']:,.0f} slices"]
    lines = [
        f"  mapped by {mapping['mapper']}: computing {si(mapping['compute_s'], 's')} at the clock, "
        f"{si(mapping['excess_bytes'], 'B')} of {main_memory} beyond every tensor once"
    ]
    ports = [f"{name} {si(seconds, 's')}" for name, seconds in mapping["level_s"].items()]
    if ports:
        lines.append(f"    ports busy: {', '.join(ports)}")
    if "block" in mapping:
        block = mapping["block"]
        lines.append(f"    thread block: tile {block['rows']}x{block['cols']}, K split in {block['split']}")
    if "note" in mapping:
        lines.append(f"    {mapping['note']}")
    for product in mapping["products"]:
        lines += _product(product)
    return [*lines, *(_fused(mapping["fused"]) if "fused" in mapping else [])]


def _fused(fused: Document) -> list[str]:
    t, problem = fused["tiling"], fused["problem"]
    stays = "query and output tiles stay" if t["outer"] == "queries" else "key and value tiles stay"
    return [
        f"    fused attention, {problem['batch']} x {problem['rows']} rows x {problem['keys']} keys: tiles of "
        f"{t['queries']} rows x {t['keys']} keys in {t['level']}, {stays}, scores {t['scores']}",
        f"      {fused['cycles']:,.0f} cycles, {100 * fused['utilization']:.1f} % of the multipliers busy; "
        f"{fused['solver']}: {fused['status']}, gap {100 * fused['gap']:.3g} %",
    ]


def _product(product: Document) -> list[str]:
    tiles = ", ".join(f"{level} {'x'.join(map(str, tile))}" for level, tile in product["tiles"].items())
    sizes = "x".join(f"{value}" for value in product["gemm"].values())
    return [
        f"    {product['name']}, batch x m x n x k = {sizes}, x {product['times']}: tiles {tiles}",
        f"      {product['cycles']:,.0f} cycles, {100 * product['utilization']:.1f} % of the multipliers busy; "
        f"{product['solver']}: {product['status']}, gap {100 * product['gap']:.3g} %",
    ]
