"""`hwsim predict FILE.csv`: kernel times with bands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o

MAX_SHOWN = 50  # problems printed one a line; the count says how many more there are


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Rows in one of the measured-data schemas.")],
    hw: Annotated[str | None, typer.Option("--hw", metavar="NAME", help="Device of all rows [the gpu column].")] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="RUNS.csv", help="Own measured runs: predictions move towards them nearby."),
    ] = None,
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Adds pred_us, low_us and high_us to every good row; bad rows are listed by line and end with exit code 2."""
    o.check_suffix(out, (".csv", ""))
    from hwsim.validation.predict import predict_file, to_csv

    predictions = predict_file(file, hw=hw)
    if runs:
        from hwsim.validation.interpolate import corrected

        predictions = corrected(predictions, runs, hw=hw)
    if not len(predictions.table):
        o.note(f"{file}: no rows to predict")
    if predictions.table.header and len(predictions.table):
        o.emit(to_csv(predictions), out, force)
    raise typer.Exit(report_problems(predictions.table.problems, str(file)))


def report_problems(problems: object, where: str) -> int:
    """List bad rows on stderr; returns the exit code (2 where there were any)."""
    found = list(problems)  # type: ignore[call-overload]
    for problem in found[:MAX_SHOWN]:
        o.note(f"{where}: {problem}")
    if len(found) > MAX_SHOWN:
        o.note(f"{where}: and {len(found) - MAX_SHOWN} more")
    if found:
        o.note(f"{where}: {len(found)} bad rows were left out")
    return 2 if found else 0
