"""Strict reader of measured-run CSVs: good rows as arrays, bad rows as problems with line, reason and nearest name."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.family import Column, Family
from hwsim.cost.gpu.registry import family_of
from hwsim.errors import InputError, nearest

Array = NDArray[Any]
MAX_COUNT = 1e15  # no matrix side, byte count or batch is larger; beyond it products leave float64's exact range
MAX_ROWS = 5_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be used: 1-based `line` of the file, the column, what was seen and what to do."""

    line: int
    column: str
    what: str
    seen: str = ""
    fix: str = ""

    def __str__(self) -> str:
        seen = f" {self.seen!r}" if self.seen else ""
        return f"line {self.line}, {self.column}: {self.what}{seen}" + (f" ({self.fix})" if self.fix else "")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one family.

    `columns` holds the good rows only; `line` their 1-based lines in the file, `index` their places in `rows`.
    """

    family: Family
    columns: Mapping[str, Array]
    line: Array
    header: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    problems: tuple[Problem, ...] = ()
    sha256: str = ""
    name: str = ""
    index: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.line)

    def take(self, mask: Array) -> Table:
        """The rows where `mask` holds (or an index array)."""
        picked = {k: v[mask] for k, v in self.columns.items()}
        return replace(self, columns=picked, line=self.line[mask], index=self.index[mask])


def read_table(
    path: Path,
    *,
    latency: bool = True,
    gpus: Sequence[str] = (),
    family: Family | None = None,
    default_gpu: str | None = None,
) -> Table:
    """Read a measured-data CSV.

    latency: True where ``latency_us`` is needed (calibrate, validate). gpus: known GPU names; others are problems
    with the nearest name (empty: any). default_gpu: device of the rows where the file has no ``gpu`` column.
    Raises InputError where the file as a whole cannot be read.
    """
    header, rows, lines, digest = _load(path)
    chosen = family or family_of(header, where=str(path))
    _require_columns(chosen, header, latency, path, default_gpu)
    problems: dict[int, Problem] = {}
    columns: dict[str, Array] = {}
    ragged = [i for i, row in enumerate(rows) if len(row) != len(header)]
    for i in ragged:
        problems[i] = Problem(lines[i], "row", f"{len(rows[i])} fields where the header has {len(header)}")
        rows[i] = (rows[i] + [""] * len(header))[: len(header)]
    by_name = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    for column in _all_columns(chosen, gpus, latency, default_gpu):
        if column.name in by_name:
            columns[column.name] = _parse(column, by_name[column.name], problems)
        elif column.default is not None:
            columns[column.name] = np.full(len(rows), column.default)
    for name, values in by_name.items():
        if name not in columns:
            columns[name] = np.asarray(values, dtype=str)
    good = np.ones(len(rows), dtype=bool)
    good[list(problems)] = False
    kept = {k: v[good] for k, v in columns.items()}
    ordered = tuple(replace(problems[i], line=lines[i]) for i in sorted(problems))
    index = np.flatnonzero(good)
    return Table(chosen, kept, np.asarray(lines)[index], tuple(header), rows, ordered, digest, path.name, index)


def _load(path: Path) -> tuple[list[str], list[list[str]], list[int], str]:
    """Header, rows, the line each ends on, and content hash of a CSV. Raises InputError."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}", seen=str(error.strerror or error), fix="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", seen=str(error), fix="save it as a UTF-8 CSV") from error
    try:
        reader = csv.reader(text.splitlines())
        header = [h.strip() for h in next(reader, [])]
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV", seen=str(error), fix="check quotes and separators") from error
    if not header or len(set(header)) != len(header):
        raise InputError(f"{path} needs one header line with distinct names", seen=",".join(header)[:120])
    if len(numbered) > MAX_ROWS:
        raise InputError(f"{path} has more than {MAX_ROWS} rows", seen=str(len(numbered)), fix="split the file")
    return header, [row for _, row in numbered], [line for line, _ in numbered], hashlib.sha256(raw).hexdigest()


def _require_columns(family: Family, header: list[str], latency: bool, path: Path, default_gpu: str | None) -> None:
    needed = [*(() if default_gpu else ("gpu",)), *(c.name for c in family.columns if c.default is None)]
    missing = [n for n in needed + (["latency_us"] if latency else []) if n not in header]
    if missing:
        raise InputError(
            f"{path} lacks columns of {family.name}", seen=", ".join(header)[:200], fix=f"add {', '.join(missing)}"
        )


def _all_columns(family: Family, gpus: Sequence[str], latency: bool, default_gpu: str | None) -> list[Column]:
    gpu = Column("gpu", "name", known=tuple(gpus), default=default_gpu)
    return [gpu, *family.columns, *([Column("latency_us", "positive")] if latency else [])]


def _parse(column: Column, values: Sequence[str], problems: dict[int, Problem]) -> Array:
    """One column as an array; the first problem of each row is kept."""
    if column.kind == "name":
        return _parse_names(column, values, problems)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except ValueError:
        numbers = np.array([_number(v) for v in values], dtype=np.float64)
    if column.default is not None:
        blank = np.array([not v.strip() for v in values]) if np.isnan(numbers).any() else np.zeros(len(values), bool)
        numbers = np.where(blank, float(column.default), numbers)
    whole = column.kind == "positive"
    with np.errstate(invalid="ignore"):
        fits = numbers > 0 if whole else (numbers >= column.minimum) & (numbers == np.floor(numbers))
        fits &= numbers <= MAX_COUNT
    for i in np.flatnonzero(~fits):
        need = "a number > 0" if whole else f"a whole number >= {column.minimum} (at most {MAX_COUNT:g})"
        problems.setdefault(int(i), Problem(int(i), column.name, f"needs {need}, not", values[int(i)][:40]))
    return np.where(fits, numbers, 1.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _parse_names(column: Column, values: Sequence[str], problems: dict[int, Problem]) -> Array:
    array = np.asarray(values, dtype=str)
    if column.default is not None:
        array = np.where(array == "", str(column.default), array)
    for name in np.unique(array) if len(array) else ():
        if (column.known and name not in column.known) or not name:
            close = nearest(str(name), column.known, 1)
            fix = f"did you mean {close[0]}?" if close else "known: " + ", ".join(column.known[:12])
            for i in np.flatnonzero(array == name):
                what = f"unknown {column.name}" if name else "is empty"
                problems.setdefault(int(i), Problem(int(i), column.name, what, str(name)[:60], fix))
    return array
