"""Request traces: one reader for the public schemas, one for generated arrivals and lengths.

Known CSV headers (``.gz`` allowed) and JSON lines:

- plain: arrival_s, input_tokens, output_tokens [, prefix_block_ids] [, reason_tokens] [, priority]
- Azure 2023/2024: TIMESTAMP, ContextTokens, GeneratedTokens (wall-clock times)
- BurstGPT: Timestamp, Request tokens, Response tokens (seconds)
- Vidur: arrived_at, num_prefill_tokens, num_decode_tokens
- Mooncake (JSON lines): timestamp (ms), input_length, output_length, hash_ids
- ServeGen: timestamp, input_tokens, output_tokens
- LLMServingSim (JSON lines): arrival_time_ns, input_toks, output_toks
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError

MAX_TIME_S: Final = 1e12  # also of wall clocks, which count from 1970
MAX_TOKENS: Final = 1 << 31
_SHOWN: Final = 5  # malformed rows named in one error


@dataclass(slots=True)
class Trace:
    """Sorted requests: arrival in seconds since the first, prompt and output tokens; optional prefix block ids.

    `models`: which model each request asks for, where a cluster serves several. `origin_s`: when the first arrived, on
    the clock of the file.
    """

    name: str
    arrival_s: array[float] = field(default_factory=lambda: array("d"))
    prompt: array[int] = field(default_factory=lambda: array("l"))
    output: array[int] = field(default_factory=lambda: array("l"))
    prefixes: list[tuple[int, ...]] | None = None
    priorities: array[int] | None = None
    models: list[str] | None = None
    origin_s: float = 0.0

    def __len__(self) -> int:
        return len(self.arrival_s)

    def head(self, count: int) -> Trace:
        """The first `count` requests."""
        prefixes = None if self.prefixes is None else self.prefixes[:count]
        priorities = None if self.priorities is None else self.priorities[:count]
        models = None if self.models is None else self.models[:count]
        columns = (self.arrival_s[:count], self.prompt[:count], self.output[:count])
        return Trace(self.name, *columns, prefixes, priorities, models)

    def scaled(self, factor: float) -> Trace:
        """Arrival times multiplied by `factor` (below 1: a hotter trace)."""
        if not (math.isfinite(factor) and factor > 0):
            raise InputError("the time scale of a trace must be a finite number above 0", seen=repr(factor))
        times = array("d", [t * factor for t in self.arrival_s])
        return replace(self, arrival_s=times, origin_s=self.origin_s * factor)

    def at_rate(self, rate_per_s: float) -> Trace:
        """The same requests compressed or stretched to a mean rate (requests/s)."""
        span = self.arrival_s[-1] - self.arrival_s[0] if len(self) > 1 else 0.0
        return self.scaled((len(self) - 1) / span / rate_per_s) if span > 0 else self

    def clipped(self, tokens: int) -> Trace:
        """Prompts cut so that prompt + output <= `tokens`, as Vidur's trace generator does."""
        output = array("l", [min(o, tokens - 1) for o in self.output])
        prompt = array("l", [min(p, tokens - o) for p, o in zip(self.prompt, output, strict=True)])
        return replace(self, prompt=prompt, output=output)


@dataclass(frozen=True, slots=True)
class Schema:
    """Column names of one trace format; `clock` turns the time field into seconds."""

    name: str
    arrival: str
    prompt: str
    output: str
    clock: Callable[[str], float] = float
    prefix: str = ""


def _wall_clock_s(text: str) -> float:
    """Seconds of a timestamp; more than six decimals (Azure writes seven) are kept."""
    stamp, _, rest = text.strip().replace("T", " ").partition(".")
    digits = rest.rstrip("Z").split("+")[0]
    fraction = float("0." + digits) if digits else 0.0
    moment = datetime.fromisoformat(stamp.rstrip("Z"))
    return (moment - datetime(1970, 1, 1)).total_seconds() + fraction


