"""`hwsim roofline WORKLOAD --hw NAME`: intensity table and plot."""

from __future__ import annotations

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Run(g.Layout):
    """How the estimate whose operators are drawn is made."""

    efficiency: o.Efficiency = "calibrated"
    set_: o.Set = None


@g.grouped
def command(workload: o.Workload, hw: o.Hardware, request: g.Request, run: Run, to: g.Destination) -> None:
    """Ridge point, and on which side of it each operator lies; --format html -o FILE draws it.

    What does not fit in memory is drawn too, with a warning: rates of operators mean something without it.
    """
    form = to.form("table", "json", "csv", "html")
    from hwsim.api import evaluate

    document = evaluate(workload, hw, **g.keywords(request, run), check_fit=False).document
    request.say_unused(document["workload"]["name"], document["phases"][0]["name"])
    if form in ("json", "csv") and not document["memory"]["fits"]:
        from hwsim.report.rows import misfit

        o.note(f"warning: {misfit(document)}")
    to.emit(_render(document, form))


def _render(document: dict[str, object], form: str) -> str:
    from dataclasses import asdict, fields

    from hwsim.report import rows

    points = [asdict(p) for p in rows.roofline_points(document)]
    if form == "json":
        ridge, peak, bandwidth = rows.ridge_point(document)
        head = {"ridge_flop_per_byte": ridge, "peak_flop_per_s": peak, "bandwidth_bytes_per_s": bandwidth}
        head["fits"] = document["memory"]["fits"]  # type: ignore[index]
        return o.to_json({"schema": "hwsim/roofline@1", **head, "points": points})
    if form == "csv":
        from hwsim.report.frames import to_csv

        return to_csv(points, tuple(f.name for f in fields(rows.RooflinePoint)))
    if form == "html":
        from hwsim.report.html import page

        return page(document)
    from hwsim.report.table import roofline_table

    return roofline_table(document)
