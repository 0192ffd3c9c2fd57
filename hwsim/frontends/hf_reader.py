"""Strict reading of foreign JSON: sizes capped, NaN and duplicate keys refused, every value typed and bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError, nearest

# The largest published config.json (a vision model that lists 21,000 class names) is below 2 MB
MAX_CONFIG_BYTES: Final = 4_000_000
MAX_COUNT: Final = 10_000_000
_MISSING: Final = object()


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError: unreadable, too large, malformed, NaN, duplicate keys."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError("file is too large", where=str(path), seen=f"{size} bytes", fix=f"at most {limit} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise InputError("cannot read the file", where=str(path), seen=error.strerror or str(error)) from None
    return parse_json(text, str(path))


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """As `read_json`, of bytes; `where` names them in messages. Raises InputError."""

    def constant(name: str) -> Any:
        raise InputError("numbers must be finite", where=where, seen=name, fix="write a finite value")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"duplicate key {twice[:60]!r}", where=where, fix="keep one of the two")
        return out

    try:
        data = json.loads(text.decode("utf-8"), parse_constant=constant, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise InputError("malformed JSON", where=f"{where}:{error.lineno}", seen=error.msg) from None
    except RecursionError:
        raise InputError("nested too deeply", where=where, fix="a model configuration is a flat object") from None
    except ValueError as error:  # not UTF-8, or a number of more digits than Python converts
        raise InputError("malformed JSON", where=where, seen=str(error)[:80]) from None
    if not isinstance(data, dict):
        raise InputError("the file must hold a JSON object", where=where, seen=type(data).__name__)
    return data


@dataclass(frozen=True, slots=True)
class Config:
    """Typed access to a JSON object. Each getter takes alternative names of one key, first found wins.

    Without a default the key is required. A key that holds null counts as absent. All raise InputError with key path.
    """

    data: dict[str, Any]
    where: str
    path: str = ""

    def at(self, key: str) -> str:
        return f"{self.where} {self.path}{key}"

    def _find(self, keys: tuple[str, ...], default: Any) -> tuple[str, Any]:
        for key in keys:
            if self.data.get(key) is not None:
                return key, self.data[key]
        if default is _MISSING:
            close = nearest(keys[0], [key for key, value in self.data.items() if value is not None])
            fix = f"did you mean {close[0]!r}?" if close else f"add {keys[0]!r}; it is never guessed"
            raise InputError(f"missing key {keys[0]!r}", where=self.at(keys[0]), seen="(absent)", fix=fix)
        return keys[0], default

    def count(self, *keys: str, default: Any = _MISSING, least: int = 1) -> int:
        """A whole number between `least` and ten million."""
        key, value = self._find(keys, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{key} must be a whole number", where=self.at(key), seen=repr(value)[:60])
        if not least <= value <= MAX_COUNT:
            raise InputError(f"{key} must be {least} to {MAX_COUNT}", where=self.at(key), seen=str(value)[:60])
        return value

    def flag(self, *keys: str, default: Any = _MISSING) -> bool:
        key, value = self._find(keys, default)
        if not isinstance(value, bool):
            raise InputError(f"{key} must be true or false", where=self.at(key), seen=repr(value)[:60])
        return value

    def fraction(self, *keys: str, default: float) -> float:
        """A number above 0 and at most 1."""
        key, value = self._find(keys, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not 0 < value <= 1
        ):
            raise InputError(f"{key} must be a number in (0, 1]", where=self.at(key), seen=repr(value)[:60])
        return float(value)

    def word(self, *keys: str, known: Collection[str], default: Any = _MISSING) -> str:
        """One of `known` words."""
        key, value = self._find(keys, default)
        if not isinstance(value, str) or value not in known:
            close = nearest(str(value)[:80], known)
            fix = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(sorted(known)[:12])
            raise InputError(f"unknown {key}", where=self.at(key), seen=repr(value)[:60], fix=fix)
        return value

    def items(self, key: str) -> list[Any] | None:
        """A list, or None where absent."""
        value = self.data.get(key)
        if value is not None and (not isinstance(value, list) or len(value) > 1000):
            raise InputError(f"{key} must be a list of at most 1000 items", where=self.at(key), seen=repr(value)[:60])
        return value

    def section(self, key: str) -> Config:
        value = self.data.get(key)
        if not isinstance(value, dict):
            raise InputError(f"missing section {key!r}", where=self.at(key), seen=repr(value)[:60])
        return Config(value, self.where, f"{self.path}{key}.")

    def require(self, condition: bool, what: str, key: str) -> None:
        """Refuse a shape that hwsim cannot describe, rather than describe another one."""
        if not condition:
            seen = repr(self.data.get(key))[:60]
            raise InputError(
                what, where=self.at(key), seen=seen, fix="write a model file by hand: docs/recipes/model.md"
            )
