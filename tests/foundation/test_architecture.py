"""The import rules of docs/architecture.md, held by walking the syntax trees; and the shape of the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hwsim.cli.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hwsim"
# A room may import rooms before it in this list.
ORDER = (
    "units",
    "errors",
    "laws",
    "ir",
    "schema",
    "content",
    "frontends",
    "cost",
    "mapping",
    "engine",
    "serving",
    "validation",
    "explore",
    "report",
    "api",
    "cli",
)
# Small knots inside one level of the list: schema files are found through content, errors serve everyone.
TOGETHER = {"units": {"errors"}, "schema": {"content"}, "content": {"schema"}}
# report reads result documents only; api lies above everything but the command line.
NEVER = {
    "report": {"cost", "engine", "mapping", "serving", "validation", "frontends", "schema"},
    "cost": {"mapping", "engine"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """First-level rooms of hwsim that a file imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [module] if module != "hwsim" else [f"hwsim.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("hwsim.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    here = room(path)
    if here in ("__init__", "__main__", "testing", "_content"):
        return
    allowed = set(ORDER[: ORDER.index(here) + 1]) | TOGETHER.get(here, set()) | {"__version__"}
    wrong = (imports(path) - allowed) | (imports(path) & NEVER.get(here, set()))
    assert not wrong, f"{path.relative_to(ROOT)} ({here}) imports {sorted(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_print_outside_the_command_line_and_no_global(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"{path}:{node.lineno} global statement"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert room(path) == "cli", f"{path}:{node.lineno} print outside the CLI"


@pytest.mark.parametrize("path", sorted((ROOT / "mappers").glob("*.py")), ids=lambda p: p.name)
def test_mappers_use_only_the_public_names_of_mapping(path: Path) -> None:
    assert imports(path) <= {"mapping"}, f"{path.name} imports {sorted(imports(path))}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_functions_and_parameter_lists_are_short(path: Path) -> None:
    """At most 400 lines a file, 60 a function, 7 parameters."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"
            assert count <= 7, f"{node.name} takes {count}"


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions and for type checkers count too."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    needs: dict[str, set[str]] = {}
    for path in FILES:
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & names) or ({node.module} & names)
        needs[here] = set() if path.name == "__init__.py" else found - {here}
    while free := {name for name, used in needs.items() if not used & needs.keys()}:
        needs = {name: used for name, used in needs.items() if name not in free}
    assert not needs, f"circles among {sorted(needs)}"


def test_the_extras_that_messages_name_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in text for extra in EXTRAS.values())
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                extra = node.args[1]
                assert isinstance(extra, ast.Constant) and f"\n{extra.value} = [" in text, path


def test_ir_knows_neither_pydantic_nor_files() -> None:
    for path in (PACKAGE / "ir").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pydantic" not in text and "open(" not in text, path


def test_no_peer_or_machine_path_is_named() -> None:
    """Shipped files name no path of a developer's machine."""
    for folder in ("hwsim", "hardware", "workloads", "mappers", "reports", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".md", ".j2", ".css"):
                assert "/work/" not in path.read_text(encoding="utf-8"), path
