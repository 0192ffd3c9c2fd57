"""Published claims run as ordinary scenarios: predicted beside published, with a verdict that hides nothing.

Verdicts: pass, in band, fail, needs data (only the original data set can score it), not evidence (recalled provenance),
unmapped (no rule knows the setup: counted as a miss), error (a bug of hwsim stopped it: a miss; the others go on).
A claim is judged by its own tolerance; one-sided where its unit says upper or lower bound; an "up to" claim by the best
point of its grid; a claim with unpublished free parameters by the band over them.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hwsim.errors import HwsimError, InputError, LawViolation
from hwsim.schema import claims as schema
from hwsim.schema.claims import Claim, ClaimsFile
from hwsim.validation.claim_metrics import predicted, si
from hwsim.validation.vocabulary import Point, case_of

SCHEMA: Final = "hwsim/reproduction@1"
VERDICTS: Final = ("pass", "in band", "fail", "unmapped", "error", "needs data", "not evidence")
MISSES: Final = ("fail", "unmapped", "error")
Evaluate = Callable[..., Any]


def reproduce(
    claims: Sequence[Claim],
    files: Mapping[str, ClaimsFile],
    evaluate: Evaluate,
    *,
    efficiency: str | None = None,
    runners: Mapping[str, Evaluate] | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """A `hwsim/reproduction@1` document: one row a claim, totals by system.

    Parameters
    ----------
    claims: with their `system`. files: rules by system. evaluate: the public `hwsim.evaluate`, or one like it.
    efficiency: overrides ``calibrated`` of every scenario that does not set its own.
    runners: the other public functions that rules may name: ``simulate``, ``timeline``. note: is told about progress.
    """
    asker = _Asker({"evaluate": evaluate, **(runners or {})}, efficiency)
    rows = []
    for index, claim in enumerate(claims):
        if note is not None:
            note(f"{index:,} of {len(claims):,} claims, {claim.system}: {claim.id}")
        rows.append(_row(claim, files.get(schema.slug(claim.system)), asker))
    systems = list(dict.fromkeys(claim.system for claim in claims))
    return {
        "schema": SCHEMA,
        "rows": rows,
        "systems": [{"system": name, **_totals([r for r in rows if r["system"] == name])} for name in systems],
        "total": _totals(rows),
    }


def select(systems: Sequence[str], path: Path | None = None) -> tuple[list[Claim], dict[str, ClaimsFile]]:
    """Claims of the named systems (all where none is named), of a file or the shipped ones, and the rules to run them.

    Raises UnknownNameError, InputError.
    """
    known = schema.systems()
    if path is None:
        files = {schema.slug(name): schema.load_system(name) for name in (systems or known)}
        return [c.model_copy(update={"system": n}) for n, f in files.items() for c in f.claims], files
    wanted = {schema.slug(name) for name in systems}
    claims = [c for c in schema.load_claims(path) if not wanted or schema.slug(c.system) in wanted]
    names = dict.fromkeys(schema.slug(c.system) for c in claims)
    rules, own = {name: schema.load_system(name) for name in names if name in known}, schema.own_rules(path)
    return claims, rules if own is None else {**rules, schema.slug(own.system): own}


def _row(claim: Claim, file: ClaimsFile | None, asker: _Asker) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": claim.id,
        "system": claim.system,
        "claim": claim.claim,
        "metric": claim.metric,
        "unit": claim.unit,
        "published": claim.published_value,
        "predicted": None,
        "low": None,
        "high": None,
        "relative_error": None,
        "tolerance": claim.tolerance_suggested,
        "kind": claim.kind,
        "provenance": claim.provenance,
        "reason": "",
    }
    if claim.provenance.startswith("recalled"):
        return {**row, "verdict": "not evidence", "reason": "provenance is recalled"}
    if file is None:
        return {**row, "verdict": "unmapped", "reason": "no rules for this system"}
    if claim.metric in file.needs_data:
        return {**row, "verdict": "needs data", "reason": file.needs_data[claim.metric]}
    try:
        return {**row, **judged(claim, _values(claim, file, asker))}
    except Exception as error:  # a bug in one claim must not lose the others
        return {**row, **_stopped(error)}


def _stopped(error: Exception) -> dict[str, str]:
    """Verdict and reason of a claim that gave no number; of a bug, its type and where it happened."""
    if isinstance(error, HwsimError) and not isinstance(error, LawViolation):
        hint = f"; {error.fix}" if error.fix.startswith("did you mean") else ""
        return {"verdict": "unmapped" if error.exit_code == 2 else "fail", "reason": error.what + hint}
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = str(error).partition("\n")[0]
    return {"verdict": "error", "reason": f"{type(error).__name__}: {what} ({Path(last.filename).name}:{last.lineno})"}


def _values(claim: Claim, file: ClaimsFile, asker: _Asker) -> list[float]:
    """The metric in the claim's unit: the best of the settings, once for each value of the unpublished parameters.

    A published range takes the least and the best of the settings.
    """
    case = case_of(claim, file)
    asked, unit = str(claim.setup.get("phase", "")), si(1.0, claim.unit)
    values = []
    for combination in combinations(case.sides):
        sides = [[{**asker.document(point), "asked": asked} for point in grid] for grid in combination]
        found = [value / unit for value in predicted(case.metric, sides)]
        values += sorted({min(found), max(found)}) if isinstance(claim.published_value, list) else [max(found)]
    return values


def combinations(sides: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Free parameters of both sides: paired where they have equally many values (one machine), else crossed."""
    if len(sides) == 2 and len(sides[0]) == len(sides[1]):
        return list(zip(sides[0], sides[1], strict=True))
    return list(itertools.product(*sides))


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks the public functions, each scenario once; a capacity search begins at the last rate found for its model."""

    runners: Mapping[str, Evaluate]
    efficiency: str | None = None
    cache: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def document(self, point: Point) -> Mapping[str, Any]:
        """The document of a point. Raises InputError where nothing answers that kind of question."""
        if point.run not in self.runners:
            raise InputError(f"claims of this kind need hwsim.{point.run}", fix="pass it in `runners`")
        parts = (
            point.run,
            point.workload,
            point.hardware,
            sorted(point.arguments.items()),
            sorted(point.what_if.items()),
        )
        key = repr(parts)
        if key not in self.cache:
            arguments = dict(point.arguments)
            if self.efficiency is not None:
                arguments.setdefault("efficiency", self.efficiency)
            if arguments.get("capacity") and point.workload in self.rates:
                arguments.setdefault("capacity_start", self.rates[point.workload])
            answer = self.runners[point.run](point.workload, point.hardware, what_if=dict(point.what_if), **arguments)
            self.cache[key] = answer.to_dict()
            if "capacity" in self.cache[key]:
                self.rates[point.workload] = float(self.cache[key]["capacity"]["rate_per_s"])
        found: Mapping[str, Any] = self.cache[key]
        return found


def judged(claim: Claim, values: Sequence[float]) -> dict[str, Any]:
    """Prediction, band, error and verdict of a claim.

    Several values are a band over unpublished parameters: the claim must lie inside it. A published range is held
    against the range over the settings, end by end; one setting must fall inside.
    """
    low, high = min(values), max(values)
    published, tolerance = claim.published_value, claim.tolerance_suggested
    if isinstance(published, list):
        return _judged_range(published, low, high, tolerance)
    if len(values) > 1:
        slack = tolerance * abs(published)
        inside = low - slack <= published <= high + slack
        return {"low": low, "high": high, "verdict": "in band" if inside else "fail", "reason": "band, no point"}
    value = values[0]
    error = value - published if published == 0 else value / published - 1
    good = abs(error) <= tolerance
    if "upper bound" in claim.unit or "lower bound" in claim.unit:
        good = error <= tolerance if "upper" in claim.unit else error >= -tolerance
    return {"predicted": value, "relative_error": error, "verdict": "pass" if good else "fail"}


def _judged_range(published: Sequence[float], low: float, high: float, tolerance: float) -> dict[str, Any]:
    if low == high:
        good = published[0] <= low <= published[1]
        return {"predicted": low, "verdict": "pass" if good else "fail", "reason": "one setting of a published range"}
    good = all(abs(x - p) <= tolerance * abs(p) for x, p in zip((low, high), published, strict=True))
    return {"low": low, "high": high, "verdict": "pass" if good else "fail", "reason": "both ends of a range"}


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = {verdict: sum(r["verdict"] == verdict for r in rows) for verdict in VERDICTS}
    good = count["pass"] + count["in band"]
    scored = good + sum(count[verdict] for verdict in MISSES)
    errors = sorted(abs(r["relative_error"]) for r in rows if r["relative_error"] is not None)
    right, pairs = _orderings(rows)
    return {
        **count,
        "scored": scored,
        "pass_rate": good / scored if scored else None,
        "median_error": errors[len(errors) // 2] if errors else None,
        "orderings_right": right,
        "orderings": pairs,
    }


def _orderings(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Pairs of one system, metric and unit whose published values differ by more than 10 %: is the order right?"""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        single = not isinstance(row["published"], list)
        if row["predicted"] is not None and single and "bound" not in row["unit"]:
            groups.setdefault((row["system"], row["metric"], row["unit"]), []).append(row)
    right = pairs = 0
    for group in groups.values():
        for index, a in enumerate(group):
            for b in group[index + 1 :]:
                if max(a["published"], b["published"]) > 1.1 * min(a["published"], b["published"]):
                    pairs += 1
                    right += (a["predicted"] - b["predicted"]) * (a["published"] - b["published"]) > 0
    return right, pairs