SCHEMAS: Final = (
    Schema("plain", "arrival_s", "input_tokens", "output_tokens", prefix="prefix_block_ids"),
    Schema("azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", _wall_clock_s),
    Schema("burstgpt", "Timestamp", "Request tokens", "Response tokens"),
    Schema("vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    Schema("servegen", "timestamp", "input_tokens", "output_tokens"),
    Schema("llmservingsim", "arrival_time_ns", "input_toks", "output_toks", lambda t: float(t) / 1e9),
    Schema("mooncake", "timestamp", "input_length", "output_length", lambda t: float(t) / 1000.0, prefix="hash_ids"),
)


def read_trace(path: Path | str, *, limit: int | None = None) -> Trace:
    """Read a trace file; the schema follows from its header.

    Raises
    ------
    InputError: no such file, unknown header, malformed rows (the first five are named by line), no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such trace file", where=str(path), fix="give the path of a CSV or JSON-lines trace")
    rows = _json_rows(path) if ".jsonl" in path.suffixes else _csv_rows(path)
    first = next(rows, None)
    if first is None:
        raise InputError("the trace holds no requests", where=str(path))
    schema = _schema(first[1], path)
    return _collect(schema, path, _chain(first, rows), limit)


def _chain(first: tuple[int, Mapping[str, Any]], rest: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[Any]:
    yield first
    yield from rest


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")  # spreadsheets put a byte order mark in front


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with _open(path) as text:
            reader = csv.DictReader(text)
            names = list(reader.fieldnames or ())
            twice = next((name for name in names if names.count(name) > 1), None) if len(names) < 1000 else None
            if twice is not None:
                raise InputError("the header names a column twice", where=f"{path}:1", seen=twice[:80], fix="keep one")
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise InputError("the trace is not readable text", where=str(path), seen=str(error)[:80]) from error


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("not JSON", where=f"{path}:{number}", seen=line[:60]) from error
        if not isinstance(row, dict):
            raise InputError("a trace line must be a JSON object", where=f"{path}:{number}", seen=line[:60])
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with _open(path) as text:
            yield from enumerate(text, start=1)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise InputError("the trace is not readable text", where=str(path), seen=str(error)[:80]) from error


def _schema(row: Mapping[str, Any], path: Path) -> Schema:
    for schema in SCHEMAS:
        if schema.arrival in row and schema.prompt in row and schema.output in row:
            return schema
    known = "; ".join(f"{s.name}: {s.arrival}, {s.prompt}, {s.output}" for s in SCHEMAS)
    seen = ", ".join(str(name) for name in row)[:120]
    raise InputError("the columns of the trace fit no known schema", where=f"{path}:1", seen=seen, fix=known)


def _collect(schema: Schema, path: Path, rows: Iterator[tuple[int, Mapping[str, Any]]], limit: int | None) -> Trace:
    trace, problems = Trace(path.name.split(".")[0]), []
    for line, row in rows:
        if limit is not None and len(trace) >= limit:
            break
        try:
            time_s, prompt, output = _row(schema, row)
        except (TypeError, ValueError) as error:
            problems.append(f"line {line}: {error}")
            continue
        trace.arrival_s.append(time_s)
        trace.prompt.append(prompt)
        trace.output.append(output)
        if row.get("model"):
            trace.models = [] if trace.models is None else trace.models
            trace.models.append(str(row["model"]))
        if schema.prefix and row.get(schema.prefix) is not None:
            trace.prefixes = [] if trace.prefixes is None else trace.prefixes
            trace.prefixes.append(_blocks(row[schema.prefix]))
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"{len(problems)} malformed rows", where=str(path), seen="; ".join(problems[:_SHOWN]) + more,
            fix=f"each row needs {schema.arrival}, {schema.prompt} >= 1 and {schema.output} >= 1",
        )  # fmt: skip
    if not len(trace):
        raise InputError("the trace holds no requests", where=str(path))
    for name, column in (("model", trace.models), (schema.prefix, trace.prefixes)):
        if column is not None and len(column) != len(trace):
            seen = f"{len(column)} of {len(trace)} rows have it"
            raise InputError(f"the column {name} is filled in some rows only", where=str(path), seen=seen)
    return _sorted(trace)


def _row(schema: Schema, row: Mapping[str, Any]) -> tuple[float, int, int]:
    if None in row:  # where the csv module puts what has no column
        raise ValueError("more cells than columns")
    time_s = schema.clock(_text(row, schema.arrival))
    prompt, output = _tokens(row, schema.prompt), _tokens(row, schema.output)
    if not abs(time_s) < MAX_TIME_S:
        raise ValueError(f"{schema.arrival} is not a time")
    return time_s, prompt, output


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or str(value).strip() == "":
        raise ValueError(f"{name} is missing")
    return str(value)


def _tokens(row: Mapping[str, Any], name: str) -> int:
    text = _text(row, name)
    value = float(text)
    if not value.is_integer() or not 1 <= value < MAX_TOKENS:
        raise ValueError(f"{name} = {text[:20]!r} is not a count of tokens >= 1")
    return int(value)


def _blocks(value: Any) -> tuple[int, ...]:
    return tuple(int(item) for item in (value.split() if isinstance(value, str) else value))


def _sorted(trace: Trace) -> Trace:
    """Order by arrival (ties keep file order) and start the clock at the first request."""
    order = sorted(range(len(trace)), key=trace.arrival_s.__getitem__)
    origin = trace.arrival_s[order[0]]
    trace.arrival_s = array("d", [trace.arrival_s[i] - origin for i in order])
    trace.origin_s = origin
    trace.prompt = array("l", [trace.prompt[i] for i in order])
    trace.output = array("l", [trace.output[i] for i in order])
    trace.prefixes = _ordered(trace.prefixes, order)
    trace.models = _ordered(trace.models, order)
    return trace


def _ordered(column: list[Any] | None, order: list[int]) -> list[Any] | None:
    """An optional column in another order; one that some rows lack is dropped."""
    return [column[i] for i in order] if column is not None and len(column) == len(order) else None
