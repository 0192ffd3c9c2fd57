"""The working behind a mapping's numbers: words of a level, energy and cycles of a GEMM, from its document alone."""

from __future__ import annotations

import math
from typing import Any, Final

from hwsim.errors import unknown_name
from hwsim.report import mapping_rows as rows
from hwsim.report.mapping_explain import what_if_table, why
from hwsim.report.table import render
from hwsim.units import si

Document = rows.Document
MISSING: Final = {"A": "N", "B": "M", "Z": "K"}
_PLACE: Final = {"M": 0, "N": 1, "K": 2}


def explain_mapping(document: Document, subject: str) -> str:
    """Lines of working for ``GEMM``, ``GEMM.energy``, ``GEMM.cycles`` or ``GEMM.LEVEL``; without GEMM where it is one.

    Raises
    ------
    UnknownNameError: the document has no such number; proposes the nearest.
    """
    for row in document["operators"]:
        found = _of_row(document, row)
        only = len(document["operators"]) == 1
        for name, lines in found.items():
            if subject in (f"{row['name']}.{name}", name if only else None):
                return "\n".join(lines)
        if subject == row["name"]:
            texts = [f"{row['name']}: {rows.formula(row)}", f"  {why(row)}", ""]
            texts += [line for name in found for line in (*found[name], "")]
            return render(*texts, *what_if_table(document, row)[1:]).rstrip("\n")
    raise unknown_name("number to explain", subject, subjects(document), where="SUBJECT")


def subjects(document: Document) -> list[str]:
    """Everything that `explain_mapping` can explain in this document."""
    only = len(document["operators"]) == 1
    found: list[str] = []
    for row in document["operators"]:
        names = list(_of_row(document, row))
        found += [row["name"], *(names if only else (f"{row['name']}.{n}" for n in names))]
    return found


def _of_row(document: Document, row: Document) -> dict[str, list[str]]:
    found = {"cycles": _cycles(document, row)}
    if row["energy_split"]:
        found["energy"] = _energy(document, row)
    for index in reversed(range(len(row["levels"]))):
        found[row["levels"][index]["name"]] = _words(row, index)
    return found


def _cycles(document: Document, row: Document) -> list[str]:
    """The slowest part, and what each part is made of."""
    if not row["levels"]:
        return [f"cycles = {row['cycles']}: the floor, all multipliers busy and every word moved once"]
    lines = [f"cycles = {row['cycles']}: the largest of"]
    for name, value in row["cycles_by"].items():
        if name == "compute":
            near = row["levels"][0]
            text = f"{si(rows.macs(row), 'MAC')} on {near['instances_used']} multipliers"
        else:
            text = _port(document, row, name)
        lines.append(f"  {name:<12} {value:>16.10g} = {text}")
    return [*lines, "assumption: loads, stores and computing overlap perfectly; sizes that do not divide leave gaps"]


def _port(document: Document, row: Document, port: str) -> str:
    words, instances, rate = 0.0, 1, 0.0
    for level, described in zip(row["levels"], document["machine"]["levels"], strict=True):
        if port in level["busy_cycles"]:
            write = port.endswith(" write") and not described["shared_port"]
            rate = described["write_words_per_cycle"] if write else described["words_per_cycle"]
            instances = level["instances_used"]
            words += sum(sum(k.values()) for k in level["busy_cycles"][port].values()) * rate * instances
    share = "" if instances == 1 else f" over {instances} instances"
    return f"{rows.count(round(words))} words{share} at {rate:g} words a cycle"


def _energy(document: Document, row: Document) -> list[str]:
    """Words times pJ a word, level by level, and the multiply-accumulates."""
    lines = [f"energy = {si(row['energy_j'], 'J')}: the sum of"]
    for level, described in reversed(list(zip(row["levels"], document["machine"]["levels"], strict=True))):
        out = sum(k["reads"] for k in level["traffic"].values())
        into = sum(k["fills"] + k["updates"] for k in level["traffic"].values())
        joule = si(row["energy_split"][level["name"]], "J")
        read, write = described["pj_per_word"], described["write_pj_per_word"]
        lines.append(
            f"  {level['name']:<12} {joule:>9} = {rows.count(out)} words out x {read:g} pJ + "
            f"{rows.count(into)} words in x {write:g} pJ"
        )
    mac = si(row["energy_split"]["MAC"], "J")
    return [*lines, f"  {'MAC':<12} {mac:>9} = {si(rows.macs(row), 'MAC')} x {document['machine']['mac_pj']:g} pJ"]


def _words(row: Document, index: int) -> list[str]:
    """Words that a level passes to its nearer side, each as the tensor's size times how often it is fetched."""
    level = row["levels"][index]
    lines = [f"words of {level['name']} for its nearer side: {rows.count(level['served_words'])}"]
    for tensor in rows.TENSORS:
        if tensor not in level["keeps"]:
            lines.append(f"  {tensor} passes by")
            continue
        reuse = reuse_of(row, index, tensor)
        dimension = MISSING[tensor]
        extent = row["gemm"][dimension.lower()]
        words, verb = level["traffic"][tensor], "updates" if tensor == "Z" else "reads"
        times = f"{rows.count(row['compulsory'][tensor])} x ceil({extent} / {reuse['extent']})"
        lines.append(f"  {tensor}: {rows.count(words[verb])} {verb} = {times}")
        lines.append(
            f"     {tensor} lacks {dimension}: {_reason(reuse)} of {dimension} pass before its tile must change"
        )
        if tensor == "Z":
            lines.append(f"     {rows.count(words['reads'])} reads: the updates that go on with a partial sum")
    return lines


def _reason(reuse: dict[str, Any]) -> str:
    parts = [f"tile {reuse['tile']}", f"spread {reuse['spread']}", f"innermost loops {reuse['run']}"]
    return f"{reuse['extent']} ({' x '.join(parts)})"


def reuse_of(row: Document, index: int, tensor: str) -> dict[str, Any]:
    """Extent of the missing dimension for which one fetch of a tile serves: tile x spread x innermost run of loops.

    The tile is that of the nearest level below which keeps the tensor; at the multipliers it is one element.
    """
    levels, dimension = row["levels"], MISSING[tensor]
    child = max((i for i in range(index) if tensor in levels[i]["keeps"]), default=-1)
    tile = levels[child]["tile_mnk"][_PLACE[dimension]] if child >= 0 else 1
    spread = math.prod(levels[i]["spread"].get(dimension, 1) for i in range(max(child, 0), index))
    run = 1
    if child >= 0:
        outside = [
            (d, f) for i in range(child + 1, len(levels)) for d, f in reversed(levels[i]["loops_outer_to_inner"])
        ]
        for d, factor in outside:
            if d != dimension:
                break
            run *= factor
    return {"tile": tile, "spread": spread, "run": run, "extent": tile * spread * run}
