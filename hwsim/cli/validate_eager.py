"""`hwsim validate eager DIR`: whole models in eager PyTorch, predicted beside measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.validate_endtoend import lines


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with transformer_layer.csv, or one such file.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="table (summary), json (all), or csv (rows).")
    ] = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Error of the sum of operators through the kernel models, by GPU and mode."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv"))
    from hwsim.validation.eager import validate_eager

    document = validate_eager(folder)
    for reason, rows in document["skipped"].items():
        o.note(f"left out {rows} rows: {reason}")
    shown = {"table": lambda: lines(document["summary"], "  "), "csv": lambda: lines(document["rows"], ",")}
    o.emit(shown[form]() if form in shown else o.to_json(document), out, force)
