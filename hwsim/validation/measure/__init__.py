"""Micro-benchmarks of this machine in the schemas that `calibrate` and `validate kernels` read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, unknown_name

TARGETS = ("cpu", "cuda")


def families(target: str) -> dict[str, Any]:
    """Benchmarks of a target by file stem. Raises UnknownNameError."""
    if target == "cpu":
        from hwsim.validation.measure import cpu

        return dict(cpu.FAMILIES)
    if target == "cuda":
        from hwsim.validation.measure import cuda

        cuda.torch_module()
        return dict(cuda.FAMILIES)
    raise unknown_name("measuring target", target, TARGETS)


def measure(
    target: str, device: str, folder: Path, *, only: Sequence[str] = (), quick: bool = False, force: bool = False
) -> Iterator[tuple[str, int]]:
    """Run the benchmarks and write one CSV a family and ``environment.json``; yields (file, rows) as they are done.

    Raises InputError where the folder cannot be written or a file is in the way, UnknownNameError for a wrong name.
    """
    from hwsim.validation.measure.environment import environment

    known = families(target)
    for name in only:
        if name not in known:
            raise unknown_name("benchmark", name, known)
    chosen = {n: f for n, f in known.items() if not only or n in only}
    paths = [folder / f"{n}.csv" for n in chosen]
    taken = [p for p in paths if p.exists()]
    if taken and not force:
        raise InputError("a result file exists", where=str(taken[0]), fix="another folder, or --force")
    stamp = {**environment(), "target": target, "device": device}
    _write(folder / "environment.json", json.dumps(stamp, indent=2) + "\n")
    for (name, benchmark), path in zip(chosen.items(), paths, strict=True):
        rows = list(benchmark(device, quick))
        if rows:
            _write(path, to_csv(name, rows))
        yield path.name, len(rows)


def to_csv(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """CSV text with a running row_id."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["row_id", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"row_id": f"{name[:3]}-m{i:05d}", **row} for i, row in enumerate(rows))
    return buffer.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError("cannot write the results", where=str(path), seen=error.strerror or str(error)) from None
