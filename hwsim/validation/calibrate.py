"""Fit calibration files: parameters by kernel class, cross-validated residuals, leave-one-GPU-out bands, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.donors import choose
from hwsim.cost.gpu.facts import facts
from hwsim.cost.gpu.family import Family
from hwsim.errors import InputError
from hwsim.ir.platform import Device
from hwsim.schema.calibration import CalibrationFile, from_files, kinship
from hwsim.validation.fit import Rows, cross_validate, fit, rows_by_class
from hwsim.validation.predict import resolve_gpus
from hwsim.validation.table import Problem, Table

Array = NDArray[Any]
MIN_ROWS = 8  # a class with fewer rows says nothing about its parameters: it is left to a donor
ROWS_A_BIN = 60  # 10 % and 90 % quantiles of 60 residuals are good to about 20 % of their width
MAX_BINS = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one device in one family, by kernel class, with where they came from."""

    device: Device
    family: Family
    rows: tuple[Rows, ...]
    sources: tuple[Mapping[str, Any], ...]


def gather(tables: Sequence[Table], only: Device | None = None) -> tuple[list[Measured], list[Problem]]:
    """Group the good rows of tables by device and family. Raises InputError where nothing usable is left."""
    found: dict[tuple[str, str], Measured] = {}
    problems: list[Problem] = []
    for table in tables:
        devices, bad = resolve_gpus(table)
        problems += [*table.problems, *bad]
        for gpu, device in devices.items():
            if only is None or device.name == only.name:
                _add(found, table.take(table.columns["gpu"] == gpu), device)
    kept = [m for m in found.values() if m.rows]
    if not kept:
        wanted = f"of {only.name} " if only is not None else ""
        seen = sorted({str(g) for t in tables for g in np.unique(t.columns["gpu"])})
        raise InputError(
            f"no rows {wanted}to calibrate with",
            seen=", ".join(seen)[:200],
            fix=f"a kernel class needs {MIN_ROWS} rows; --hw must match the gpu column",
        )
    return kept, problems


def _add(found: dict[tuple[str, str], Measured], table: Table, device: Device) -> None:
    family = table.family
    rows = rows_by_class(family, table.columns, facts(device), table.columns["latency_us"] * 1e-6)
    rows = [r for r in rows if len(r.latency_s) >= MIN_ROWS and _supported(family, r)]
    source = {
        "file": table.name,
        "sha256": table.sha256,
        "rows": int(sum(len(r.latency_s) for r in rows)),
        "gpus": sorted({str(g) for g in np.unique(table.columns["gpu"])}),
        "backends": _backends(table),
    }
    before = found.get((device.name, family.name))
    old_rows, old_sources = (before.rows, before.sources) if before else ((), ())
    found[device.name, family.name] = Measured(device, family, _merged((*old_rows, *rows)), (*old_sources, source))


def _merged(rows: Sequence[Rows]) -> tuple[Rows, ...]:
    """Rows of one class from several files or board names together."""
    by_class: dict[str, Rows] = {}
    for r in rows:
        old = by_class.get(r.kernel_class)
        if old is not None:
            both = {k: np.concatenate([old.columns[k], v]) for k, v in r.columns.items() if k in old.columns}
            r = Rows(r.kernel_class, both, r.facts, np.concatenate([old.latency_s, r.latency_s]))
        by_class[r.kernel_class] = r
    return tuple(by_class.values())


def _backends(table: Table) -> list[str]:
    if "backend" not in table.columns:
        return []
    versions = table.columns.get("version", np.full(len(table), ""))
    return sorted({f"{b} {v}".strip() for b, v in zip(table.columns["backend"], versions, strict=True)})


def _supported(family: Family, rows: Rows) -> bool:
    """False where the device has no arithmetic for the class."""
    try:
        rows.log_error(family, family.start())
    except InputError:
        return False
    return True


def calibrate(measured: Sequence[Measured], *, today: date | None = None) -> list[CalibrationFile]:
    """Fit every device; where several share classes, add what leaving one of them out costs."""
    entries: dict[str, dict[str, Any]] = {}
    devices = {m.device.name: m.device for m in measured}
    for m in measured:
        entries.setdefault(m.device.name, {})[m.family.name] = {"classes": fit_family(m)}
    when = (today or date.today()).isoformat()
    documents = {name: document(devices[name], fitted, measured, when) for name, fitted in entries.items()}
    files = {name: CalibrationFile.model_validate(d) for name, d in documents.items()}
    for (donor, family, kernel_class), errors in leave_one_out(measured, files).items():
        documents[donor]["families"][family]["classes"][kernel_class]["transfer"] = _transfer(errors)
    return [CalibrationFile.model_validate(d) for d in documents.values()]


