"""`hwsim list [KIND]`: what the catalog holds."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.errors import unknown_name

GROUPS = {
    "hw": ("accelerator", "node", "cluster", "memory"),
    "hardware": ("accelerator", "node", "cluster", "memory"),
    "accelerators": ("accelerator",),
    "nodes": ("node",),
    "clusters": ("cluster",),
    "memories": ("memory",),
    "workloads": ("model",),
    "models": ("model",),
    "mappers": ("mapper",),
    "prices": ("price",),
    "calibrations": ("calibration",),
    "scenarios": ("scenario",),
}


def command(
    group: Annotated[
        str, typer.Argument(metavar="[KIND]", help="hw, models, formats, mappers, prices, calibrations ...")
    ] = "",
    format_: o.Format = "table",
) -> None:
    """Names, with the aliases that also find them."""
    form = o.check_format(format_, ("table", "json", "csv"))
    if group == "formats":
        from hwsim.frontends.formats import format_names

        o.emit(_text([{"kind": "format", "name": n, "aliases": ""} for n in format_names()], form), None)
        return
    kinds = _kinds(group)
    from hwsim import content

    records = []
    for kind in kinds:
        for name, path in content.catalog(kind).items():
            records.append({"kind": kind, "name": name, "aliases": " ".join(content.head_aliases(path))})
    o.emit(_text(records, form), None)


def _kinds(group: str) -> tuple[str, ...]:
    if not group:
        return ("accelerator", "node", "cluster", "memory", "model", "mapper", "price", "calibration")
    if group in GROUPS:
        return GROUPS[group]
    singular = {kind: (kind,) for kinds in GROUPS.values() for kind in kinds}
    if group in singular:
        return singular[group]
    raise unknown_name("kind of content", group, {*GROUPS, "formats"}, where="hwsim list KIND")


def _text(records: list[dict[str, str]], form: str) -> str:
    if form == "json":
        return o.to_json(records)
    if form == "csv":
        from hwsim.report.frames import to_csv

        return to_csv(list(records), ("kind", "name", "aliases"))
    from hwsim.report.table import grid, render

    return render(
        grid(("kind", "name", "also found as"), [(r["kind"], r["name"], r["aliases"]) for r in records], (0, 1, 2))
    )
