"""Reads what a real engine noted about each request: tolerant of column names, units and clocks.

A name counts in any spelling (case, underscores, blanks) and may end in its unit: ``_s``, ``_ms``, ``_us``, ``_ns``.
Points in time may be on any clock: with an arrival column of their own they refer to it; else they are moved onto the
trace's clock, on which nothing happens before it arrived and the first request, which meets an idle engine, is
scheduled as it arrives. Durations (TTFT, TPOT, end to end) stand in for missing points.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError

Array = np.ndarray[Any, Any]
UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0}
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "request": ("requestid", "id", "request", "index", "reqid"),
    "arrival": ("arrival", "arrivaltime", "arrivalts", "arrived", "arrivedat", "requesttime", "submittime", "submitted",
                "sendtime", "senttime", "queued", "queuedts", "queuedtime", "requeststart", "starttime", "timestamp"),
    "scheduled": ("scheduled", "scheduledts", "scheduledtime", "scheduledat", "firstscheduled", "firstscheduledtime",
                  "scheduletime"),
    "first": ("firsttoken", "firsttokents", "firsttokentime", "firsttokenat", "timefirsttoken"),
    "last": ("lasttoken", "lasttokents", "lasttokentime", "lasttokenat", "finished", "finishedts", "finishedtime",
             "finishtime", "finishedat", "endtime", "end", "completiontime", "completed", "completedat", "completion"),
    "ttft": ("ttft", "timetofirsttoken", "firsttokenlatency"),
    "tpot": ("tpot", "timeperoutputtoken", "itl", "meanitl", "avgitl", "intertokenlatency"),
    "e2e": ("e2e", "e2el", "e2elatency", "endtoend", "endtoendlatency", "latency", "totallatency", "requestlatency"),
    "prompt": ("inputtokens", "prompttokens", "inputtoks", "numprompttokens", "numprefilltokens", "isl", "inputlen",
               "promptlen", "inputlength", "promptlength", "prompt", "input", "contexttokens"),
    "output": ("outputtokens", "outputtoks", "generatedtokens", "numoutputtokens", "numdecodetokens", "osl",
               "outputlen", "outputlength", "completiontokens", "output", "numgenerationtokens", "generationtokens"),
}  # fmt: skip
_POINTS: Final = ("arrival", "scheduled", "first", "last")
_SPANS: Final = ("ttft", "tpot", "e2e")
# Where even the request that waited least waited longer than this, points are taken to be on another clock: an idle
# engine schedules at once, a first token takes a prompt's time.
_SLACK_S: Final = {"scheduled": 0.25, "first": 30.0}


@dataclass(frozen=True, slots=True)
class Measured:
    """Durations of each request in seconds, NaN where unknown; `scheduled_s` counts from arrival.

    `arrival_s`, `prompt` and `output` are the file's own, None where it has none; `request` names rows. `moved` is the
    point (``scheduled`` or ``first``) that was set to its earliest possible time, where points are on another clock.
    """

    ttft_s: Array
    e2e_s: Array
    scheduled_s: Array
    tpot_s: Array
    arrival_s: Array | None = None
    prompt: Array | None = None
    output: Array | None = None
    request: tuple[str, ...] = ()
    moved: str = ""

    def __len__(self) -> int:
        return len(self.e2e_s)


def classify(header: Sequence[str]) -> dict[str, tuple[str, float | None]]:
    """Meaning -> (column, seconds of its unit or None where the name states none); the first fitting column wins."""
    found: dict[str, tuple[str, float | None]] = {}
    for column in header:
        words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip()).lower())
        words = [word for word in words if word]
        unit = UNITS.get(words[-1]) if len(words) > 1 else None
        name = "".join(words[:-1] if unit is not None else words)
        for meaning, names in NAMES.items():
            if name in names and meaning not in found:
                found[meaning] = (column, unit)
    return found


def is_measured(header: Sequence[str]) -> bool:
    """Whether a table with these columns says when requests ended and when their first token came."""
    found = classify(header)
    return bool({"last", "e2e"} & set(found)) and bool({"first", "ttft"} & set(found))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV, JSON-lines or JSON-list file, gzip allowed. Raises InputError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as text:
            if ".csv" in path.suffixes:
                return list(csv.DictReader(text))
            if ".jsonl" in path.suffixes:
                return [json.loads(line) for line in text if line.strip()]
            found = json.load(text)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError("a table of requests is not readable", where=str(path), seen=str(error)[:80]) from error
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict)]


def read_measured(path: Path, arrival_s: Array | None = None, unit: str | None = None) -> Measured:
    """What the engine measured.

    Parameters
    ----------
    arrival_s: arrivals of the trace in the order of the rows, for files without arrivals of their own.
    unit: unit of the times whose column does not state it (by default found from their size against the trace).

    Raises
    ------
    InputError: no such file, no columns that say when first and last tokens came, malformed numbers.
    """
    if not path.is_file():
        raise InputError("the measured values of a run are missing", where=str(path))
    rows = read_rows(path)
    if not rows or not is_measured(list(rows[0])):
        raise InputError(
            "measured values need a first-token and a last-token time (or TTFT and end-to-end time) a request",
            where=str(path),
            seen=", ".join(list(rows[0]) if rows else [])[:160],
            fix="columns first_token_s and last_token_s, and scheduled_s where known",
        )
    found = classify(list(rows[0]))
    scale = UNITS.get(unit or "")
    columns = {m: _numbers(path, rows, c, m in _SPANS) for m, (c, _) in found.items() if m != "request"}
    columns = {m: values for m, values in columns.items() if values is not None}
    spans = {m: columns[m] * _unit_of(found[m][1], scale, columns[m]) for m in _SPANS if m in columns}
    points, moved = _points(columns, found, scale, arrival_s)
    own = points.get("arrival")
    start = own if own is not None else arrival_s
    relative = {m: points[m] - start for m in ("scheduled", "first", "last") if m in points and start is not None}
    nothing = np.full(len(rows), np.nan)
    ttft, e2e = relative.get("first", spans.get("ttft", nothing)), relative.get("last", spans.get("e2e", nothing))
    tpot = spans.get("tpot", nothing)
    if "output" in columns:
        tpot = (e2e - ttft) / np.maximum(1.0, columns["output"] - 1.0)
    names = tuple(str(row[found["request"][0]]) for row in rows) if "request" in found else ()
    kept = {m: columns.get(m) for m in ("prompt", "output")}
    return Measured(
        ttft, e2e, relative.get("scheduled", nothing), tpot, own, kept["prompt"], kept["output"], names, moved
    )


def _numbers(path: Path, rows: Sequence[Mapping[str, Any]], column: str, optional: bool) -> Any:
    """A column as floats; an optional one that holds something else (a list of gaps) is left out."""
    try:
        return np.array([_number(row[column]) for row in rows])
    except (KeyError, ValueError, TypeError) as error:
        if optional:
            return None
        raise InputError(f"a value of {column} is not a number", where=str(path), seen=str(error)[:80]) from error


def _number(value: Any) -> float:
    """A number or NaN for an empty cell; seconds of a date."""
    text = str(value).strip()
    if value is None or text.lower() in ("", "none", "nan", "null"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        from datetime import datetime

        return datetime.fromisoformat(text).timestamp()


def _unit_of(named: float | None, asked: float | None, values: Array) -> float:
    """Seconds of the unit of a duration: named, asked for, or by size: no answer takes 1,000 s on the median."""
    if named or asked:
        return float(named or asked or 1.0)
    middle = float(np.nanmedian(values))
    return 1.0 if middle < 1e3 else 1e-3 if middle < 1e6 else 1e-6 if middle < 1e9 else 1e-9


def _points(
    columns: Mapping[str, Array],
    found: Mapping[str, tuple[str, float | None]],
    asked: float | None,
    arrival_s: Array | None,
) -> tuple[dict[str, Array], str]:
    """Points in time in seconds, on the trace's clock where the file has no arrivals of its own; which one says so."""
    raw = {m: columns[m] for m in _POINTS if m in columns}
    if not raw:
        return {}, ""
    guess = asked or _clock_unit(raw, arrival_s)
    points = {m: values * (found[m][1] or guess) for m, values in raw.items()}
    if "arrival" in points and not _other_clock(points):
        return points, ""
    arrival_s = points.get("arrival", arrival_s)
    if arrival_s is None:
        return points, ""
    name = "scheduled" if "scheduled" in points else "first"
    earliest = points.get(name)
    if earliest is None:
        return {}, ""
    least = float(np.nanmin(earliest - arrival_s))
    shift = 0.0 if 0.0 <= least <= _SLACK_S[name] else least
    return {m: v if m == "arrival" else v - shift for m, v in points.items()}, name if shift else ""


def _other_clock(points: Mapping[str, Array]) -> bool:
    """Whether arrivals are on a clock of their own: answers before requests, or a day after them."""
    late = points.get("scheduled", points.get("first", points["arrival"])) - points["arrival"]
    return bool(np.nanmin(late) < -1e-3 or np.nanmedian(late) > 86400.0)


def _clock_unit(raw: Mapping[str, Array], arrival_s: Array | None) -> float:
    """The unit in which the run lasts about as long as its trace; seconds for clocks of plain size."""
    last = raw.get("last", next(iter(raw.values())))
    span = float(np.nanmax(last) - np.nanmin(last))
    trace = float(np.ptp(arrival_s)) if arrival_s is not None and len(arrival_s) > 1 else 0.0
    if span > 0 and trace > 0:
        return min((1.0, 1e-3, 1e-6, 1e-9), key=lambda unit: abs(np.log(span * unit / trace)))
    return 1.0 if span < 1e5 else 1e-3 if span < 1e8 else 1e-6 if span < 1e11 else 1e-9
