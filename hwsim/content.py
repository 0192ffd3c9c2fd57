"""Where content lies - shipped in the wheel, in a checkout, or the user's - and how names resolve to files.

A name resolves as: an existing path; a folder of ``HWSIM_PATH``; ``./hardware`` (or ``./workloads``, ``./mappers``);
the shipped content. ``a100.yaml``, ``a100``, any listed alias and a path all work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from hwsim.errors import InputError, UnknownNameError, unknown_name

KINDS: Final = {
    "accelerator": "hardware/accelerators",
    "node": "hardware/nodes",
    "cluster": "hardware/clusters",
    "memory": "hardware/memories",
    "calibration": "hardware/calibrations",
    "price": "hardware/prices",
    "model": "workloads/models",
    "trace": "workloads/traces",
    "scenario": "workloads/scenarios",
    "mapper": "mappers",
    "report": "reports",
}
HARDWARE_KINDS: Final = ("accelerator", "node", "cluster", "memory")
_SUFFIXES: Final = (".yaml", ".yml", ".json", ".py")
# One cheap look at the head of a file finds its aliases; the strict reader checks them when the file is loaded.
_ALIASES: Final = re.compile(r"^aliases:[ \t]*\[([^\]]*)\]", re.MULTILINE)
_SCHEMA: Final = re.compile(r"^schema:[ \t]*hwsim/([a-z]+)@", re.MULTILINE)
_HEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """A content file: its kind, canonical name (file stem), path and the alias that found it (or "")."""

    kind: str
    name: str
    path: Path
    via: str = ""


def root() -> Path:
    """Folder that holds the shipped ``hardware/``, ``workloads/``, ``mappers/`` and ``reports/``."""
    shipped = Path(__file__).parent / "_content"
    return shipped if shipped.is_dir() else Path(__file__).parents[1]


def search_roots() -> list[Path]:
    """Folders searched in order: HWSIM_PATH, the current folder, the shipped content."""
    named = [Path(p) for p in os.environ.get("HWSIM_PATH", "").split(os.pathsep) if p]
    roots: list[Path] = []
    for candidate in (*named, Path.cwd(), root()):
        if candidate not in roots:
            roots.append(candidate)
    return roots


def _files(kind: str) -> Iterator[Path]:
    """Files of `kind`, nearest folder first; a HWSIM_PATH folder may also hold files of several kinds directly."""
    flat = os.environ.get("HWSIM_PATH", "").split(os.pathsep)
    for base in search_roots():
        nested = base / KINDS[kind]
        if nested.is_dir():
            yield from sorted(nested.iterdir())
        elif str(base) in flat and base.is_dir():
            yield from (path for path in sorted(base.iterdir()) if _declares(path, kind))


def _declares(path: Path, kind: str) -> bool:
    """True if a file outside the content folders says that it is of `kind` (mappers are Python, models also JSON)."""
    if path.suffix not in (".yaml", ".yml"):
        return (path.suffix, kind) in ((".py", "mapper"), (".json", "model"))
    match = _SCHEMA.search(_head(path, path.stat().st_mtime_ns))
    return match is not None and match.group(1) in (kind, f"{kind}s")


def normalize(name: str) -> str:
    """Spelling-insensitive form of a name: lower case, one kind of dash, no suffix."""
    stem = name
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.strip().lower().replace("_", "-").replace(" ", "-")


def catalog(kind: str) -> dict[str, Path]:
    """Canonical name -> file of all content of a kind; nearer folders win over shipped ones."""
    found: dict[str, Path] = {}
    for path in _files(kind):
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.startswith(("_", ".")):
            found.setdefault(path.stem, path)
    return found


@lru_cache(maxsize=4096)
def _head(path: Path, stamp: int) -> str:
    """The first 4 KB of a file; `stamp` (its modification time) renews the cache."""
    with path.open("rb") as handle:
        return handle.read(_HEAD_BYTES).decode("utf-8", "replace")


def head_aliases(path: Path) -> tuple[str, ...]:
    """Aliases listed at the head of a content file."""
    match = _ALIASES.search(_head(path, path.stat().st_mtime_ns))
    return tuple(a.strip().strip("'\"") for a in match.group(1).split(",") if a.strip()) if match else ()


def aliases(kind: str) -> dict[str, tuple[str, Path]]:
    """Normalized alias or name -> (spelling, file) of all content of a kind."""
    table: dict[str, tuple[str, Path]] = {}
    for name, path in catalog(kind).items():
        table[normalize(name)] = (name, path)
    for path in catalog(kind).values():
        for alias in head_aliases(path):
            table.setdefault(normalize(alias), (alias, path))
    return table


def resolve(name: str, *kinds: str) -> Entry:
    """Find the file that `name` means, searching `kinds` in order.

    Raises
    ------
    UnknownNameError: nothing carries the name; proposes the nearest names and aliases.
    InputError: the name is a folder or empty.
    """
    if not name or "\0" in name or len(name) > 1000:
        raise InputError(
            f"not a usable name of {_label(kinds)}", seen=repr(name[:60]), fix="`hwsim list` shows the catalog"
        )
    path = Path(name)
    if path.is_dir() and (os.sep in name or path.suffix in _SUFFIXES):
        raise InputError(
            f"{name} is a folder, not a file", where=name, fix="name a file in it, or set HWSIM_PATH to it"
        )
    if path.suffix in _SUFFIXES and _is_file(path):
        return Entry(kinds[0], path.stem, path)
    if os.sep in name and _is_file(path):
        return Entry(kinds[0], path.stem, path)
    wanted = normalize(name)
    known: list[str] = []
    for kind in kinds:
        direct = catalog(kind).get(name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else name)
        if direct is not None:
            return Entry(kind, direct.stem, direct)
        table = aliases(kind)
        if wanted in table:
            spelling, file = table[wanted]
            return Entry(kind, file.stem, file, "" if normalize(file.stem) == wanted else spelling)
        known += [spelling for spelling, _ in table.values()]
    _refuse_shadowed(name, kinds)
    raise unknown_name(_label(kinds), name, known, fix=f"`hwsim list {kinds[0]}` shows the known names")


def _refuse_shadowed(name: str, kinds: tuple[str, ...]) -> None:
    """A nearer file hides the one that carries an alias. Raises UnknownNameError that names the nearer file."""
    for kind in kinds:
        visible = catalog(kind)
        for path in _files(kind):
            nearer = visible.get(path.stem, path)
            if nearer == path or path.suffix not in _SUFFIXES or not path.is_file():
                continue
            if normalize(name) in map(normalize, head_aliases(path)):
                raise UnknownNameError(
                    f"no {_label(kinds)} named {name!r}: a nearer file hides the one that carries this alias",
                    where=str(nearer),
                    seen=f"{nearer.name} without the alias; hidden: {path}",
                    fix=f"mend it (`hwsim check {nearer}`), give it the line aliases: [{name}], or rename it",
                )


def _label(kinds: tuple[str, ...]) -> str:
    if len(kinds) > len(HARDWARE_KINDS):
        return "catalog entry"
    return "hardware" if set(kinds) <= set(HARDWARE_KINDS) else kinds[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
