"""The one strict YAML reader: YAML 1.2, one document, positions kept, hostile input refused.

Builds plain data from parser events in one pass without recursion. Refuses duplicate keys, tags, non-finite
numbers, aliases beyond 50, depth beyond 64, files beyond 1 MB and expansions beyond 100,000 nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 50
MAX_NODES: Final = 100_000
MAX_OPEN_BRACKETS: Final = 256
"""Open brackets counted without regard to quotes, so well above MAX_DEPTH."""

KeyPath = tuple[str | int, ...]

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_OCT_HEX: Final = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and new line
_BRACKET: Final = re.compile(r"[\[\]{}]")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")


@dataclass(slots=True)
class Document:
    """Plain data of a file and the line of every key path in it."""

    data: Any
    path: Path
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, key_path: KeyPath) -> str:
        """``file:line key.path[0]`` of the longest known prefix of `key_path`."""
        prefix = key_path
        while prefix and prefix not in self.lines:
            prefix = prefix[:-1]
        line = self.lines.get(prefix, 1)
        dotted = render_path(key_path)
        return f"{self.path}:{line}" + (f" {dotted}" if dotted else "")


def render_path(key_path: KeyPath) -> str:
    """``("memories", 0, "size")`` as ``memories[0].size``."""
    text = ""
    for part in key_path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def read(path: Path) -> Document:
    """Read one YAML file into plain data. A file that has not changed is read once; callers do not change the data.

    Raises
    ------
    InputError: unreadable, not UTF-8, too large, malformed, hostile, or with a duplicate key; names file:line.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return parse(_text(path), path)
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, modified_ns: int, size: int) -> Document:
    return parse(_text(path), path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                "file is too large", where=str(path), seen=f"{path.stat().st_size} bytes", fix="at most 1 MB"
            )
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "file is not UTF-8 text", where=str(path), seen=str(error)[:80], fix="save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError("cannot read the file", where=str(path), seen=error.strerror or str(error)) from None


