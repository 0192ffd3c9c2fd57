"""A mapping document as a Trace Event file (Perfetto, chrome://tracing): computing and every port, tile by tile.

Conventions: one process; threads are the GEMMs, the loop nest, computing, and each port that can limit. Time follows
the cost model: perfect overlap, so the first fill and the last drain hide behind the neighbours and the last event
ends at the reported cycles; on each thread the durations of the work add up to its reported cycles. Loops outside the
nearest drawn tile are folded into at most `MOST_GROUPS` groups, and repeated executions into one slice; both say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.report import mapping_rows as rows

Document = rows.Document
MOST_GROUPS: Final = 200  # a GEMM; fewer where a file holds many GEMMs
FEWEST_GROUPS: Final = 16
ALL_GROUPS: Final = 2000  # of all GEMMs of one file: about 3 MB
MISSING: Final = {"A": "N", "B": "M", "Z": "K"}
US: Final = 1e6


@dataclass(frozen=True, slots=True)
class Steps:
    """Tiles in the order of the loops outside level `inside`: `loops` outermost first, `count` of them in all.

    `groups` are (first, past the last) step of each group that is drawn.
    """

    loops: tuple[tuple[int, str, int], ...]
    inside: int
    count: int
    groups: tuple[tuple[int, int], ...]


def mapping_trace(document: Document) -> dict[str, Any]:
    """Trace Event Format of a ``hwsim/mapping@1`` document; `ts` and `dur` in microseconds.

    Raises InputError where no loops were decided: there is nothing to draw.
    """
    operators = document["operators"]
    if not all(row["levels"] for row in operators):
        raise InputError(
            f"mapper {document['mapper']} decides no loops: there is nothing to trace",
            where="--trace",
            fix="use --mapper tiling",
        )
    most = max(FEWEST_GROUPS, min(MOST_GROUPS, ALL_GROUPS // len(operators)))
    threads = ["GEMMs", "loops", *dict.fromkeys(name for row in operators for name in row["cycles_by"])]
    events: list[dict[str, Any]] = [_name("process_name", 0, f"{document['workload']} on {document['hardware']}")]
    for tid, name in enumerate(threads):
        text = name if name in ("GEMMs", "loops", "compute") else f"{name} port"
        events += [_name("thread_name", tid, text), _order(tid)]
    us = US / document["machine"]["clock_hz"]
    begin = 0.0
    for row in operators:
        events += [_scaled(e, us, begin, threads) for e in _operator(row, most)]
        begin += row["cycles"] * row["count"]
    return {"displayTimeUnit": "ns", "traceEvents": events, "otherData": _about(document)}


def mapping_trace_text(document: Document) -> str:
    """The trace as JSON text."""
    return json.dumps(mapping_trace(document), allow_nan=False)


def _about(document: Document) -> dict[str, Any]:
    return {
        "source": "hwsim map",
        "mapper": document["mapper"],
        "objective": document["objective"],
        "total_cycles": document["total"]["cycles"],
        "time": "perfect overlap: filling and draining hide behind computing; see docs/map.md",
    }


def _name(kind: str, tid: int, text: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": tid, "args": {"name": text}}


def _order(tid: int) -> dict[str, Any]:
    return {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": tid, "args": {"sort_index": tid}}


def _scaled(event: dict[str, Any], us: float, begin: float, threads: list[str]) -> dict[str, Any]:
    """An event in cycles of its GEMM as one in microseconds of the file."""
    return {
        "name": event["name"],
        "cat": "mapping",
        "ph": "X",
        "pid": 1,
        "tid": threads.index(event["thread"]),
        "ts": (begin + event["start"]) * us,
        "dur": event["cycles"] * us,
        "args": {"cycles": event["cycles"], **event["args"]},
    }


def _event(thread: str, name: str, start: float, cycles: float, **args: Any) -> dict[str, Any]:
    return {"thread": thread, "name": name, "start": start, "cycles": cycles, "args": args}


def _operator(row: Document, most: int) -> Iterator[dict[str, Any]]:
    """The first execution in detail, the others as one slice a thread."""
    steps = steps_of(row, most)
    total = float(row["cycles"])
    drawn = len(steps.groups)
    folded = f"{steps.count} tiles drawn as {drawn} groups" if drawn < steps.count else f"{steps.count} tiles"
    yield _event("GEMMs", row["name"], 0.0, total, gemm=rows.formula(row), bound=rows.bound(row), drawn=folded)
    yield from _loops(steps, total)
    for thread, busy in row["cycles_by"].items():
        yield from _placed(thread, list(_work(row, thread, steps)), total, steps)
        if row["count"] > 1 and busy > 0:
            yield _event(thread, _more(row), total, busy * (row["count"] - 1), folded=True)
    if row["count"] > 1:
        yield _event("GEMMs", f"{row['name']}: {_more(row)}", total, total * (row["count"] - 1), folded=True)


def _more(row: Document) -> str:
    again = row["count"] - 1
    return f"{again} more execution{'s' if again > 1 else ''} like the first"


def steps_of(row: Document, most: int) -> Steps:
    """Loops from the outermost level inward until there is more than one tile, folded into at most `most` groups."""
    loops: list[tuple[int, str, int]] = []
    inside = len(row["levels"])
    while inside > 0 and not loops:
        inside -= 1
        loops += [(inside, d, f) for d, f in row["levels"][inside]["loops_outer_to_inner"]]
    count = math.prod(f for _, _, f in loops)
    drawn = min(count, most)
    edges = [g * count // drawn for g in range(drawn + 1)]
    return Steps(tuple(loops), inside, count, tuple(zip(edges, edges[1:], strict=False)))


def _loops(steps: Steps, total: float) -> Iterator[dict[str, Any]]:
    """Nested slices of the loops, outermost first, as deep as their iterations are few enough to draw."""
    outside = 1
    for level, dimension, factor in steps.loops:
        if outside * factor > len(steps.groups):
            name = f"{dimension}: {factor} iterations each, not drawn"
            yield _event("loops", name, 0.0, total, level=level, folded=True)
            return
        outside *= factor
        for i in range(outside):
            name = f"{dimension} {i % factor + 1} of {factor}"
            yield _event("loops", name, total * i / outside, total / outside, level=level)


def _work(row: Document, thread: str, steps: Steps) -> Iterator[tuple[int, str, float, int]]:
    """(group, name, cycles, tiles) of the work of computing or of a port, in order; the sum is its cycles."""
    if thread == "compute":
        cycles = row["cycles_by"]["compute"]
        for g, (first, past) in enumerate(steps.groups):
            yield g, _tiles("compute", past - first), cycles * (past - first) / steps.count, past - first
        return
    flows = [
        (name, cycles, _period(row, index, tensor, kind, steps))
        for index, level in enumerate(row["levels"])
        for tensor, kinds in level["busy_cycles"].get(thread, {}).items()
        for kind, cycles in kinds.items()
        if cycles > 0
        for name in (_label(row, index, tensor, kind),)
    ]
    for g, (first, past) in enumerate(steps.groups):
        for name, cycles, period in flows:
            tiles = -(-past // period) - -(-first // period)
            if tiles:
                yield g, _tiles(name, tiles), cycles * tiles / -(-steps.count // period), tiles


def _tiles(name: str, tiles: int) -> str:
    return name if tiles == 1 else f"{name}, {tiles} tiles"


def _label(row: Document, index: int, tensor: str, kind: str) -> str:
    """``fetch A`` and ``drain Z`` at the last level, plain port words nearer."""
    if index == len(row["levels"]) - 1:
        return {"reads": "fetch", "updates": "drain", "fills": "fill"}[kind] + f" {tensor}"
    return {"reads": "read", "updates": "update", "fills": "fill"}[kind] + f" {tensor}"


def _period(row: Document, index: int, tensor: str, kind: str, steps: Steps) -> int:
    """Steps after which a flow moves another tile: 1 for tiles nearer than the drawn ones (they move in every step).

    The tile that moves is that of the level itself for fills, and that of the nearest keeping level below otherwise.
    It changes with the loops outside it, but for the innermost run of them over the dimension that the tensor lacks.
    """
    child = index if kind == "fills" else _keeper_below(row, index, tensor)
    if child < steps.inside - 1:
        return 1
    period, running = 1, True
    for level, dimension, factor in reversed(steps.loops):
        if level <= child or (running and dimension == MISSING[tensor]):
            period *= factor
        else:
            running = False
    return period


def _keeper_below(row: Document, index: int, tensor: str) -> int:
    """The nearest farther-than-multiplier level below `index` that keeps a tensor; -1: the multipliers."""
    return max((i for i in range(index) if tensor in row["levels"][i]["keeps"]), default=-1)


def _placed(
    thread: str, work: list[tuple[int, str, float, int]], total: float, steps: Steps
) -> Iterator[dict[str, Any]]:
    """Work on one thread without overlap: each piece as early as its group, unless the rest would end too late."""
    latest = total - math.fsum(cycles for _, _, cycles, _ in work)
    now = 0.0
    for group, name, cycles, tiles in work:
        window = total * steps.groups[group][0] / steps.count
        start = max(now, min(window, latest))
        first, past = steps.groups[group]
        yield _event(thread, name, start, cycles, tiles=tiles, steps=f"{first + 1}-{past} of {steps.count}")
        now = start + cycles
        latest += cycles
