"""A placement document as one HTML page: who holds and runs what, memories against their room, times. No script."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hwsim.report import placement as text
from hwsim.units import gib, si

Document = dict[str, Any]
LEAST_WIDTH: Final = 0.4  # per cent: a part that exists stays visible
LABEL_ABOVE: Final = 9.0  # per cent: parts wider than this carry their name
MOST_TRANSFERS: Final = 40


def placement_page(document: Document) -> str:
    """One self-contained page of a ``hwsim/placement@1`` document."""
    from hwsim.report.html import render_page

    tiers = document["kind"] == "tiers"
    return render_page(
        "placement.html.j2",
        title=text.headline(document),
        scenario=text.scenario_line(document),
        facts=_facts(document),
        memories=_memories(document["tiers"], _held_by_tier(document))
        if tiers
        else _memories(document["sites"], _held_by_site(document)),
        stages=_stages(document.get("stages", ())),
        places=_tensor_places(document) if tiers else _operator_places(document),
        what="tensor" if tiers else "operator",
        times=_phase_times(document) if tiers else _site_times(document),
        transfers=_transfers(document),
        beside=_beside(document),
        what_if=text.what_if_rows(document) if document.get("what_if") else [],
        time_key="what works side by side in each phase; the longest is its time"
        if tiers
        else "computing + receiving from other devices",
        binds=document["binding"],
        proof=text.proof_line(document),
        warnings=document.get("warnings", ()),
    )


def _facts(d: Document) -> list[tuple[str, str]]:
    return [
        (text.NAMES.get(name, name), si(metric["value"], "J" if name.endswith("_j") else "s"))
        for name, metric in d["metrics"].items()
    ]


def _bar(name: str, value: float, whole: float, shown: str) -> dict[str, Any]:
    """One part of a bar; `whole` is its full length."""
    width = max(100 * value / whole, LEAST_WIDTH if value > 0 else 0.0) if whole > 0 else 0.0
    width = min(width, 100.0)
    return {"name": name, "text": shown, "width": width, "label": width > LABEL_ABOVE, "shade": None}


def _memories(rows: Iterable[Document], held: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each memory as a bar as long as its room, filled by what lies in it, the largest first."""
    out = []
    sizes: dict[str, float] = {}
    for parts_of in held.values():
        for name, size in parts_of.items():
            sizes[name] = sizes.get(name, 0.0) + size
    shade = {name: at for at, name in enumerate(sorted(sizes, key=lambda name: -sizes[name]))}  # the same in all bars
    for row in rows:
        used, full = text.fill_text(row)
        room = row["room_bytes"] or row["used_bytes"]
        parts = sorted(held.get(row["name"], {}).items(), key=lambda item: -item[1])
        many = row.get("modules", 1)
        out.append(
            {
                "name": row["name"] + (f" x{many}" if many > 1 else ""),
                "used": used,
                "full": full,
                "parts": [
                    _bar(name, size, room, gib(size)) | {"shade": shade[name] % 4} for name, size in parts if size > 0
                ],
            }
        )
    return out


def _held_by_site(d: Document) -> dict[str, dict[str, float]]:
    held: dict[str, dict[str, float]] = {}
    for row in d["operators"]:
        for place in row["places"]:
            held.setdefault(place["device"], {})[row["name"]] = place["memory_bytes"]
    return held


def _held_by_tier(d: Document) -> dict[str, dict[str, float]]:
    held: dict[str, dict[str, float]] = {}
    for row in d["tensors"]:
        for tier, share in row["shares"].items():
            held.setdefault(tier, {})[row["name"]] = share * row["bytes"]
    return held


def _stages(stages: Iterable[Document]) -> list[dict[str, Any]]:
    """The pipeline as a ribbon, each stage as long as its time."""
    rows = list(stages)
    total = sum(row["time_s"] for row in rows)
    return [
        _bar(f"{row['device']}: {row['operators']}", row["time_s"], total, si(row["time_s"], "s"))
        | {"span": f"{row['first'] or '-'} to {row['last'] or '-'}"}
        for row in rows
    ]


