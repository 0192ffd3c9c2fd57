"""`hwsim roofline WORKLOAD --hw NAME`: intensity table and plot."""

from __future__ import annotations

from hwsim.cli import groups as g
from hwsim.cli import options as o


@g.grouped
def command(
    workload: o.Workload,
    hw: o.Hardware,
    request: g.Request,
    *,
    tp: o.Tp = 1,
    efficiency: o.Efficiency = "calibrated",
    set_: o.Set = None,
    to: g.Destination,
) -> None:
    """Ridge point, and on which side of it each operator lies; --format html -o FILE draws it."""
    form = to.form("table", "json", "csv", "html")
    from hwsim.api import evaluate

    options = {"tp": tp, "efficiency": efficiency, "what_if": o.parse_set(set_), **request.keywords()}
    to.emit(_render(evaluate(workload, hw, **options, check_fit=False).document, form))


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
