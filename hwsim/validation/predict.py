"""Kernel times of the rows of a CSV: schema by columns, device by the ``gpu`` column, bands from the calibration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import content
from hwsim.cost.gpu.donors import Choice, choose
from hwsim.cost.gpu.facts import Facts, facts
from hwsim.cost.gpu.family import Family
from hwsim.errors import InputError, nearest
from hwsim.ir.platform import Device
from hwsim.schema.loader import load_accelerator
from hwsim.validation.table import Problem, Table, read_table

Array = NDArray[Any]
_MAKERS = ("nvidia", "amd", "tesla", "instinct", "geforce")
_DECORATION = re.compile(r"\d+gb|sxm\d?|pcie|hbm\d?e?|oam|gcd|server|max-?q")
CHUNK = 4096  # rows a call: the candidate arrays stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Predictions:
    """One value a row of `table`, in microseconds; rows that could not be predicted are in `table.problems`."""

    table: Table
    pred_us: Array
    low_us: Array
    high_us: Array
    kernel_class: Array
    exact: Array


def predict_file(path: Path, *, hw: str | None = None, latency: bool = False) -> Predictions:
    """Predict every good row of a measured-data CSV.

    hw: device for all rows (default: the ``gpu`` column). latency: require ``latency_us`` as validation does.
    Raises InputError where the file as a whole cannot be used, UnknownNameError for an unknown `hw`.
    """
    table = read_table(path, latency=latency, default_gpu=hw)
    if hw is not None:
        table = replace(table, columns={**table.columns, "gpu": np.full(len(table), hw)})
        load_accelerator(hw)
    return predict_table(table)


def predict_table(table: Table) -> Predictions:
    """Predict the rows of a table; unknown GPUs and formats a device lacks become problems by line."""
    devices, problems = resolve_gpus(table)
    family, n = table.family, len(table)
    classes = family.kernel_class(table.columns) if n else np.zeros(0, dtype=str)
    out = np.full((3, n), np.nan)
    exact = np.zeros(n, dtype=bool)
    for gpu, device in devices.items():
        at_gpu = table.columns["gpu"] == gpu
        for kernel_class in np.unique(classes[at_gpu]):
            index = np.flatnonzero(at_gpu & (classes == kernel_class))
            columns = {name: values[index] for name, values in table.columns.items()}
            try:
                out[:, index], exact[index] = predict_class(family, columns, device, str(kernel_class))
            except InputError as error:
                problems += [_unsupported(int(table.line[i]), str(kernel_class), error) for i in index]
    done = np.isfinite(out[0])
    merged = tuple(sorted((*table.problems, *problems), key=lambda p: p.line))
    kept = replace(table.take(done), problems=merged)
    value, low, high = out[:, done] * 1e6
    return Predictions(kept, value, low, high, classes[done], exact[done])


def predict_class(
    family: Family, columns: Mapping[str, Array], device: Device, kernel_class: str
) -> tuple[Array, bool]:
    """Seconds (3, rows): value, low, high of rows of one kernel class on one device, and whether it was measured."""
    choice = choose(device.calibration, family, kernel_class)
    times = evaluate(family, columns, facts(device), kernel_class, choice)
    return np.stack([times, *choice.band(times)]), choice.exact


def evaluate(family: Family, columns: Mapping[str, Array], f: Facts, kernel_class: str, choice: Choice) -> Array:
    """Model seconds in cache-sized chunks of rows."""
    n = len(next(iter(columns.values())))
    pieces = []
    for start in range(0, n, CHUNK):
        part = {name: values[start : start + CHUNK] for name, values in columns.items()}
        pieces.append(family.time(part, f, kernel_class, choice.parameters).time_s)
    return np.concatenate(pieces) if pieces else np.zeros(0)


def resolve_gpus(table: Table) -> tuple[dict[str, Device], list[Problem]]:
    """GPU name of the file -> device; rows with unknown names become problems with the nearest name."""
    devices: dict[str, Device] = {}
    problems: list[Problem] = []
    names = table.columns["gpu"]
    for gpu in np.unique(names):
        try:
            devices[str(gpu)] = load_accelerator(catalog_name(str(gpu)))[0]
            if devices[str(gpu)].kind not in ("gpu", "cpu"):
                raise InputError(f"{gpu} is a {devices[str(gpu)].kind}", fix="kernel models cover GPUs and CPUs")
        except InputError as error:
            devices.pop(str(gpu), None)
            fix = error.fix or _nearest_gpu(str(gpu))
            problems += [Problem(int(i), "gpu", error.what, str(gpu), fix) for i in table.line[names == gpu]]
    return devices, problems


def catalog_name(gpu: str) -> str:
    """The catalog's spelling of a GPU name that adds its maker, memory size or board form; else the name itself.

    Words are dropped one by one from the right until a name or alias fits: ``NVIDIA-L4-PCIE-24GB`` is ``l4``.
    """
    known = content.aliases("accelerator")
    words = [w for w in content.normalize(gpu).split("-") if w not in _MAKERS]
    for end in range(len(words), 0, -1):
        if not all(_DECORATION.fullmatch(w) for w in words[end:]):
            break
        if "-".join(words[:end]) in known:
            return "-".join(words[:end])
    return gpu


def _nearest_gpu(name: str) -> str:
    close = nearest(name, [spelling for spelling, _ in content.aliases("accelerator").values()], 1)
    return f"did you mean {close[0]}?" if close else "`hwsim list hw` shows the known names"


def _unsupported(line: int, kernel_class: str, error: InputError) -> Problem:
    return Problem(line, "dtype", error.what, kernel_class, error.fix)


def to_csv(predictions: Predictions) -> str:
    """The good rows as CSV text with ``pred_us, low_us, high_us`` added (or replaced)."""
    import csv
    import io

    table = predictions.table
    added = ("pred_us", "low_us", "high_us")
    keep = [i for i, name in enumerate(table.header) if name not in added]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([table.header[i] for i in keep] + list(added))
    columns = (predictions.pred_us.tolist(), predictions.low_us.tolist(), predictions.high_us.tolist())
    texts = ((f"{value:.5g}", f"{low:.5g}", f"{high:.5g}") for value, low, high in zip(*columns, strict=True))
    rows = (table.rows[place] for place in table.index.tolist())
    if len(keep) == len(table.header):
        writer.writerows([*row, *text] for row, text in zip(rows, texts, strict=True))
    else:
        writer.writerows([*(row[i] for i in keep), *text] for row, text in zip(rows, texts, strict=True))
    return buffer.getvalue()