def _operator_places(d: Document) -> dict[str, Any]:
    """Operators by devices: layers and time there; shade is the share of the layers."""
    sites = [row["name"] for row in d["sites"]]
    body = []
    for row in d["operators"]:
        cells: dict[str, dict[str, Any]] = {}
        for place in row["places"]:
            cell = cells.setdefault(place["device"], {"lines": [], "layers": 0})
            kept = f", keeps {', '.join(place['on_chip'])}" if place["on_chip"] else ""
            layers = f"{place['layers']} of {row['count']}" if row["count"] > 1 else "here"
            cell["lines"].append(f"{layers}, {place['format']}, {si(place['time_s'], 's')}{kept}")
            cell["layers"] += place["layers"]
        shown = [
            {"lines": cells[s]["lines"], "share": cells[s]["layers"] / row["count"]} if s in cells else None
            for s in sites
        ]
        body.append({"name": row["name"], "facts": (str(row["count"]),), "cells": shown})
    return {"names": ("layers",), "columns": sites, "rows": body}


def _tensor_places(d: Document) -> dict[str, Any]:
    """Tensors by memories: the share that lies there."""
    tiers = [row["name"] for row in d["tiers"]]
    body = []
    for row in d["tensors"]:
        shown = [
            {"lines": [f"{100 * share:.3g} %, {gib(share * row['bytes'])}"], "share": share}
            if (share := row["shares"].get(tier, 0.0)) > 0
            else None
            for tier in tiers
        ]
        moved = tuple(si(value, "B") for value in row["traffic_bytes"].values())
        body.append({"name": row["name"], "facts": (gib(row["bytes"]), *moved), "cells": shown})
    names = ("size", *(f"{p['name']} moves" for p in d["phases"]))
    return {"names": names, "columns": tiers, "rows": body}


def _site_times(d: Document) -> list[dict[str, Any]]:
    """What each device computes and receives, against the busiest."""
    longest = max((s["compute_s"] + s["receive_s"] for s in d["sites"]), default=0.0)
    return [
        {
            "name": s["name"],
            "text": f"{si(s['compute_s'], 's')} + {si(s['receive_s'], 's')}",
            "parts": [
                _bar("computes", s["compute_s"], longest, si(s["compute_s"], "s")),
                _bar("receives", s["receive_s"], longest, si(s["receive_s"], "s")),
            ],
        }
        for s in d["sites"]
    ]


def _phase_times(d: Document) -> list[dict[str, Any]]:
    """What works side by side in each phase; the longest is its time."""
    out = []
    for phase in d["phases"]:
        for name, value in phase["parts_s"].items():
            if value > 0:
                binds = " binds" if name == phase["bound"] else ""
                bar = _bar(name, value, phase["time_s"], si(value, "s"))
                out.append({"name": f"{phase['name']}: {name}", "text": f"{si(value, 's')}{binds}", "parts": [bar]})
    return out


def _transfers(d: Document) -> list[tuple[str, ...]]:
    return [
        (r["tensor"], f"{r['from']} to {r['to']}", str(r["layers"]), si(r["bytes"], "B"), si(r["time_s"], "s"))
        for r in d.get("transfers", ())[:MOST_TRANSFERS]
    ]


def _beside(d: Document) -> list[dict[str, Any]]:
    """This placement and hand-made rules, bars relative to the worst."""
    unit = text.UNITS.get(d["objective"], "s")
    best = d["report"]["objective"]
    rows = [{"name": "this placement", "value": best, "why": ""}, *d["baselines"]]
    worst = max(r["value"] for r in rows if r["value"] is not None)
    return [
        {
            "name": r["name"],
            "text": r["why"] or "-" if r["value"] is None else f"{si(r['value'], unit)}, x{r['value'] / best:.4g}",
            "parts": [] if r["value"] is None else [_bar(r["name"], r["value"], worst, si(r["value"], unit))],
        }
        for r in rows
    ]
