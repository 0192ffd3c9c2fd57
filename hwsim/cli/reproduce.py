"""`hwsim reproduce [SYSTEM ...]`: published claims, predicted beside published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.cli.progress import Meter


@g.grouped
def command(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="[SYSTEM]...", help="Systems [all that ship claims].")
    ] = None,
    claims: Annotated[
        Path | None, typer.Option("--claims", metavar="FILE", help="Claims file to run instead of the shipped ones.")
    ] = None,
    efficiency: Annotated[
        str | None, typer.Option("--efficiency", help="calibrated, or datasheet for the bare roofline.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Show only what did not pass.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    *,
    to: g.Destination,
) -> None:
    """Run published claims through the ordinary estimate and say how far off each one is.

    Exit code 1 where a bug stopped a claim; the others are scored all the same, and stderr names it.
    """
    form = to.form("table", "json", "html")
    from hwsim.api import reproduce

    meter = Meter()
    try:
        answer = reproduce(
            *(systems or []), claims=claims, efficiency=efficiency, failed=failed, note=None if quiet else meter
        )
    finally:
        meter.close()
    document = answer.to_dict()
    to.emit(_render(document, form))
    stopped = [row for row in document["rows"] if row["verdict"] == "error"]
    for row in stopped:
        o.note(f"bug in hwsim: claim {row['id']} of {row['system']}: {row['reason']}")
    if stopped:
        raise typer.Exit(1)


def _render(document: dict[str, Any], form: str) -> str:
    if form == "json":
        return o.to_json(document)
    from hwsim.report.claims import page, table

    return page(document) if form == "html" else table(document)
