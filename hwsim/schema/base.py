"""The strict pydantic base, quantity field types, and the translation of validation errors for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from hwsim import units
from hwsim.errors import InputError, UnitError, nearest
from hwsim.schema.reader import Document, KeyPath

ModelT = TypeVar("ModelT", bound="Strict")


class Strict(BaseModel):
    """Base of every file model: unknown keys, NaN and infinity are errors; instances are frozen."""

    # validators are built when a model is first used: a run needs few of them
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, validate_default=False, defer_build=True
    )


def _quantity(dimension: str, positive: bool) -> Callable[[object], float]:
    def convert(value: object) -> float:
        try:
            number = units.parse(value, dimension)
        except UnitError as error:
            raise PydanticCustomError("unit", "{what}", {"what": error.what, "fix": error.fix}) from None
        if number < 0 or (positive and number == 0):
            bound = "> 0" if positive else ">= 0"
            raise PydanticCustomError(
                "range", "{what}", {"what": f"{dimension} must be {bound}", "fix": "check the sign"}
            )
        return number

    return convert


# Float fields in SI that are written as quantity strings in the file.
Time = Annotated[float, BeforeValidator(_quantity("time", positive=False))]
Bytes = Annotated[float, BeforeValidator(_quantity("bytes", positive=True))]
Bandwidth = Annotated[float, BeforeValidator(_quantity("bytes_per_s", positive=True))]
FlopRate = Annotated[float, BeforeValidator(_quantity("flop_per_s", positive=True))]
Frequency = Annotated[float, BeforeValidator(_quantity("frequency", positive=True))]
PowerW = Annotated[float, BeforeValidator(_quantity("power", positive=False))]
EnergyPerByte = Annotated[float, BeforeValidator(_quantity("energy_per_byte", positive=False))]
EnergyPerFlop = Annotated[float, BeforeValidator(_quantity("energy_per_flop", positive=False))]
Area = Annotated[float, BeforeValidator(_quantity("area", positive=True))]
Length = Annotated[float, BeforeValidator(_quantity("length", positive=True))]
Usd = Annotated[float, BeforeValidator(_quantity("usd", positive=False))]
UsdPerS = Annotated[float, BeforeValidator(_quantity("usd_per_s", positive=False))]
UsdPerJ = Annotated[float, BeforeValidator(_quantity("usd_per_j", positive=False))]
Count = Annotated[int, Field(gt=0, le=10**9)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]*$")]
Fraction01 = Annotated[float, Field(gt=0, le=1, strict=False)]


def validate(model: type[ModelT], document: Document, data: Any = None) -> ModelT:
    """Check plain data against a file model.

    Raises
    ------
    InputError: every problem of the file at once, each with file:line, key path, value and what to do.
    """
    payload = document.data if data is None else data
    if not isinstance(payload, dict):
        raise InputError(
            f"the file must hold a mapping of keys, not {type(payload).__name__}",
            where=document.where(()),
            seen=repr(payload)[:60],
            fix=f"start it with: schema: {schema_id(model)}",
        )
    _refuse_other_kind(payload, document, schema_id(model))
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise translate(error.errors(include_url=False), document, model) from None


def _refuse_other_kind(payload: dict[Any, Any], document: Document, wanted: str) -> None:
    """A good file of another kind is one mistake, not twenty."""
    given = payload.get("schema")
    if not isinstance(given, str) or not given.startswith("hwsim/"):
        return
    kinds = [name.removeprefix("hwsim/").partition("@")[0] for name in (given, wanted)]
    if nearest(kinds[0], kinds[1:]):  # the same, or a slip of the pen
        return
    raise InputError(
        "the file is of another kind",
        where=document.where(("schema",)),
        seen=given[:80],
        fix=f"name a file with schema: {wanted}",
    )


def schema_id(model: type[BaseModel]) -> str:
    """The value that the file's ``schema:`` key must have, e.g. ``hwsim/accelerator@1``."""
    field = model.model_fields.get("schema_") or model.model_fields.get("schema")
    return str(getattr(field.annotation, "__args__", ("?",))[0]) if field is not None else "?"


def translate(errors: list[ErrorDetails], document: Document, model: type[BaseModel]) -> InputError:
    """Turn pydantic's error list into one InputError: the first in four lines, the others a line each."""
    problems = [_problem(e, document, model) for e in errors[:20]]
    what, where, seen, fix = problems[0]
    also = "".join(f"\n  also:  {w} at {at} (value: {v}; {hint})" for w, at, v, hint in problems[1:])
    count = f" ({len(errors)} problems in this file)" if len(errors) > 1 else ""
    return InputError(what + count, where=where, seen=seen, fix=fix + also)


def _problem(error: ErrorDetails, document: Document, model: type[BaseModel]) -> tuple[str, str, str, str]:
    loc: KeyPath = _key_path(error["loc"], document.data)
    context = error.get("ctx") or {}
    fix = str(context.get("fix", ""))
    seen = str(context.get("seen") or repr(error.get("input"))[:80])
    if not loc and isinstance(error.get("input"), dict):  # a rule over several keys: the whole file says nothing
        seen = str(context.get("seen", ""))
        loc = (str(context["key"]),) if "key" in context else ()
    kind, key = error["type"], str(loc[-1]) if loc else ""
    if kind == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        close = nearest(key, known)
        hint = f"did you mean {close[0]!r}?" if close else "known keys: " + ", ".join(known)
        return f"unknown key {key!r}", document.where(loc), seen, hint
    if kind == "missing":
        return f"missing key {key!r}", document.where(loc[:-1]), "(absent)", fix or f"add {key}: ..."
    if kind == "literal_error":
        expected = str(context.get("expected", ""))
        close = nearest(str(error.get("input")), expected.replace("'", "").replace(" or ", ", ").split(", "))
        return (
            f"unknown value for {key!r}",
            document.where(loc),
            seen,
            (f"did you mean {close[0]!r}? " if close else "") + f"one of {expected}",
        )
    return error["msg"], document.where(loc), seen, fix or "see `hwsim show` of a shipped file of this kind"


def _key_path(loc: tuple[int | str, ...], data: Any) -> KeyPath:
    """Keep only the parts of pydantic's location that exist in the data (it adds union and function tags)."""
    out: list[str | int] = []
    here = data
    for index, part in enumerate(loc):
        if isinstance(here, dict) and (part in here or index == len(loc) - 1):
            out.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            out.append(part)
            here = here[part]
    return tuple(out)


def _known_keys(model: type[BaseModel], prefix: KeyPath) -> list[str]:
    """Keys that the model at `prefix` accepts; walks fields, lists and dictionaries of models."""
    here: Any = model
    for part in prefix:
        if isinstance(part, int):
            continue
        field = _fields(here).get(str(part))
        if field is not None:
            here = _inner_model(field.annotation) or here
        elif not hasattr(here, "model_fields"):
            break
    return sorted(_fields(here))


def _fields(model: Any) -> dict[str, Any]:
    return {(f.alias or n): f for n, f in getattr(model, "model_fields", {}).items()}


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
