"""`hwsim roofline WORKLOAD --hw NAME`: intensity table and plot."""

from __future__ import annotations

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.Hardware,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    efficiency: o.Efficiency = "calibrated",
    set_: o.Set = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Ridge point, and on which side of it each operator lies; --format html -o FILE draws it."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv", "html"))
    from hwsim.api import evaluate

    document = evaluate(
        workload,
        hw,
        batch=batch,
        prompt=prompt,
        output=output,
        what_if=o.parse_set(set_),
        weights=weights,
        activations=activations,
        kv_cache=kv_cache,
        tp=tp,
        efficiency=efficiency,
        check_fit=False,
    ).document
    o.emit(_render(document, form), out, force)


def _render(document: dict[str, object], form: str) -> str:
    from dataclasses import asdict, fields

    from hwsim.report import rows

    points = [asdict(p) for p in rows.roofline_points(document)]
    if form == "json":
        ridge, peak, bandwidth = rows.ridge_point(document)
        head = {"ridge_flop_per_byte": ridge, "peak_flop_per_s": peak, "bandwidth_bytes_per_s": bandwidth}
        return o.to_json({"schema": "hwsim/roofline@1", **head, "points": points})
    if form == "csv":
        from hwsim.report.frames import to_csv

        return to_csv(points, tuple(f.name for f in fields(rows.RooflinePoint)))
    if form == "html":
        from hwsim.report.html import page

        return page(document)
    from hwsim.report.table import roofline_table

    return roofline_table(document)