def parse(text: str, path: Path) -> Document:
    """Parse YAML text; `path` only names it in messages. Raises InputError."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    _refuse_bracket_towers(text, path)
    builder = _Builder(path)
    try:
        for event in _events(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise InputError(
            "malformed YAML",
            where=f"{path}{line}",
            seen=str(error.problem or error)[:120],
            fix="check the indentation and quotes here",
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            "malformed YAML",
            where=f"{path}:{_line_of(error, text, builder)}",
            seen=str(error).split("\n")[0][:120],
            fix="remove or quote what stands here",
        ) from None
    return Document(builder.root, path, builder.lines)


def _events(text: str) -> Iterator[Any]:
    """Parser events: of libyaml where its binding is there (14 times faster), else of the pure Python parser.

    Both give the same events; values are resolved by this module alone, so that neither decides what `no` means.
    """
    try:
        from _ruamel_yaml import CParser
    except ImportError:
        from ruamel.yaml import YAML

        yield from YAML(typ="safe", pure=True).parse(text)
        return
    parser = CParser(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()


def _refuse_bracket_towers(text: str, path: Path) -> None:
    """Stop a tower of open brackets before the scanner, which looks far ahead at each, takes seconds over it."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match.group() in "[{" else max(depth - 1, 0)
        if depth > MAX_OPEN_BRACKETS:
            line = text.count("\n", 0, match.start()) + 1
            raise InputError(
                "nested too deeply",
                where=f"{path}:{line}",
                seen=f"more than {MAX_DEPTH} levels",
                fix="close the brackets",
            )


def _line_of(error: Exception, text: str, builder: _Builder) -> int:
    """Line of an error that carries no mark: of the refused character, else of the last event taken."""
    character = getattr(error, "character", None)
    if isinstance(character, int | str):
        refused = text.find(character if isinstance(character, str) else chr(character))
        return text.count("\n", 0, max(refused, 0)) + 1
    return builder.line


class _Builder:
    """Builds the tree event by event. A frame is [container, its key path, pending key or next index]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {}
        self.line = 1
        self._stack: list[list[Any]] = []
        self._anchors: dict[str, Any] = {}
        self._aliases = self._nodes = self._documents = 0

    def take(self, event: Any) -> None:
        self.line = event.start_mark.line + 1
        handler = getattr(self, "_" + type(event).__name__.removesuffix("Event").lower(), None)
        if handler is not None:
            handler(event)

    def _fail(self, event: Any, what: str, seen: str = "", fix: str = "") -> InputError:
        key_path = render_path(self._stack[-1][1]) if self._stack else ""
        where = f"{self.path}:{event.start_mark.line + 1}" + (f" {key_path}" if key_path else "")
        return InputError(what, where=where, seen=seen, fix=fix)

    def _documentstart(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._fail(event, "more than one YAML document in the file", fix="keep one document a file")

    def _scalar(self, event: Any) -> None:
        self._refuse_tag(event)
        text = event.value
        hidden = _CONTROL.search(text)
        if hidden is not None:  # it would reach terminals and pages with the names and titles of the file
            raise self._fail(event, "control characters are not allowed", repr(hidden.group()), "remove the escape")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame[0], dict) and frame[2] is None:
            self._key(event, text)
            return
        self._add(event, text if event.style else self._plain(event, text))

    def _key(self, event: Any, text: str) -> None:
        container, key_path, _ = self._stack[-1]
        if text in container:
            first = self.lines[(*key_path, text)]
            raise self._fail(event, f"duplicate key {text!r}", f"first on line {first}", "keep one of the two")
        if text == "<<":
            raise self._fail(event, "merge keys are not supported", "<<", "write the keys out, or use extends:")
        self._stack[-1][2] = text
        self.lines[(*key_path, text)] = event.start_mark.line + 1

    def _plain(self, event: Any, text: str) -> Any:
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _NOT_FINITE.match(text):
            raise self._fail(event, "numbers must be finite", text, "write a finite value with its unit")
        if len(text) > 400 and text[:1].isdigit():
            raise self._fail(event, "number is too long", text[:40] + "...", "write it in scientific notation")
        if _INT.match(text):
            return int(text.replace("_", ""))
        if _OCT_HEX.match(text):
            return int(text, 0)
        if _FLOAT.match(text):
            value = float(text.replace("_", ""))
            if value in (float("inf"), float("-inf")):
                raise self._fail(event, "number overflows", text[:40], "write a finite value")
            return value
        return text

    def _refuse_tag(self, event: Any) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) not in ("!", "None"):
            raise self._fail(event, "YAML tags are not allowed", str(tag)[:80], "remove the tag")

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._fail(event, "too many YAML aliases", f"more than {MAX_ALIASES}", "write the values out")
        if event.anchor not in self._anchors:
            raise self._fail(event, "unknown YAML alias", f"*{event.anchor}", "define the anchor first")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame[0], dict) and frame[2] is None:
            raise self._fail(event, "an alias cannot be a key", f"*{event.anchor}", "write the key out")
        self._nodes += _size(self._anchors[event.anchor], MAX_NODES)
        self._add(event, self._anchors[event.anchor])

    def _mappingstart(self, event: Any) -> None:
        self._open(event, {})

    def _sequencestart(self, event: Any) -> None:
        self._open(event, [])

    def _open(self, event: Any, container: Any) -> None:
        self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            raise self._fail(event, "nested too deeply", f"more than {MAX_DEPTH} levels")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame[0], dict) and frame[2] is None:
            raise self._fail(event, "keys must be plain words", "a list or mapping as a key")
        key_path = self._add(event, container)
        self._stack.append([container, key_path, None if isinstance(container, dict) else 0])

    def _mappingend(self, event: Any) -> None:
        self._stack.pop()

    _sequenceend = _mappingend

    def _add(self, event: Any, value: Any) -> KeyPath:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._fail(event, "file expands to too many values", f"more than {MAX_NODES}")
        if getattr(event, "anchor", None) is not None and type(event).__name__ != "AliasEvent":
            self._anchors[event.anchor] = value
        if not self._stack:
            self.root = value
            return ()
        frame = self._stack[-1]
        container, key_path, slot = frame
        if isinstance(container, dict):
            container[slot] = value
            frame[2] = None
        else:
            container.append(value)
            self.lines[(*key_path, slot)] = event.start_mark.line + 1
            frame[2] = slot + 1
        return (*key_path, slot)


def _size(value: Any, limit: int) -> int:
    """Number of values below `value`, counted up to `limit`; a self-reference counts as the limit."""
    stack, total = [value], 0
    while stack and total < limit:
        item = stack.pop()
        total += 1
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return total
