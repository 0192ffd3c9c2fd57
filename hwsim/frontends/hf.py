"""Import of HF ``config.json`` and of safetensors headers: plain JSON only, no weights, no code, no network."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError, nearest
from hwsim.frontends.hf_families import FAMILIES
from hwsim.frontends.hf_reader import Config, read_json
from hwsim.schema.base import validate
from hwsim.schema.model import ModelSpec
from hwsim.schema.reader import Document

_NOT_NAME: Final = re.compile(r"[^a-z0-9._+-]+")
_GENERIC: Final = frozenset({"", "config", "hf", "main", "model", "tmp"})
_PLAIN_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9 ._/+()-]*\Z")
_YAML_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"})


def import_config(path: Path, name: str | None = None) -> ModelSpec:
    """The model that an HF ``config.json`` describes.

    The name is `name`, else the last part of ``_name_or_path``, else the folder of the file.

    Raises
    ------
    InputError: unreadable, malformed, a family that is not known (the nearest are named), a missing or impossible
        value (with its key path), or a shape that hwsim cannot describe. Never a guess.
    """
    data = read_json(path)
    config = Config(data, str(path))
    shape = _family(config)(config)
    title = name or _title(data, path)
    fields = {"schema": "hwsim/model@1", "name": _clean(title), "title": title[:120], "aliases": [], **shape}
    if title == "imported":
        fields["title"] = f"Imported {data['model_type']} model"
    fields["source"] = f"HF config.json (model_type {data['model_type']})"
    quantized = data.get("quantization_config")
    if isinstance(quantized, dict):
        method = str(quantized.get("quant_method", "some format"))[:20]
        note = f"The checkpoint is quantized ({method}); number formats are chosen by --weights, not read from it."
        fields["notes"] = f"{fields.get('notes', '')} {note}".strip()
    fields["imported_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return validate(ModelSpec, Document(fields, path), fields)


def _family(config: Config) -> Any:
    kind = config.data.get("model_type")
    found = FAMILIES.get(kind) if isinstance(kind, str) else None
    if found is not None:
        return found
    close = nearest(kind, FAMILIES) if isinstance(kind, str) else []
    known = "known: " + ", ".join(sorted(FAMILIES))
    fix = f"nearest families: {', '.join(close)}; {known}" if close else known
    what = f"unknown model family {kind[:60]!r}" if isinstance(kind, str) else "missing key 'model_type'"
    raise InputError(what, where=config.at("model_type"), seen=repr(kind)[:60], fix=fix)


def _title(data: dict[str, Any], path: Path) -> str:
    """A name for people: what the file calls itself, else its folder."""
    stated = data.get("_name_or_path")
    candidates = [stated.rstrip("/").split("/")[-1]] if isinstance(stated, str) else []
    candidates += [path.stem, path.resolve().parent.name]
    return next((c for c in candidates if c.lower() not in _GENERIC and _clean(c)), "imported")


def _clean(name: str) -> str:
    return _NOT_NAME.sub("-", name.lower()).strip("-._+")[:80]


def to_yaml(spec: ModelSpec) -> str:
    """A model file that reads back as `spec`: one key a line, defaults left out, sections inline."""
    fields = spec.model_dump(by_alias=True, exclude_defaults=True, exclude_none=True)
    order = ["schema", "name", "title", "aliases", "arch"]
    keys = [k for k in order if k in fields] + [k for k in fields if k not in order]
    return "".join(f"{key}: {_scalar(fields[key])}\n" for key in keys)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        plain = _PLAIN_WORD.match(value) and value.lower() not in _YAML_WORDS and not value.endswith(" ")
        return value if plain else json.dumps(value)
    return str(value)
