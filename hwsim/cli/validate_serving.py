"""`hwsim validate serving DIR`: exact scheduler cases, or real-engine runs beside their trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import options as o


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with cases.json, or with runs.json.")],
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Every request of every case: largest deviation in TTFT, end-to-end time and restarts. Exit 4 on a miss."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.errors import CheckFailedError
    from hwsim.validation.serving import validate_serving

    document = validate_serving(folder)
    o.emit(o.to_json(document) if form == "json" else render(document), out, force)
    if not document["passed"]:
        raise CheckFailedError("a serving case deviates by more than its tolerance", where=str(folder))


def render(document: dict[str, Any]) -> str:
    """One line a case."""
    if document["schema"] == "hwsim/validate-serving-runs@1":
        return _render_runs(document)
    lines = [f"{'case':<24}{'requests':>9}{'TTFT dev':>12}{'e2e dev':>12}{'restarts':>10}  verdict"]
    for case in document["cases"]:
        verdict = "ok" if case["passed"] else "MISS"
        note = f" ({case['convention']})" if case["convention"] else ""
        lines.append(
            f"{case['name']:<24}{case['requests']:>9}{case['ttft_s'] * 1e6:>9.4f} us{case['e2e_s'] * 1e6:>9.4f} us"
            f"{case['restarts']:>10}  {verdict}{note}"
        )
    lines.append(
        f"tolerance {document['tolerance_s'] * 1e6:g} us; deviations are maxima; restarts = requests that differ"
    )
    return "\n".join(lines)


def _render_runs(document: dict[str, Any]) -> str:
    lines = [f"{'run':<32}{'requests':>9}{'e2e':>9}{'TTFT':>9}{'TPOT':>9}   median absolute error"]
    for run in document["runs"]:
        errors = "".join(f"{100 * run[name]:>8.1f}%" for name in ("e2e_error", "ttft_error", "tpot_error"))
        lines.append(f"{run['name']:<32}{run['requests']:>9}{errors}")
    return "\n".join(lines)
