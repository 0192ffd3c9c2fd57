"""Pages and docstrings that name code, files and options which do not exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from hwsim.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [*sorted((ROOT / "hwsim").rglob("*.py")), *sorted((ROOT / "mappers").glob("*.py"))]


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or a member of one (annotated fields count)."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if part in getattr(found, "__annotations__", {}):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_names_of_code_exist() -> None:
    pattern = re.compile(r"`(hwsim(?:\.\w+)+)`")
    named = {(m[1], p) for p in (*PAGES, *SOURCES) for m in pattern.finditer(p.read_text(encoding="utf-8"))}
    assert len(named) > 50
    wrong = sorted(f"{path.relative_to(ROOT)}: {name}" for name, path in named if not _exists(name))
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def _commands() -> list[tuple[str, str]]:
    """(page, command line) of everything that a page tells to type: blocks, and code in the text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(?:\s*\$ |\s*)(hwsim [a-z].*)$", text, re.M) + re.findall(r"`(hwsim [a-z][^`]*)`", text)
        found += [(str(page.relative_to(ROOT)), line.split("  #")[0]) for line in lines]
    return found


def _options(arguments: list[str]) -> set[str]:
    """Options of the verb that the arguments start with."""
    command: Any = main._load(arguments[0], arguments[1:])
    if hasattr(command, "list_commands") and len(arguments) > 1:
        from hwsim.cli.validate import _load

        command = _load(arguments[1])
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_commands_have_the_options_that_pages_give_them() -> None:
    commands = [(page, line) for page, line in _commands() if line.split()[1] in main.VERBS]
    assert len(commands) > 60
    for page, line in commands:
        given = re.findall(r"(?<=\s)(--?[a-z][\w-]*)", re.sub(r"\"[^\"]*\"", "", line))
        arguments = [word.strip("[]") for word in line.split()[1:]]
        unknown = set(given) - _options(arguments) - {"--help", "-h"}
        assert not unknown, f"{page}: {line}: {sorted(unknown)}"
