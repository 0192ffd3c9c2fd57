"""A placement document as tables that a person can read."""

from __future__ import annotations

from typing import Any

from hwsim.report.table import grid, render
from hwsim.units import gib, si

MOST_TRANSFERS = 6
LEAST_GAIN = 1e-6  # relative: what gains less is not listed
NAMES = {
    "time_s": "time",
    "ttft_s": "prefill (TTFT)",
    "tpot_s": "decode step (TPOT)",
    "forward_s": "forward",
    "compute_s": "operators",
    "forward_backward_s": "forward and backward",
    "transfer_s": "transfers",
    "busiest_s": "busiest device",
    "energy_j": "dynamic energy",
    "optimizer_s": "optimizer",
}
UNITS = {"energy": "J", "edp": "J s"}
_GOALS = {
    "latency": "time of the whole request",
    "throughput": "time of the busiest device (a request leaves as often)",
    "energy": "dynamic energy",
    "edp": "energy x time",
}


def placement_table(document: dict[str, Any]) -> str:
    """Text of a ``hwsim/placement@1`` document."""
    d = document
    parts: list[Any] = [headline(d), "  " + scenario_line(d), "", _metrics(d), ""]
    if d["kind"] == "tiers":
        parts += [_tiers(d), "", _tensors(d), "", _phases(d)]
    else:
        parts += [_stages(d) if d["kind"] == "contiguous" else _devices(d), "", _operators(d)]
        parts += ["", _transfers(d)] if d["transfers"] else []
    parts += ["", "binds: " + "; ".join(d["binding"]), ""]
    parts += [_what_ifs(d), ""] if d.get("what_if") else []
    parts += [_baselines(d), "", proof_line(d)]
    parts += [f"warning: {text}" for text in d.get("warnings", ())]
    return render(*parts)


def headline(d: dict[str, Any]) -> str:
    """What is placed on what, for what."""
    what = {"graph": "operators on devices", "contiguous": "contiguous stages", "tiers": "tensors in memories"}
    goal = "time of a training step" if "walk" in d["scenario"] else _GOALS[d["objective"]]
    return f"{d['workload']} on {' + '.join(d['hardware'])}: {what[d['kind']]}, least {goal}"


def scenario_line(d: dict[str, Any]) -> str:
    """The load and its limits in one line."""
    s = d["scenario"]
    shown = [f"{key} {s[key]}" for key in ("batch", "prompt", "output", "phase", "walk") if s.get(key)]
    shown += [f"weights {' or '.join(s['weights'])}"] if s.get("weights") else []
    shown += [f"{name} limited to {gib(size)}" for name, size in s.get("rooms", {}).items()]
    return ", ".join(shown)


def _metrics(d: dict[str, Any]) -> Any:
    body = []
    for name, metric in d["metrics"].items():
        unit = "J" if name.endswith("_j") else "s"
        band = f"{si(metric['low'], unit)} - {si(metric['high'], unit)}" if "low" in metric else ""
        body.append((NAMES.get(name, name), si(metric["value"], unit), band))
    return grid(("metric", "value", "band"), body)


def fill_text(row: dict[str, Any]) -> tuple[str, str]:
    """Used of usable memory, and the share."""
    room = row["room_bytes"]
    if room is None:
        return gib(row["used_bytes"]), "not limited"
    return f"{gib(row['used_bytes'])} of {gib(room)}", f"{100 * row['used_bytes'] / room:.1f} %" if room else ""


def _devices(d: dict[str, Any]) -> Any:
    body = [
        (s["name"], str(s["operators"]), si(s["compute_s"], "s"), si(s["receive_s"], "s"), *fill_text(s))
        for s in d["sites"]
    ]
    return grid(("device", "operators", "computes", "receives", "memory", "full"), body)


def _stages(d: dict[str, Any]) -> Any:
    body = []
    for s in d["stages"]:
        span = (str(s["operators"]), s["first"] or "-", s["last"] or "-")
        body.append((str(s["stage"]), s["device"], *span, si(s["time_s"], "s"), *fill_text(s)))
    return grid(("stage", "device", "operators", "from", "to", "time", "memory", "full"), body, left=(0, 1, 3, 4))


