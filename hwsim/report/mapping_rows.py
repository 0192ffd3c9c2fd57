"""Rows of a mapping document (`hwsim/mapping@1`) that its table, page and figures share: text and plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsim.units import si

Document = Mapping[str, Any]
TENSORS: Final = ("A", "B", "Z")
SHAPES: Final = {"A": ("m", "k"), "B": ("k", "n"), "Z": ("m", "n")}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Words of one tensor at one level for the nearer side, and how many times its compulsory words they are."""

    words: float
    ratio: float

    @property
    def text(self) -> str:
        return f"{count(self.words)} x{ratio(self.ratio)}" if self.words else "-"


def how(d: Document) -> str:
    """Mapper, objective and counting in one line."""
    extras = ", bypass" if d["bypass"] else ""
    extras += f", uneven {d['uneven']}" if d["uneven"] else ""
    return f"mapper {d['mapper']}, objective {d['objective']}, counting {d['counting']}{extras}"


def formula(row: Document) -> str:
    """``Z[512,4096] += A[512,11008] B[11008,4096]`` with the batch in front."""
    g = row["gemm"]
    parts = {t: f"{t}[{','.join(str(g[d]) for d in SHAPES[t])}]" for t in TENSORS}
    batch = f"{g['batch']} x " if g["batch"] > 1 else ""
    return f"{batch}{parts['Z']} += {parts['A']} {parts['B']}"


def macs(row: Document) -> int:
    """Multiply-accumulates of one execution, the whole batch."""
    g = row["gemm"]
    return int(g["batch"] * g["m"] * g["n"] * g["k"])


def traffic(row: Document, level: Document, tensor: str) -> Traffic:
    """What a level passes to and from its nearer side for one tensor."""
    words = level["traffic"][tensor]
    served = words["reads"] + words["updates"]
    return Traffic(served, served / row["compulsory"][tensor])


def far_to_near(row: Document) -> list[Document]:
    """Levels in reading order: main memory first."""
    return list(reversed(row["levels"]))


def loops(level: Document) -> str:
    """Loops of a level, outermost first: ``M:4 K:2``; a dash without any."""
    return " ".join(f"{d}:{f}" for d, f in level["loops_outer_to_inner"]) or "-"


def spread(row: Document, level: Document) -> str:
    """What is spread over the instances of a level: ``M:2 N:32 K:4`` and members of a batch."""
    parts = [f"{d}:{f}" for d, f in level["spread"].items()]
    used = level["fanout_used"]
    shown = 1
    for factor in level["spread"].values():
        shown *= factor
    if used > shown:
        parts.insert(0, f"batch:{used // shown}")
    return " ".join(parts) or "-"


def full(level: Document) -> float | None:
    """Share of the level's capacity that the tiles take; None for the last level."""
    return None if level["words"] is None else level["used_words"] / level["words"]


def busy(row: Document, level: Document) -> float | None:
    """Share of the cycles in which the level's busiest port works; None where the port never limits."""
    totals = [sum(sum(kinds.values()) for kinds in tensors.values()) for tensors in level["busy_cycles"].values()]
    return max(totals) / row["cycles"] if totals else None


def energy_share(row: Document, part: str) -> float | None:
    """Part of the energy that one level or the multipliers take; None where nothing has energy."""
    total = sum(row["energy_split"].values())
    return row["energy_split"].get(part, 0.0) / total if total else None


def bound(row: Document) -> str:
    """Which part takes the most cycles; ties go to computing, which nothing can shorten."""
    parts = row["cycles_by"]
    if not parts:
        return ""
    most = max(parts.values())
    return "compute" if parts["compute"] >= most else max(parts, key=lambda name: parts[name])


def machine_line(machine: Document) -> str:
    """Multipliers, clock, word and memories in one line."""
    memories = {v["memory"]: v for v in machine["levels"]}  # the halves of a split memory are one
    levels = ", ".join(_machine_level(v) for v in memories.values())
    multipliers = f"{machine['multipliers']} multipliers at {si(machine['clock_hz'], 'Hz')}"
    notes = f" ({', '.join(machine['notes'])})" if machine.get("notes") else ""
    return f"{multipliers}, words of {machine['word_bits']:g} bits{notes}; {levels}"


def _machine_level(v: Document) -> str:
    size = "" if v["bytes"] is None else f" {size_text(v['bytes'])}"
    many = f" x {v['fanout']}" if v["fanout"] > 1 else ""
    rate = "" if v["bytes_per_s"] is None else f" at {si(v['bytes_per_s'], 'B/s')}"
    return f"{v['memory']}{size}{many}{rate}"


def size_text(size_bytes: float) -> str:
    """Bytes as memory sizes are read: ``128 B``, ``82 KiB``, ``40 MiB``."""
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.4g} {unit}"
    return f"{size_bytes:.4g} B"


def count(value: float) -> str:
    """A count in full up to 100,000, then with an SI prefix."""
    return f"{value:g}" if value < 1e5 else si(value, "")


def ratio(value: float) -> str:
    """A ratio with three digits, thousands in full: 1, 4.9, 87.7, 4910."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share; below 10 % it keeps a digit, and nothing that exists is shown as 0."""
    if value is None:
        return ""
    shown = max(digits, 1) if value < 0.0995 else digits
    least = 10.0 ** -(shown + 2)
    return f"<{100 * least:g}%" if 0 < value < least / 2 else f"{100 * value:.{shown}f}%"


def far_ratio(row: Document) -> float:
    """Words of the last level over the compulsory ones."""
    return float(row["levels"][-1]["served_words"] / row["compulsory_words"]) if row["levels"] else 1.0


def goal_text(document: Document, value: float) -> str:
    """The value of an objective with its unit: pJ and cycles become J and s."""
    clock = document["machine"]["clock_hz"]
    if document["objective"] == "edp":
        return f"{value * 1e-12 / clock:.6g} J s"
    if document["objective"] == "energy":
        return f"{value * 1e-12:.6g} J"
    return f"{value:.10g} cycles" if document["objective"] == "latency" else f"{value:.6g}"


def proof(row: Document, document: Document) -> str:
    """Solver, bound, gap and time in one line."""
    r = row["report"]
    version = f" {r['version']}" if r["version"] else ""
    kept = " when it was solved, now from the cache" if row["cached"] else ""
    words = {"optimal": "proved optimal", "feasible": "not proved optimal", "ideal": "ideal, not a mapping"}
    status = words.get(r["status"], r["status"])
    seconds = f"{r['seconds']:.2f} s{kept}"
    return (
        f"{status}: {document['objective']} {goal_text(document, r['objective'])}, bound "
        f"{goal_text(document, r['bound'])}, gap {100 * r['gap']:.3g}%; "
        f"{r['solver']}{version}, {seconds}{_cut_short(row, document)}"
    )


def _cut_short(row: Document, document: Document) -> str:
    """What to do where the budget may have ended a search before its proof."""
    budget_s = document.get("budget_s")
    if row["report"]["status"] != "feasible" or budget_s is None or document["mapper"] != "tiling":
        return ""
    return f"; the budget of {budget_s:g} s for all GEMMs ended it: a longer --budget, or none, looks on"