def fit_family(m: Measured) -> dict[str, Any]:
    """Class entries of one device and family: fit on all rows, residuals from fits that never saw the row's site."""
    entries: dict[str, Any] = {}
    for group in _protocol_groups(m.rows):
        fitted = fit(m.family, group)
        errors = cross_validate(m.family, group, fitted)
        for rows in group:
            entries[rows.kernel_class] = _class_entry(
                m.family, rows, fitted[rows.kernel_class], errors[rows.kernel_class]
            )
    return dict(sorted(entries.items()))


def _protocol_groups(rows: Sequence[Rows]) -> list[list[Rows]]:
    """Classes that share parameters: those of one protocol, measured on one board."""
    groups: dict[str, list[Rows]] = {}
    for r in rows:
        groups.setdefault(r.kernel_class.partition("@")[2], []).append(r)
    return list(groups.values())


def _class_entry(family: Family, rows: Rows, parameters: Mapping[str, float], errors: Array) -> dict[str, Any]:
    percent = 100 * np.abs(np.expm1(errors))
    return {
        "n": len(errors),
        "sites": len(np.unique(family.site(rows.columns))),
        "mape_percent": _digits(percent.mean()),
        "median_percent": _digits(float(np.median(percent))),
        "parameters": {name: _digits(value, 5) for name, value in parameters.items()},
        "residuals": residual_bins(rows.latency_s * np.exp(errors), -errors),
    }


def residual_bins(predicted_s: Array, log_ratio: Array) -> list[dict[str, Any]]:
    """Quantiles of ln(measured / predicted) in bins of equal count along the predicted time."""
    order = np.argsort(predicted_s)
    count = int(np.clip(len(order) // ROWS_A_BIN, 1, MAX_BINS))
    bins = []
    for part in np.array_split(order, count):
        q10, q50, q90 = np.quantile(log_ratio[part], [0.1, 0.5, 0.9])
        middle = float(np.exp(np.mean(np.log(predicted_s[part])))) * 1e6
        bins.append(
            {
                "predicted_us": _digits(middle),
                "n": len(part),
                "q10": _digits(q10),
                "q50": _digits(q50),
                "q90": _digits(q90),
            }
        )
    return bins


def leave_one_out(
    measured: Sequence[Measured], files: Mapping[str, CalibrationFile]
) -> dict[tuple[str, str, str], list[Array]]:
    """Log errors of each device predicted by its nearest kin alone: (donor, family, class) -> errors by device."""
    out: dict[tuple[str, str, str], list[Array]] = {}
    for m in measured:
        others = [(kinship(m.device, f), f) for name, f in files.items() if name != m.device.name]
        if not others:
            continue
        calibration = from_files(m.device, sorted(others, key=lambda pair: (pair[0], pair[1].name)))
        for rows in m.rows:
            choice = choose(calibration, m.family, rows.kernel_class)
            if choice.donor and choice.kernel_class == rows.kernel_class:
                found = out.setdefault((choice.donor, m.family.name, rows.kernel_class), [])
                found.append(rows.log_error(m.family, choice.parameters))
    return out


def _transfer(errors: Sequence[Array]) -> dict[str, Any]:
    every = np.concatenate(errors)
    q10, q90 = np.quantile(-every, [0.1, 0.9])
    mape = 100 * np.abs(np.expm1(every)).mean()
    return {"n": len(every), "mape_percent": _digits(mape), "q10": _digits(q10), "q90": _digits(q90)}


def document(device: Device, families: Mapping[str, Any], measured: Sequence[Measured], when: str) -> dict[str, Any]:
    """Plain data of one calibration file."""
    import scipy

    from hwsim import __version__

    data = [source for m in measured if m.device.name == device.name for source in m.sources if source["rows"]]
    return {
        "schema": "hwsim/calibration@1",
        "name": device.name,
        "device": device.name,
        "generation": device.generation,
        "memory": device.main_memory.name,
        "dram_bytes_per_s": float(device.main_memory.read_bytes_per_s),
        "date": when,
        "software": {"hwsim": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "families": dict(sorted(families.items())),
        "data": data,
    }


def to_text(file: CalibrationFile) -> str:
    """The YAML text of a calibration file, with what its numbers mean at the head."""
    from hwsim.schema.writer import to_yaml

    head = (
        "# Fitted by `hwsim calibrate`; parameter names and units: docs/formulas/. Residuals are quantiles of\n"
        "# ln(measured / predicted) on sites that the fit did not see.\n"
    )
    return head + to_yaml(file.model_dump(by_alias=True, exclude_none=True))


def _digits(value: Any, digits: int = 4) -> float:
    return float(f"{float(value):.{digits}g}")