def _operators(d: dict[str, Any]) -> Any:
    body = []
    for row in d["operators"]:
        for at, place in enumerate(row["places"]):
            layers = f"{place['layers']} of {row['count']}"
            kept = ", ".join(place["on_chip"])
            name = row["name"] if at == 0 else ""
            memory = gib(place["memory_bytes"])
            body.append((name, layers, place["device"], place["format"], si(place["time_s"], "s"), memory, kept))
    return grid(("operator", "layers", "device", "weights", "time", "memory", "kept on chip"), body, left=(0, 2, 3, 6))


def _transfers(d: dict[str, Any]) -> Any:
    rows = d["transfers"]
    body = [
        (r["tensor"], f"{r['from']} > {r['to']}", str(r["layers"]), si(r["bytes"], "B"), si(r["time_s"], "s"))
        for r in rows[:MOST_TRANSFERS]
    ]
    if len(rows) > MOST_TRANSFERS:
        rest = rows[MOST_TRANSFERS:]
        total = (sum(r["bytes"] for r in rest), sum(r["time_s"] for r in rest))
        body.append((f"{len(rest)} more", "", "", si(total[0], "B"), si(total[1], "s")))
    return grid(("transfer", "", "layers", "bytes", "time"), body, left=(0, 1))


def _tiers(d: dict[str, Any]) -> Any:
    body = [(t["name"] + (f" x{t['modules']}" if t["modules"] > 1 else ""), *fill_text(t)) for t in d["tiers"]]
    return grid(("memory", "used", "full"), body)


def _tensors(d: dict[str, Any]) -> Any:
    body = []
    for t in d["tensors"]:
        where = ", ".join(n if share > 0.9999 else f"{100 * share:.1f} % {n}" for n, share in t["shares"].items())
        body.append((t["name"], gib(t["bytes"]), where, *(si(v, "B") for v in t["traffic_bytes"].values())))
    phases = [f"{p['name']} moves" for p in d["phases"]]
    return grid(("tensor", "size", "lies in", *phases), body, left=(0, 2))


def _phases(d: dict[str, Any]) -> Any:
    body = []
    for p in d["phases"]:
        parts = ", ".join(f"{name} {si(value, 's')}" for name, value in p["parts_s"].items() if value > 0)
        body.append((p["name"], f"{p['count']:g}", si(p["time_s"], "s"), p["bound"], parts))
    return grid(("phase", "times", "time", "bound by", "side by side"), body, left=(0, 3, 4))


def _baselines(d: dict[str, Any]) -> Any:
    unit = UNITS.get(d["objective"], "s")
    best = d["report"]["objective"]
    body = [("this placement", si(best, unit), "1", "")]
    for row in d["baselines"]:
        value = "-" if row["value"] is None else si(row["value"], unit)
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.4g}"
        body.append((row["name"], value, ratio, row["why"]))
    return grid(("beside it", d["objective"], "x best", ""), body, left=(0, 3))


def _what_ifs(d: dict[str, Any]) -> Any:
    return grid(("what if", d["objective"], "gain", ""), what_if_rows(d), left=(0, 3))


def what_if_rows(d: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Changes, the value with them, the gain, and whether it is proved."""
    unit = UNITS.get(d["objective"], "s")
    best = d["report"]["objective"]
    gains = [r for r in d["what_if"] if r["gain"] > LEAST_GAIN * best]
    body = [
        (r["change"], si(r["value"], unit), f"{100 * r['gain'] / best:.3g} %", "" if r["proved"] else "not proved")
        for r in gains
    ]
    idle = len(d["what_if"]) - len(gains)
    return body + ([(f"{idle} other changes", "", "nothing", "")] if idle else [])


def proof_line(d: dict[str, Any]) -> str:
    """Solver, bound, gap and time in one line."""
    r = d["report"]
    version = f" ({r['version']})" if r["version"] else ""
    return (
        f"{r['status']}: {r['solver']}{version}, objective {r['objective']:.6g}, bound {r['bound']:.6g}, "
        f"gap {100 * r['gap']:.3g}%, {r['seconds']:.2f} s"
    )
