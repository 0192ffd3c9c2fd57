"""A `hwsim/parallelism@1` document as a table that a person can read."""

from __future__ import annotations

from typing import Any, Final

from hwsim.report.rows import basis
from hwsim.report.table import grid, render
from hwsim.units import gib, si

Document = dict[str, Any]
HEADER: Final = (
    "layout", "devices", "batch", "TTFT", "TPOT", "token/s", "token/s/device", "token/s/user", "memory", "J/token",
    "USD/Mtoken", "layers by stage",
)  # fmt: skip
_FRONT: Final = 10  # lines of the front in a table; the document has all
_UNITS: Final = {"latency": "s", "throughput": "token/s/device", "energy": "J/token", "cost": "USD/Mtoken"}


def parallelism_table(document: Document) -> str:
    """Text of the document: the answer, the ranking, why others fail, what binds, the front, the proof."""
    parts: list[Any] = [headline(document), "  " + question_line(document), ""]
    parts += [grid(HEADER, [cells(row) for row in document["ranking"]], (0,)), ""]
    parts += [considered_line(document["considered"]), *bind_lines(document), proof_text(document), ""]
    front = document["pareto"]
    if len(front) > 1:
        shown = thinned(front)
        part = f", {len(shown)} of {len(front)} shown" if len(shown) < len(front) else ""
        parts += [f"nothing beats these in both token/s/user and token/s/device (stages taken as equal{part}):"]
        parts += [grid(HEADER[:-1], [cells(row)[:-1] for row in shown], (0,)), ""]
    parts += [f"warning: {text}" for text in document.get("warnings", ())]
    return render(*parts).rstrip("\n") + "\n"


def thinned(front: list[Document]) -> list[Document]:
    """At most `_FRONT` points of the front, its ends among them."""
    if len(front) <= _FRONT:
        return front
    return [front[round(i * (len(front) - 1) / (_FRONT - 1))] for i in range(_FRONT)]


def plan_text(document: Document) -> str:
    """Text of any plan document."""
    tables = {"hwsim/stages@1": stages_table, "hwsim/training@1": training_table}
    return tables.get(document["schema"], parallelism_table)(document)


def training_table(document: Document) -> str:
    """Text of a `hwsim/training@1` document: layouts by tokens per second, with what the step consists of."""
    best, recipe, c = document["chosen"], document["recipe"], document["considered"]
    where = f"{document['devices']} devices of {document['hardware']['name']}"
    head = (
        f"training {document['workload']['name']} on {where}: {layout_name(best)}, micro-batch {best['micro_batch']}, "
        f"{best['flop_per_s_device'] / 1e12:.4g} TFLOP/s/device ({best['mfu'] * 100:.3g} % of peak)"
    )
    asked = (
        f"  {recipe['global_batch']} sequences of {recipe['seq']} tokens a step; ZeRO {recipe['zero']}, "
        f"recomputation {recipe['recompute']}, {recipe['bytes_per_parameter']:.3g} bytes a parameter"
    )
    header = (
        "layout", "micro-batch", "x", "step", "token/s", "TFLOP/s/device", "of peak", "bubble", "gradients",
        "optimizer", "state", "activations", "of usable",
    )  # fmt: skip
    body = [
        (
            layout_name(row),
            str(row["micro_batch"]),
            str(row["micro_batches"]),
            si(row["step_s"], "s"),
            f"{row['tokens_per_s']:,.0f}",
            f"{row['flop_per_s_device'] / 1e12:.4g}",
            f"{row['mfu'] * 100:.1f} %",
            f"{row['bubble'] * 100:.1f} %",
            si(row["gradients_exposed_s"], "s") if row["gradients_exposed_s"] else "hidden",
            si(row["optimizer_s"], "s"),
            gib(row["state_bytes"]),
            gib(row["activation_bytes"]),
            gib(row["usable_bytes"]),
        )
        for row in document["ranking"]
    ]
    counts = f"{c['layouts']} layouts, {c['points']} points, {c['fit']} layouts fit"
    refused = "; not legal: " + ", ".join(f"{n} {why}" for why, n in c["refused"].items()) if c["refused"] else ""
    return render(head, asked, "", grid(header, body, (0,)), "", counts + refused).rstrip("\n") + "\n"


def stages_table(document: Document) -> str:
    """Text of a `hwsim/stages@1` document: stages with their layers, and what equal shares would give."""
    m, even, s = document["metrics"], document["equal_shares"], document["scenario"]
    head = f"{document['workload']['name']} over {len(document['stages'])} stages: {m['tokens_per_s']:,.0f} token/s"
    asked = (
        f"  batch {s['batch']} in {document['micro_batches']} micro-batches, prompt {s['prompt_tokens']}, output "
        f"{s['output_tokens']}; weights {s['weights']}, KV cache {s['kv_cache']}; {basis(document)}"
    )
    header = ("stage", "hardware", "ranks", "layers", "prefill", "decode step", "memory")
    body = [
        (
            str(i + 1),
            row["hardware"],
            str(row["tp"]),
            str(row["layers"]),
            si(row["prefill_s"], "s"),
            si(row["decode_s"], "s") if row["decode_s"] else "-",
            f"{gib(row['memory_bytes'])} of {gib(row['room_bytes'])}",
        )
        for i, row in enumerate(document["stages"])
    ]
    spans = [f"{name} {_spans(figures)}" for name, figures in (("these layers", m), ("equal shares", even))]
    spans[1] += "" if even["fits"] else " (do not fit in memory)"
    proof = f"slowest stage proved least ({document['solver']['solver']}, gap {document['solver']['gap']:.3g})"
    return render(head, asked, "", grid(header, body, (0, 1)), "", *spans, proof).rstrip("\n") + "\n"


