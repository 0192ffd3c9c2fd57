"""A mapping document as a table that a person can read."""

from __future__ import annotations

from typing import Any

from hwsim.units import si


def mapping_table(document: dict[str, Any]) -> str:
    """Text of a ``hwsim/mapping@1`` document: machine, one block for each distinct GEMM, totals."""
    lines = [_head(document), _machine(document["machine"]), ""]
    for row in document["operators"]:
        lines += [*_operator(row), ""]
    return "\n".join([*lines, _total(document)])


def _head(d: dict[str, Any]) -> str:
    how = f"mapper {d['mapper']}, objective {d['objective']}, counting {d['counting']}"
    return f"{d['workload']} on {d['hardware']}: {how}"


def _machine(m: dict[str, Any]) -> str:
    levels = "  ".join(
        f"{v['name']} {'' if v['words'] is None else _count(v['words']) + ' words'}".rstrip()
        + (f" x{v['fanout']}" if v["fanout"] > 1 else "")
        for v in m["levels"]
    )
    return (
        f"machine: {m['multipliers']} multipliers at {si(m['clock_hz'], 'Hz')}; {m['word_bits']:g}-bit words; {levels}"
    )


def _operator(row: dict[str, Any]) -> list[str]:
    g = row["gemm"]
    batch = f"{g['batch']} x " if g["batch"] > 1 else ""
    used = f"  (also {', '.join(row['used_by'][1:])})" if len(row["used_by"]) > 1 else ""
    lines = [f"{row['name']}  {batch}M={g['m']} N={g['n']} K={g['k']}, {row['count']} executions{used}"]
    if row["levels"]:
        lines.append(
            f"  {'level':<14}{'loops (outer to inner)':<28}{'spread':<20}{'tile MxNxK':<22}{'keeps':<7}"
            f"{'full':>6}{'traffic':>12}{'x minimum':>11}{'energy':>8}"
        )
        lines += [_level(row, level) for level in reversed(row["levels"])]
    else:
        lines.append("  no loops decided: ideal figures")
    return [*lines, _verdict(row), _solver(row)]


def _level(row: dict[str, Any], level: dict[str, Any]) -> str:
    loops = " ".join(f"{d}:{f}" for d, f in level["loops_outer_to_inner"]) or "-"
    spread = " ".join(f"{d}:{f}" for d, f in level["spread"].items()) or "-"
    tile = "x".join(str(v) for v in level["tile_mnk"])
    full = "" if level["words"] is None else f"{100 * level['used_words'] / level['words']:.0f}%"
    ratio = level["served_words"] / row["compulsory_words"]
    total = sum(row["energy_split"].values())
    share = f"{100 * row['energy_split'].get(level['name'], 0.0) / total:.1f}%" if total else ""
    return (
        f"  {level['name']:<14}{loops:<28}{spread:<20}{tile:<22}{level['keeps'] or '-':<7}"
        f"{full:>6}{_count(level['served_words']):>12}{ratio:>11.3g}{share:>8}"
    )


def _verdict(row: dict[str, Any]) -> str:
    energy = "" if row["energy_j"] is None else f", {si(row['energy_j'], 'J')}"
    total = sum(row["energy_split"].values())
    mac = f" (MAC {100 * row['energy_split']['MAC'] / total:.1f}%)" if total else ""
    bound = max(row["cycles_by"], key=lambda k: row["cycles_by"][k]) if row["cycles_by"] else ""
    by = f", bound by {bound}" if bound else ""
    return (
        f"  {row['cycles']} cycles = {si(row['time_s'], 's')}{by}, {100 * row['utilization']:.1f}% of the multipliers"
        f"{energy}{mac}"
    )


def _solver(row: dict[str, Any]) -> str:
    r = row["report"]
    cached = ", from the cache" if row["cached"] else ""
    version = f" {r['version']}" if r["version"] else ""
    return (
        f"  {r['status']}: {r['solver']}{version}, objective {r['objective']:.6g}, bound {r['bound']:.6g}, "
        f"gap {100 * r['gap']:.3g}%, {r['seconds']:.2f} s{cached}"
    )


def _total(d: dict[str, Any]) -> str:
    t = d["total"]
    energy = "" if t["energy_j"] is None else f", {si(t['energy_j'], 'J')}"
    busy = f"{t['cycles']} cycles = {si(t['time_s'], 's')}{energy}"
    return f"total: {t['executions']} executions, {busy}; mapped in {d['seconds']:.2f} s"


def _count(value: float) -> str:
    return f"{value:g}" if value < 1e5 else si(value, "")
