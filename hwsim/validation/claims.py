"""Published claims run as ordinary scenarios: predicted beside published, with a verdict that hides nothing.

Verdicts: pass, in band, fail, needs data (only the original data set can score it), not evidence (recalled provenance),
unmapped (no rule knows the setup: counted as a miss). A claim is judged by its own tolerance; one-sided where its unit
says upper or lower bound; an "up to" claim by the best point of its grid; a claim with unpublished free parameters by
the band over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hwsim.errors import HwsimError, LawViolation
from hwsim.schema import claims as schema
from hwsim.schema.claims import Claim, ClaimsFile
from hwsim.validation.claim_metrics import predicted, si
from hwsim.validation.vocabulary import Point, case_of

SCHEMA: Final = "hwsim/reproduction@1"
VERDICTS: Final = ("pass", "in band", "fail", "unmapped", "needs data", "not evidence")
Evaluate = Callable[..., Any]


def reproduce(
    claims: Sequence[Claim], files: Mapping[str, ClaimsFile], evaluate: Evaluate, *, efficiency: str | None = None
) -> dict[str, Any]:
    """A `hwsim/reproduction@1` document: one row a claim, totals by system.

    Parameters
    ----------
    claims: with their `system`. files: rules by system. evaluate: the public `hwsim.evaluate`, or one like it.
    efficiency: overrides ``calibrated`` of every scenario that does not set its own.
    """
    cache: dict[str, Any] = {}
    rows = [_row(claim, files.get(claim.system), evaluate, efficiency, cache) for claim in claims]
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
        files = {name: schema.load_system(name) for name in (systems or known)}
        return [c.model_copy(update={"system": n}) for n, f in files.items() for c in f.claims], files
    claims = [c for c in schema.load_claims(path) if not systems or c.system in systems]
    names = dict.fromkeys(c.system for c in claims)
    return claims, {name: schema.load_system(name) for name in names if name in known}


def _row(
    claim: Claim, file: ClaimsFile | None, evaluate: Evaluate, efficiency: str | None, cache: dict[str, Any]
) -> dict[str, Any]:
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
        values = _values(claim, file, evaluate, efficiency, cache)
    except LawViolation:
        raise
    except HwsimError as error:
        return {**row, "verdict": "unmapped" if error.exit_code == 2 else "fail", "reason": error.what}
    return {**row, **judged(claim, values)}


def _values(
    claim: Claim, file: ClaimsFile, evaluate: Evaluate, efficiency: str | None, cache: dict[str, Any]
) -> list[float]:
    """The metric in the claim's unit: the best of the settings, once for each value of the unpublished parameters."""
    case = case_of(claim, file)
    asked, unit = str(claim.setup.get("phase", "")), si(1.0, claim.unit)
    values = []
    for combination in combinations(case.sides):
        sides = [
            [{**_document(point, evaluate, efficiency, cache), "asked": asked} for point in grid]
            for grid in combination
        ]
        values.append(max(predicted(case.metric, sides)) / unit)
    return values


def combinations(sides: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Free parameters of both sides: paired where they have equally many values (one machine), else crossed."""
    if len(sides) == 2 and len(sides[0]) == len(sides[1]):
        return list(zip(sides[0], sides[1], strict=True))
    return list(itertools.product(*sides))


def _document(point: Point, evaluate: Evaluate, efficiency: str | None, cache: dict[str, Any]) -> Mapping[str, Any]:
    key = repr((point.workload, point.hardware, sorted(point.arguments.items()), sorted(point.what_if.items())))
    if key not in cache:
        arguments = dict(point.arguments)
        if efficiency is not None:
            arguments.setdefault("efficiency", efficiency)
        cache[key] = evaluate(point.workload, point.hardware, what_if=dict(point.what_if), **arguments).to_dict()
    found: Mapping[str, Any] = cache[key]
    return found


def judged(claim: Claim, values: Sequence[float]) -> dict[str, Any]:
    """Prediction, band, error and verdict of a claim.

    Several values are a band over unpublished parameters: the claim must lie inside it.
    """
    low, high = min(values), max(values)
    published, tolerance = claim.published_value, claim.tolerance_suggested
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


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = {verdict: sum(r["verdict"] == verdict for r in rows) for verdict in VERDICTS}
    good = count["pass"] + count["in band"]
    scored = good + count["fail"] + count["unmapped"]
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
        if row["predicted"] is not None and "bound" not in row["unit"]:
            groups.setdefault((row["system"], row["metric"], row["unit"]), []).append(row)
    right = pairs = 0
    for group in groups.values():
        for index, a in enumerate(group):
            for b in group[index + 1 :]:
                if max(a["published"], b["published"]) > 1.1 * min(a["published"], b["published"]):
                    pairs += 1
                    right += (a["predicted"] - b["predicted"]) * (a["published"] - b["published"]) > 0
    return right, pairs
