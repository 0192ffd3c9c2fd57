"""`hwsim measure`: micro-benchmarks of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o


def command(
    hw: Annotated[str, typer.Option("--hw", metavar="NAME", help="What this machine is called in the catalog.")],
    target: Annotated[str, typer.Option("--target", help="cpu (numpy), or cuda (needs PyTorch).")] = "cpu",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the CSV files.")] = Path("measured"),
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One benchmark: gemm, vectorop ... Repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the shapes.")] = False,
    force: o.Force = False,
) -> None:
    """Warm-up, buffers rotated past the last-level cache, medians with spread, environment stamp."""
    from hwsim.schema.loader import load_accelerator
    from hwsim.validation.measure import measure

    device = load_accelerator(hw)[0]
    for name, rows in measure(target, device.name, out, only=tuple(only or ()), quick=quick, force=force):
        o.note(f"{out / name}: {rows} rows")
