"""`hwsim compare WORKLOAD --hw A --hw B`: the same scenario side by side."""

from __future__ import annotations

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Run(g.Splits):
    """On what terms the machines are compared."""

    efficiency: o.Efficiency = "calibrated"
    price: o.Price = None


@g.grouped
def command(
    workload: o.Workload,
    hw: o.HardwareList,
    request: g.Request,
    run: Run,
    mapping: g.Mapping,
    to: g.Destination,
) -> None:
    """The same scenario on several machines; what differs besides the machine is said above the table."""
    form = to.form("table", "json", "csv")
    from hwsim.api import compare

    to.emit(_render(compare(workload, hw, **g.keywords(request, run, mapping)), form))


def _render(comparison: dict[str, object], form: str) -> str:
    if form == "json":
        return o.to_json(comparison)
    if form == "csv":
        from hwsim.report.frames import comparison_csv

        return comparison_csv(comparison)
    from hwsim.report.table import comparison_table

    return comparison_table(comparison)