def _spans(m: Document) -> str:
    tpot = f", TPOT {si(m['tpot_s'], 's')}" if m["tpot_s"] else ""
    cost = m["rental_usd_per_mtok"]
    rent = "" if cost is None else f", {cost:.3g} USD/Mtoken rent"
    return f"TTFT {si(m['ttft_s'], 's')}{tpot}, {m['tokens_per_s']:,.0f} token/s{rent}"


def layout_name(row: Document) -> str:
    """Degrees above one, e.g. ``tp8 pp2 dp4 sp``."""
    words = [f"{name}{row[name]}" for name in ("tp", "pp", "dp", "ep") if row[name] > 1] + ["sp"] * row["sp"]
    return " ".join(words) or "one device"


def headline(document: Document) -> str:
    """Model, machine, the chosen layout and its value."""
    best = document["chosen"]
    where = f"{document['devices']} devices of {document['hardware']['name']}"
    value = value_text(document, best)
    return f"{document['workload']['name']} on {where}: {layout_name(best)} at batch {best['batch']}, {value}"


def value_text(document: Document, row: Document) -> str:
    """What a layout has of the objective."""
    return {
        "latency": si(row["latency_s"], "s") + " a request",
        "throughput": f"{row['tokens_per_s_device']:.4g} token/s/device",
        "energy": si(row["energy_j_per_token"], "J") + "/token",
        "cost": f"{row['cost_usd_per_mtok'] or 0:.4g} USD/Mtoken",
    }[document["objective"]]


def question_line(document: Document) -> str:
    """Objective, limits, lengths and formats in one line."""
    s, slo = document["scenario"], document["slo"]
    limits = [f"{name.removesuffix('_s')} <= {si(v, 's')}" for name, v in slo.items() if v is not None]
    asked = ", ".join(limits) or "no service limits"
    return (
        f"best {document['objective']} with {asked}; prompt {s['prompt_tokens']}, output {s['output_tokens']}; weights "
        f"{s['weights']}, activations {s['activations']}, KV cache {s['kv_cache']}; {basis(document)}; "
        f"{s['batching']} batching"
    )


def cells(row: Document) -> tuple[str, ...]:
    """A layout under `HEADER`."""
    cost = row["cost_usd_per_mtok"]
    return (
        layout_name(row),
        str(row["devices"]),
        str(row["batch"]),
        si(row["ttft_s"], "s"),
        si(row["tpot_s"], "s") if row["tpot_s"] else "-",
        f"{row['tokens_per_s']:,.0f}",
        f"{row['tokens_per_s_device']:.4g}",
        f"{row['tokens_per_s_user']:.4g}",
        f"{row['memory_fill'] * 100:.0f} %",
        f"{row['energy_j_per_token']:.3g}",
        "-" if cost is None else f"{cost:.3g}",
        stages_text(row["stage_layers"]),
    )


def stages_text(layers: list[int] | None) -> str:
    """Runs of equal stages: ``3x11 12`` for 11, 11, 11, 12."""
    if not layers:
        return ""
    runs: list[list[int]] = []
    for count in layers:
        if runs and runs[-1][1] == count:
            runs[-1][0] += 1
        else:
            runs.append([1, count])
    return " ".join(f"{times}x{count}" if times > 1 else str(count) for times, count in runs)


def considered_line(c: Document) -> str:
    """How many layouts there are, and why others fail."""
    failed = [f"{count} by {reason}" for reason, count in c["failed"].items() if count]
    if c["failed"].get("memory") and c["memory_short_bytes"] is not None:
        failed[0] += f" (the least short misses {gib(c['memory_short_bytes'])} a device)"
    illegal = [f"{count} {reason}" for reason, count in c["illegal"].items()]
    text = f"{c['legal']} legal layouts, {c['feasible']} feasible, {c['priced_points']} points priced"
    text += f"; fail: {', '.join(failed)}" if failed else "; none fails"
    return text + (f"; not legal: {', '.join(illegal)}" if illegal else "")


def bind_lines(document: Document) -> list[str]:
    """What each limit leaves, and what it costs."""
    lines = []
    for item in document["binds"]:
        show = gib if item["limit"] == "memory" else lambda v: si(v, "s")
        used = f"{show(item['used'])} of {show(item['allowed'])} ({item['used'] / item['allowed'] * 100:.0f} %)"
        gain = item["gain_without"]
        verdict = (
            f"binds: without it {document['objective']} gets {gain * 100:.3g} % better" if gain > 1e-6 else "slack"
        )
        lines.append(f"{item['limit']}: {used}, {verdict}")
    return lines


def proof_text(document: Document) -> str:
    """What is proved of the choice, or what beats it."""
    s = document["solver"]
    value = f"{abs(s['objective']):.6g} {_UNITS[document['objective']]}"
    pipelines = f", {s['refined']} candidate{'s' * (s['refined'] > 1)} with exact stages"
    if s["status"] == "optimal":
        return f"proved best ({value}, gap 0, {s['solver']} {s['version']}{pipelines})"
    text = f"best found {value}, bound {abs(s['bound']):.6g}, gap {s['gap'] * 100:.3g} % ({s['solver']}{pipelines})"
    return text if s.get("better") is None else f"{_beaten(document)}\nchosen {text.removeprefix('best found ')}"


def _beaten(document: Document) -> str:
    """The layout that beats the chosen one, and what the mapper said of its own."""
    better, claimed = document["solver"]["better"], document["solver"]["claimed"]
    said = f", though {document['mapper']} calls its choice proved" if claimed == "optimal" else ""
    at = f"{layout_name(better)} at batch {better['batch']}"
    return f"not the best: {at} keeps the limits with {value_text(document, better)}{said}"
