"""`hwsim show NAME`: one catalog entry, its numbers with their sources."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim import content
from hwsim.cli import options as o
from hwsim.errors import unknown_name

_KINDS = ("accelerator", "node", "cluster", "memory", "model", "price", "mapper", "calibration", "scenario")


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Any catalog entry, alias or file.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the file with extends merged in, as YAML.")
    ] = False,
    kind: Annotated[str | None, typer.Option("--kind", help="Look only among this kind of content.")] = None,
    format_: o.Format = "table",
) -> None:
    """What a name means: the resolved view, with the source of every number."""
    form = o.check_format(format_, ("table", "json"))
    entry = _entry(name, kind)
    if entry.via:
        o.note(f"{name} is an alias of {entry.name}")
    if resolved:
        o.emit(_yaml(entry), None)
        return
    facts = _facts(entry)
    o.emit(o.to_json(facts) if form == "json" else _text(facts), None)


def _entry(name: str, kind: str | None) -> content.Entry:
    """The catalog entry; the file's own `schema:` key decides the kind of a path."""
    if kind is not None and kind not in content.KINDS:
        raise unknown_name("kind of content", kind, content.KINDS, where="--kind")
    kinds = (kind,) if kind is not None else _KINDS
    entry = content.resolve(name, *kinds)
    if entry.path.suffix not in (".yaml", ".yml"):
        return entry
    from hwsim.schema.reader import read

    data = read(entry.path).data
    schema = str(data.get("schema", "")) if isinstance(data, dict) else ""
    actual = schema.removeprefix("hwsim/").partition("@")[0].removesuffix("s")
    return content.Entry(actual if actual in content.KINDS else entry.kind, entry.name, entry.path, entry.via)


def _yaml(entry: content.Entry) -> str:
    if entry.kind != "accelerator":
        return entry.path.read_text(encoding="utf-8")
    from hwsim.schema.loader import resolved_accelerator
    from hwsim.schema.writer import to_yaml

    return to_yaml(resolved_accelerator(str(entry.path)))


def _facts(entry: content.Entry) -> dict[str, Any]:
    if entry.kind == "accelerator":
        return _accelerator(entry)
    if entry.kind == "model":
        return _model(entry)
    if entry.kind == "mapper" or entry.path.suffix == ".py":
        import ast

        text = ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8"))) or ""
        return {"kind": "mapper", "name": entry.name, "about": text}
    from hwsim.schema.reader import read

    return {"kind": entry.kind, **dict(read(entry.path).data)}


def _accelerator(entry: content.Entry) -> dict[str, Any]:
    from hwsim.schema.accelerator import AcceleratorFile, citation, quantity_paths
    from hwsim.schema.base import validate
    from hwsim.schema.loader import load_accelerator, resolved_accelerator
    from hwsim.schema.reader import Document

    data = resolved_accelerator(str(entry.path))
    file = validate(AcceleratorFile, Document(data, entry.path))
    device, _ = load_accelerator(str(entry.path))
    numbers = {
        path: {"value": _lookup(data, path), "source": citation(path, file.sources)} for path in quantity_paths(file)
    }
    calibration = "none" if device.calibration is None else f"{device.calibration.name} ({device.calibration.kind})"
    head = {"kind": "accelerator", "name": file.name, "title": file.title, "family": file.kind, "status": file.status}
    return {**head, "aliases": list(file.aliases), "calibration": calibration, "notes": file.notes, "numbers": numbers}


def _lookup(data: Any, path: str) -> Any:
    """Value of a dotted path in the file's plain data; list items go by name or unit.dtype."""
    here, parts = data, path.split(".")
    while parts:
        if isinstance(here, list):
            here, used = _item(here, parts)
            parts = parts[used:]
        else:
            here = here.get(parts[0]) if isinstance(here, dict) else None
            parts = parts[1:]
    return here


def _item(items: list[Any], parts: list[str]) -> tuple[Any, int]:
    for index, item in enumerate(items):
        if isinstance(item, dict) and "dtype" in item and parts[:2] == [item.get("unit"), item["dtype"]]:
            return item, 2
        if isinstance(item, dict) and item.get("name") == parts[0]:
            return item, 1
        if str(index) == parts[0]:
            return item, 1
    return None, len(parts)


def _model(entry: content.Entry) -> dict[str, Any]:
    from hwsim.frontends.catalog import resolve_model

    model = resolve_model(str(entry.path)).model
    facts: dict[str, Any] = {
        "kind": "model",
        "name": model.name,
        "title": model.spec.title,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
    }
    if "decode" in model.phases:
        facts["kv_bytes_per_token_16bit"] = model.kv_bytes_per_token("bf16")
    shape = model.spec.model_dump(exclude_unset=True, by_alias=True)
    return {**facts, **{key: value for key, value in shape.items() if key not in ("name", "title", "schema")}}


def _text(facts: dict[str, Any]) -> str:
    from hwsim.report.table import grid, render

    numbers = facts.get("numbers")
    plain = {k: v for k, v in facts.items() if k != "numbers" and v not in ("", [], None)}
    parts: list[Any] = [f"{key}: {_show(value)}" for key, value in plain.items()]
    if isinstance(numbers, dict):
        body = [(path, str(entry["value"]), entry["source"]) for path, entry in numbers.items()]
        parts += ["", grid(("number", "value", "source"), body, (0, 2))]
    return render(*parts)


def _show(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return str(value)
