"""`hwsim validate eager DIR`: whole models in eager PyTorch, predicted beside measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.cli.validate_endtoend import lines


class Destination(g.Destination):
    """In the formats of this verb."""

    format_: Annotated[str, typer.Option("--format", "-f", help="table (summary), json (all), or csv (rows).")] = (
        "table"
    )


@g.grouped
def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with transformer_layer.csv, or one such file.")],
    to: Destination,
) -> None:
    """Error of the sum of operators through the kernel models, by GPU and mode."""
    form = to.form("table", "json", "csv")
    from hwsim.validation.eager import validate_eager

    document = validate_eager(folder)
    for reason, rows in document["skipped"].items():
        o.note(f"left out {rows} rows: {reason}")
    shown = {"table": lambda: lines(document["summary"], "  "), "csv": lambda: lines(document["rows"], ",")}
    to.emit(shown[form]() if form in shown else o.to_json(document))
