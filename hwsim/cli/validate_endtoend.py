"""`hwsim validate endtoend DIR`: predicted TTFT and TPOT beside serving benchmarks of real engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


@g.grouped
def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with e2e_serving.csv, or one such file.")],
    simulated: Annotated[bool, typer.Option("--simulate", help="Replay the closed loops request by request.")] = False,
    *,
    to: g.Rows,
) -> None:
    """Error of TTFT and TPOT by model, engine and concurrency (8 clients and below, above)."""
    form = to.form("table", "json", "csv")
    from hwsim.validation.endtoend import validate_endtoend

    document = validate_endtoend(folder, simulated=simulated)
    for reason, rows in document["skipped"].items():
        o.note(f"left out {rows} rows: {reason}")
    text = o.to_json(document) if form == "json" else lines(document["rows"], "," if form == "csv" else "  ")
    to.emit(text)


def lines(rows: list[dict[str, object]], gap: str) -> str:
    """One line a row; columns are padded where the gap is blank."""
    if not rows:
        return ""
    cells = [list(rows[0])] + [[f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(r[i]) for r in cells) if gap != "," else 0 for i in range(len(cells[0]))]
    return "".join(gap.join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() + "\n" for r in cells)
