"""Tasks as CSV text or a pandas frame: SI numbers, unit in the column name, none in the cells."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from hwsim.errors import MissingExtraError
from hwsim.report.rows import Document, task_rows

COLUMNS: Final = ("phase", "name", "kind", "count", "time_s", "share", "floor_s", "flop", "bytes", "energy_j", "bound")
# A leading character that a spreadsheet would run as a formula
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_text(document: Document) -> str:
    """CSV with one row a task; text cells cannot start a spreadsheet formula."""
    return to_csv([{name: getattr(row, name) for name in COLUMNS} for row in task_rows(document)], COLUMNS)


def to_csv(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """CSV text of records, text cells guarded against formula injection."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([guard(record[name]) for name in columns])
    return buffer.getvalue()


def guard(cell: Any) -> Any:
    """Prefix a quote to text that a spreadsheet would evaluate."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def task_frame(document: Document) -> Any:
    """A pandas frame with the columns of `COLUMNS`. Raises MissingExtraError."""
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("pandas", "df", "to_frame()") from None
    return pandas.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in task_rows(document)])


def comparison_csv(comparison: Document) -> str:
    """One row a machine and metric; a machine that cannot run the workload has one row with the reason."""
    records: list[dict[str, Any]] = []
    columns = ("hardware", "metric", "value", "low", "high", "floor", "ceiling", "note")
    empty = dict.fromkeys(columns, "")
    for column in comparison["columns"]:
        name = column["hardware"]["name"]
        if "infeasible" in column:
            records.append({**empty, "hardware": name, "note": column["infeasible"].split("\n")[0]})
            continue
        records += [{**empty, "hardware": name, "metric": metric, **ends} for metric, ends in column["metrics"].items()]
    return to_csv(records, columns)
