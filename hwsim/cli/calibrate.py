"""`hwsim calibrate RUNS.csv --hw NAME`: fit a calibration file to measured runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.predict import report_problems


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS.csv...", help="Measured runs, of any kernel families.")],
    hw: Annotated[
        str | None, typer.Option("--hw", metavar="NAME", help="Calibrate this device only [every GPU in the files].")
    ] = None,
    folder: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of the calibration files; one a device is written.")
    ] = Path("hardware/calibrations"),
    force: o.Force = False,
) -> None:
    """Robust fit on log error, residuals cross-validated by site; with several GPUs also leave-one-GPU-out bands."""
    from hwsim.errors import InputError
    from hwsim.schema.loader import load_accelerator
    from hwsim.validation.calibrate import calibrate, gather, to_text
    from hwsim.validation.table import read_table

    device = load_accelerator(hw)[0] if hw is not None else None
    tables = [read_table(path, default_gpu=hw) for path in runs]
    measured, problems = gather(tables, device)
    code = report_problems(problems, "runs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("cannot make the output folder", where=str(folder), seen=str(error.strerror)) from None
    for file in calibrate(measured):
        o.emit(to_text(file), folder / f"{file.name}.yaml", force)
        for family, entry in file.families.items():
            for name, c in entry.classes.items():
                o.note(f"{file.device} {family} {name}: {c.n} rows, {c.sites} sites, unseen {c.mape_percent:.1f} %")
    raise typer.Exit(code)
