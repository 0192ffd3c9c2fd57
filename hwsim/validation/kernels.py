"""Score kernel predictions against a folder of measured runs, beside a naive roofline and a flat efficiency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.donors import choose
from hwsim.cost.gpu.facts import Facts, facts
from hwsim.cost.gpu.family import Family
from hwsim.errors import InputError
from hwsim.ir.platform import Device
from hwsim.schema.calibration import calibration_files, from_files, kinship
from hwsim.validation.fit import Rows, cross_validate
from hwsim.validation.predict import predict_class, resolve_gpus
from hwsim.validation.scores import scores
from hwsim.validation.silicon import silicon_tables
from hwsim.validation.table import Problem, Table, read_table

Array = NDArray[Any]
LARGE_S = 50e-6  # rows above this are not dominated by launch floors
FLAT_EFFICIENCY = 0.8  # the flat factor of many published estimators
POINTS = 300  # points a group keeps for the plot
SILICON = "silicon:"
MODES = ("shipped", "cross-validated", "leave-one-gpu-out")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one GPU and kernel class with their predictions (seconds)."""

    family: str
    gpu: str
    kernel_class: str
    exact: bool
    measured_s: Array
    predicted_s: Array
    low_s: Array
    high_s: Array
    roofline_s: Array


def validate_kernels(folder: Path, *, mode: str = "shipped") -> dict[str, Any]:
    """Score every kernel-family CSV of a folder; returns a document of plain data (schema hwsim/accuracy@1).

    mode: ``shipped`` predicts with the calibrations as they are; ``cross-validated`` predicts each row by a fit that
    never saw its site; ``leave-one-gpu-out`` predicts each device with the parameters of its nearest kin.
    Raises InputError where the folder holds no such file.
    """
    if mode not in MODES:
        raise InputError("unknown way to validate", seen=mode, fix="one of " + ", ".join(MODES))
    tables, skipped = (silicon_tables(folder.name[len(SILICON) :]), []) if is_silicon(folder) else read_folder(folder)
    problems: list[Problem] = []
    groups: list[Group] = []
    for table in tables:
        devices, bad = resolve_gpus(table)
        problems += [*table.problems, *bad]
        for gpu, device in devices.items():
            groups += score_gpu(table.take(table.columns["gpu"] == gpu), gpu, device, mode, problems)
    return document(folder, mode, groups, [str(p) for p in problems], skipped)


def is_silicon(folder: Path) -> bool:
    """True for ``silicon:GPU``: the tables of the installed measurement package instead of a folder."""
    return folder.name.startswith(SILICON)


def read_folder(folder: Path) -> tuple[list[Table], list[str]]:
    """Tables of the kernel-family CSVs of a folder, and the names of other CSVs. Raises InputError."""
    paths = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder]
    tables, skipped = [], []
    for path in paths:
        try:
            tables.append(read_table(path))
        except InputError as error:
            if len(paths) == 1:
                raise
            skipped.append(f"{path.name}: {error.what}")
    if not tables:
        raise InputError("no measured kernel runs here", where=str(folder), fix="a folder with gemm.csv and the like")
    return tables, skipped


def score_gpu(table: Table, gpu: str, device: Device, mode: str, problems: list[Problem]) -> list[Group]:
    """Predict the rows of one GPU class by class; classes the device cannot run become problems."""
    family, found = table.family, []
    classes = family.kernel_class(table.columns)
    rows = []
    for kernel_class in np.unique(classes):
        part = table.take(classes == kernel_class)
        entry = Rows(str(kernel_class), part.columns, facts(device), part.columns["latency_us"] * 1e-6)
        try:
            entry.log_error(family, family.start())
        except InputError as error:
            problems += [Problem(int(i), "dtype", error.what, str(kernel_class), error.fix) for i in part.line]
            continue
        rows.append(entry)
    errors = _held_out(family, rows) if mode == "cross-validated" else {}
    for r in rows:
        group = _group(family, r, gpu, device, mode, errors.get(r.kernel_class))
        if group is not None:
            found.append(group)
    return found


