"""`hwsim compare WORKLOAD --hw A --hw B`: the same scenario side by side."""

from __future__ import annotations

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.errors import InfeasibleError


class Run(g.Layout):
    """On what terms the machines are compared."""

    efficiency: o.Efficiency = "calibrated"
    price: o.Price = None
    set_: o.Set = None


@g.grouped
def command(
    workload: o.Workload,
    hw: o.HardwareList,
    request: g.Request,
    run: Run,
    mapping: g.Mapping,
    to: g.Destination,
) -> None:
    """The same scenario on several machines; what differs besides the machine is said above the table.

    -o FILE.html writes a page with charts, what binds each, who is refused and why, and sources of prices.
    Exit code 3 where none of them can run it; the table says why.
    """
    form = to.form("table", "json", "csv", "html")
    from hwsim.api import compare

    comparison = compare(workload, hw, **g.keywords(request, run, mapping))
    to.emit(_render(comparison, form))
    if all("infeasible" in column for column in comparison["columns"]):
        raise typer.Exit(InfeasibleError.exit_code)


def _render(comparison: dict[str, object], form: str) -> str:
    if form == "json":
        return o.to_json(comparison)
    if form == "csv":
        from hwsim.report.frames import comparison_csv

        return comparison_csv(comparison)
    if form == "html":
        from hwsim.report.comparison_page import comparison_page

        return comparison_page(comparison)
    from hwsim.report.table import comparison_table

    return comparison_table(comparison)
