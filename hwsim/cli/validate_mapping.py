"""`hwsim validate mapping DIR`: access counts of fixed tilings and proved optima, against a folder of exact cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


@g.grouped
def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with specs.json, count_checks.json and optimum.json.")
    ],
    solver: Annotated[str, typer.Option("--solver", help="auto, cbc, highs or scipy.")] = "auto",
    optima: Annotated[bool, typer.Option("--optima/--no-optima", help="Also solve for the optima.")] = True,
    *,
    to: g.Destination,
) -> None:
    """Every case of a folder of exact tilings: deviations in counts, cycles, energy and optima. Exit 4 on a miss."""
    form = to.form("table", "json")
    from hwsim.errors import CheckFailedError
    from hwsim.validation.mapping import validate_mapping

    document = validate_mapping(folder, optima=optima, solver=solver)
    to.emit(o.to_json(document) if form == "json" else render(document))
    if not document["passed"]:
        raise CheckFailedError("a mapping case deviates", where=str(folder))


def render(document: dict[str, Any]) -> str:
    """One line a case."""
    lines = [f"{'count check':<24}{'counts':>12}{'cycles':>10}{'energy':>10}  verdict"]
    for row in document["count_checks"]:
        counts = "equal" if not row["wrong"] else f"{len(row['wrong'])} differ"
        verdict = "ok" if row["passed"] else "MISS " + "; ".join(row["wrong"][:3])
        verdict += ": the listed cycles are an exact integer rounded up in floating point" if row["rounded"] else ""
        lines.append(f"{row['name']:<24}{counts:>12}{row['cycles']:>+10d}{row['energy']:>10.1e}  {verdict}")
    if document["optima"]:
        lines.append(f"\n{'optimum':<22}{'objective':<10}{'deviation':>11}{'energy':>11}{'gap':>7}{'time':>9}  verdict")
    for row in document["optima"]:
        better = " (less energy than listed at these cycles)" if row["passed"] and row["energy"] < -1e-9 else ""
        verdict = ("ok" if row["passed"] else "MISS") + f", {row['status']} by {row['solver']}{better}"
        lines.append(
            f"{row['name']:<22}{row['objective']:<10}{row['deviation']:>+11.1e}{row['energy']:>+11.1e}"
            f"{row['gap']:>7.0e}{row['seconds']:>7.2f} s  {verdict}"
        )
    return "\n".join(lines)
