"""`hwsim/claims@1`: published results of one system, and the words in which their setups speak of a scenario.

A claims file has `rules` (words of a setup -> hardware, options, what-ifs) and `claims`. A plain list of claims, each
with its `system`, is read too: the rules of that system's shipped file then drive it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hwsim import content
from hwsim.errors import InputError, unknown_name
from hwsim.schema.base import Strict, validate
from hwsim.schema.reader import read

FOLDER = "workloads/scenarios/claims"
Words = list[str]
Values = Annotated[list[Any], Field(min_length=1)]
Number = Annotated[float, Field(strict=False)]
Range = Annotated[list[Number], Field(min_length=2, max_length=2)]


class Rule(Strict):
    """If every word of `words` occurs in one side of the setup (and no word of `without`), the effects apply.

    `metric` and `setup` narrow it. The first `hw` wins; `set` (what-ifs) and `options` add up, earlier rules first;
    a value ``$key`` is what the setup says under that key.
    """

    words: Words = []
    without: Words = []
    metric: Words = []
    setup: dict[str, Any] = {}
    hw: str = ""
    workload: str = ""
    set: dict[str, Any] = {}
    options: dict[str, Any] = {}
    against: str = ""  # the other side, where the setup names one side only
    # public function that answers this side [evaluate]
    run: Literal["", "evaluate", "simulate", "timeline", "pair", "speculate"] = ""
    use: str = ""  # metric of the estimate that the claim's metric means here
    grid: dict[str, Values] = {}  # settings: the best counts ("up to"); of a published range both ends
    free: dict[str, Values] = {}  # unpublished parameters: the claim must lie in the band over them
    source: str = ""


class Claim(Strict):
    """One published number or range [low, high]. `tolerance_suggested` is relative (absolute where the value is 0)."""

    id: str
    system: str = ""
    paper: str = ""
    claim: str
    setup: dict[str, Any] = {}
    setup_recalled_unverified: dict[str, Any] | list[str] | None = None
    metric: str
    published_value: Number | Range
    unit: str = ""
    kind: Literal["absolute", "ratio"] = "absolute"
    provenance: str
    tolerance_suggested: Annotated[float, Field(ge=0, le=10, strict=False)] = 0.2
    notes: str = ""
    note: str = ""


class ClaimsFile(Strict):
    """Rules and claims of one system. `metrics` renames a claim's metric; `needs_data` lists metrics that only the
    original data set can score."""

    schema_: Literal["hwsim/claims@1"] = Field(alias="schema")
    system: str
    title: str
    paper: str
    defaults: dict[str, Any] = {}
    rules: list[Rule] = []
    metrics: dict[str, str] = {}
    needs_data: dict[str, str] = {}
    notes: str = ""
    claims: list[Claim] = []


def systems() -> dict[str, Path]:
    """System name -> its shipped claims file; nearer content folders win."""
    found: dict[str, Path] = {}
    for base in content.search_roots():
        folder = base / FOLDER
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            found.setdefault(path.stem, path)
    return found


def slug(system: str) -> str:
    """File name of a system: ``FlashDecoding++`` -> ``flashdecoding++``, ``NSA/FSA`` -> ``nsa-fsa``."""
    return re.sub(r"[^a-z0-9.+]+", "-", system.lower()).strip("-")


def load_system(name: str) -> ClaimsFile:
    """The claims file of a system. Raises UnknownNameError, InputError."""
    known = systems()
    name = name if name in known else slug(name)
    if name not in known:
        raise unknown_name("system with claims", name, known, fix="`hwsim reproduce` lists the systems")
    return validate(ClaimsFile, read(known[name]))


def own_rules(path: Path) -> ClaimsFile | None:
    """The file itself where it is a `hwsim/claims@1` with rules of its own, else None. Raises InputError."""
    document = read(path)
    if not (isinstance(document.data, dict) and document.data.get("rules")):
        return None
    return validate(ClaimsFile, document)


def load_claims(path: Path) -> list[Claim]:
    """Claims of a file: `hwsim/claims@1`, or a plain list of claims, also under a single key ``claims``.

    Raises InputError.
    """
    document = read(path)
    plain = document.data
    if isinstance(plain, dict) and list(plain) == ["claims"] and isinstance(plain["claims"], list):
        plain = plain["claims"]
    if not plain or (isinstance(plain, dict) and not plain.get("claims", True)):
        raise InputError("the file lists no claims", where=document.where(("claims",)), fix="claims: [{id: ...}]")
    if not isinstance(plain, list):
        file = validate(ClaimsFile, document)
        if not file.claims:
            raise InputError("the file lists no claims", where=document.where(()), fix="claims: [{id: ...}]")
        return [c.model_copy(update={"system": c.system or file.system}) for c in file.claims]
    claims = []
    for index, item in enumerate(plain):
        try:
            claims.append(Claim.model_validate(item))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"claim {index + 1}: {first['msg']}", where=f"{path}: [{index}].{key}", seen=repr(first["input"])[:80]
            ) from None
    return claims