def _held_out(family: Family, rows: Sequence[Rows]) -> dict[str, Array]:
    by_protocol: dict[str, list[Rows]] = {}
    for r in rows:
        by_protocol.setdefault(r.kernel_class.partition("@")[2], []).append(r)
    errors: dict[str, Array] = {}
    for group in by_protocol.values():
        errors |= cross_validate(family, group)
    return errors


def _group(family: Family, r: Rows, gpu: str, device: Device, mode: str, errors: Array | None) -> Group | None:
    if mode == "leave-one-gpu-out":
        donors = [(d, f) for f in calibration_files() if (d := kinship(device, f)) > 0]
        if not donors:
            return None
        device = device.with_(calibration=from_files(device, sorted(donors, key=lambda pair: (pair[0], pair[1].name))))
        if choose(device.calibration, family, r.kernel_class).kernel_class != r.kernel_class:
            return None
    (value, low, high), exact = predict_class(family, r.columns, device, r.kernel_class)
    if errors is not None:
        held_out = r.latency_s * np.exp(errors)
        value, low, high = held_out, low / value * held_out, high / value * held_out
    naive = naive_roofline_s(family, r, r.facts)
    return Group(family.name, gpu, r.kernel_class, exact, r.latency_s, value, low, high, naive)


def naive_roofline_s(family: Family, r: Rows, f: Facts) -> Array:
    """max(operations / dense peak, compulsory bytes / bandwidth): what a one-line estimate says."""
    flop, traffic = family.flop(r.columns), family.traffic_bytes(r.columns)
    if family.name == "collective":
        rate = f.link.bandwidth_bytes_per_s if f.link is not None else f.host_bytes_per_s
        return np.asarray(traffic / rate)
    dtype = str(np.ravel(family.compute_dtype(r.columns))[0])
    try:
        peak = f.peak(dtype)
    except InputError:
        peak = f.peak("fp16")
    return np.asarray(np.maximum(flop / peak, traffic / f.dram_bytes_per_s))


def document(
    folder: Path, mode: str, groups: Sequence[Group], problems: Sequence[str], skipped: Sequence[str]
) -> dict[str, Any]:
    """Plain data: one line a family, GPU and kernel class, totals a family and GPU, points for the plot."""
    lines = [_line(g.family, g.gpu, g.kernel_class, [g]) for g in groups]
    totals: dict[tuple[str, str], list[Group]] = {}
    for g in groups:
        totals.setdefault((g.family, g.gpu), []).append(g)
    lines += [_line(family, gpu, "all", members) for (family, gpu), members in totals.items() if len(members) > 1]
    return {
        "schema": "hwsim/accuracy@1",
        "data": folder.name,
        "mode": mode,
        "rows": sorted(lines, key=lambda d: (d["family"], d["gpu"], d["class"] == "all", d["class"])),
        "points": [p for g in groups for p in _points(g)],
        "problems": list(problems),
        "skipped": list(skipped),
    }


def _line(family: str, gpu: str, kernel_class: str, groups: Sequence[Group]) -> dict[str, Any]:
    joined = [np.concatenate([getattr(g, n) for g in groups]) for n in ("predicted_s", "measured_s", "low_s", "high_s")]
    naive = np.concatenate([g.roofline_s for g in groups])
    large = joined[1] >= LARGE_S
    line = {"family": family, "gpu": gpu, "class": kernel_class, "measured": all(g.exact for g in groups)}
    line |= scores(*joined)
    line |= {"roofline_mape": _mape(naive, joined[1]), "flat_mape": _mape(naive / FLAT_EFFICIENCY, joined[1])}
    line["large"] = scores(*(a[large] for a in joined)) if large.any() else None
    return line


def _mape(predicted: Array, measured: Array) -> float:
    return float(100.0 * np.mean(np.abs(predicted / measured - 1.0)))


def _points(g: Group) -> list[list[Any]]:
    step = max(1, len(g.measured_s) // POINTS)
    label = f"{g.gpu} {g.kernel_class}"
    pairs = zip(g.measured_s[::step], g.predicted_s[::step], strict=True)
    return [[g.family, label, float(f"{m * 1e6:.4g}"), float(f"{p * 1e6:.4g}")] for m, p in pairs]
