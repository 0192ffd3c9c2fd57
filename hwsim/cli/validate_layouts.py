"""`hwsim validate layouts DIR`: are layouts ordered, and chosen, as measured serving runs order them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


@g.grouped
def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with e2e_serving.csv, or one such file.")],
    to: g.Rows,
) -> None:
    """Order of layouts within one load, and the layout chosen under limits on TPOT, by model and GPU."""
    form = to.form("table", "json", "csv")
    from hwsim.cli.validate_endtoend import lines
    from hwsim.validation.layouts import validate_layouts

    document = validate_layouts(folder)
    for reason, rows in document["skipped"].items():
        o.note(f"left out {rows} rows: {reason}")
    text = o.to_json(document) if form == "json" else lines(document["rows"], "," if form == "csv" else "  ")
    to.emit(text)
