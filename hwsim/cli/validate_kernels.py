"""`hwsim validate kernels DIR`: error by family, GPU and kernel class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.cli.predict import report_problems


class Destination(g.Destination):
    """In the formats of this verb."""

    format_: Annotated[str, typer.Option("--format", "-f", help="table, json, csv, md or html (with plots).")] = "table"


@g.grouped
def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of measured CSVs, one file, or silicon:GPU (extra).")
    ],
    mode: Annotated[
        str, typer.Option("--mode", help="shipped, cross-validated (refits, unseen sites) or leave-one-gpu-out.")
    ] = "shipped",
    *,
    to: Destination,
) -> None:
    """Mean, median, 90th percentile error, bias, rank correlation, share in band; two naive estimates beside."""
    form = to.form("table", "json", "csv", "md", "html")
    from hwsim.report import accuracy
    from hwsim.validation.kernels import validate_kernels

    document = validate_kernels(folder, mode=mode)
    writers = {
        "table": accuracy.to_table,
        "csv": accuracy.to_csv,
        "md": accuracy.to_markdown,
        "html": accuracy.to_html,
        "json": o.to_json,
    }
    for name in document["skipped"]:
        o.note(f"left out {name}")
    to.emit(writers[form](document))
    raise typer.Exit(report_problems(document["problems"], str(folder)))
