"""`hwsim validate kernels DIR`: error by family, GPU and kernel class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.predict import report_problems


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of measured CSVs, one file, or silicon:GPU (extra).")
    ],
    mode: Annotated[
        str, typer.Option("--mode", help="shipped, cross-validated (refits, unseen sites) or leave-one-gpu-out.")
    ] = "shipped",
    format_: Annotated[
        str, typer.Option("--format", "-f", help="table, json, csv, md or html (with plots).")
    ] = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Mean, median, 90th percentile error, bias, rank correlation, share in band; two naive estimates beside."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv", "md", "html"))
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
    o.emit(writers[form](document), out, force)
    raise typer.Exit(report_problems(document["problems"], str(folder)))
