"""`hwsim check FILE...`: lint the files that hwsim reads: machines, models, prices, serving scenarios, claims; and hold
Python files of mappers, batching policies and routers against their laws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.errors import CheckFailedError, HwsimError, InputError, unknown_name


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="YAML files or folders of them; Python files with a mapper, policy or router (mine.py:Name).",
        ),
    ],
) -> None:
    """Read each file strictly; every problem is named with file, line and key. Exit 2 if a file is bad."""
    found = [path for given in files for path in _expand(given)]
    errors: list[HwsimError] = []
    for path in found:
        try:
            o.emit(f"ok  {path}  {check(path)}", None)
        except HwsimError as error:
            errors.append(error)
            o.note(f"bad {path}\n{error.render()}")
    if errors:
        raise InputError(f"{len(errors)} of {len(found)} files are bad", fix="mend them as said above")


def _expand(path: Path) -> list[Path]:
    if _is_python(path):
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml"))
        if not found:
            raise InputError(
                "no YAML files in the folder", where=str(path), fix="give a YAML file, or a folder that holds some"
            )
        return found
    if not path.exists():
        raise InputError("no such file", where=str(path), fix="give a path to a YAML file or a folder")
    return [path]


def check(path: Path) -> str:
    """Validate one content file by its ``schema:`` key; returns the schema. Raises InputError."""
    from hwsim.schema.reader import read

    if _is_python(path):
        return _python(str(path))
    document = read(path)
    schema = document.data.get("schema") if isinstance(document.data, dict) else None
    if schema is None and isinstance(document.data, dict) and "extends" in document.data:
        schema = "hwsim/accelerator@1"  # inherited, as the rest of the file
    if schema is None:
        raise InputError(
            "missing key 'schema'",
            where=document.where(()),
            seen="(absent)",
            fix="start with e.g. schema: hwsim/accelerator@1",
        )
    kind = str(schema).removeprefix("hwsim/").partition("@")[0]
    checkers = {"accelerator": _accelerator, "model": _model, **_simple()}
    if kind not in checkers:
        raise unknown_name("schema", str(schema), [f"hwsim/{k}@1" for k in checkers], where=document.where(("schema",)))
    checkers[kind](path)
    return str(schema)


def _is_python(path: Path) -> bool:
    from hwsim.serving.plugins import is_file

    return is_file(str(path))


def _python(given: str) -> str:
    """Hold what a Python file offers against its laws. Raises CheckFailedError, InputError."""
    from hwsim.mapping import check_mapper, load_mapper
    from hwsim.serving.conformance import check_file
    from hwsim.serving.plugins import load_file

    path = Path(given)
    if path.is_file() and hasattr(load_file(path, "file"), "MAPPER"):
        reports: list[Any] = [check_mapper(load_mapper(given).mapper)]
    else:
        reports = list(check_file(given))
    for report in reports:
        report.raise_if_broken()
    return ", ".join(f"{report.mapper} keeps {len(report.laws)} laws" for report in reports)


def _accelerator(path: Path) -> None:
    """Load it: a file that reads but whose family cannot price anything is not ok."""
    from hwsim.cost.registry import missing_section
    from hwsim.schema.loader import load_hardware

    device = load_hardware(str(path)).platform.device
    section = missing_section(device)
    if section is not None:
        raise InputError(
            f"missing key '{section}': no operator can be priced on kind {device.kind} without it",
            where=str(path),
            seen="(absent)",
            fix=f"describe it under {section}: as `hwsim show NAME --resolved` of a shipped {device.kind} does",
        )


def _model(path: Path) -> None:
    from hwsim.frontends.catalog import load_model

    model = load_model(str(path))
    published = model.spec.parameters_published
    if published is not None and abs(model.parameters / published.value - 1) > published.tolerance:
        raise CheckFailedError(
            f"parameter count differs from the published one by more than {published.tolerance:.1%}",
            where=str(path),
            seen=f"{model.parameters:,} against {published.value:,} ({published.source})",
            fix="check layers, widths, biases and tied embeddings",
        )


def _simple() -> dict[str, Any]:
    """Schemas that need only their pydantic model."""
    from hwsim.schema.base import validate
    from hwsim.schema.calibration import CalibrationFile
    from hwsim.schema.claims import ClaimsFile
    from hwsim.schema.reader import read
    from hwsim.schema.systems import ClusterFile, MemoryFile, NodeFile, PricesFile

    def checker(model: Any) -> Any:
        return lambda path: validate(model, read(path))

    models = {
        "calibration": CalibrationFile, "cluster": ClusterFile, "memory": MemoryFile, "prices": PricesFile,
        "claims": ClaimsFile,
    }  # fmt: skip

    def node(path: Path) -> None:
        from hwsim.schema.loader import load_hardware

        validate(NodeFile, read(path))
        load_hardware(str(path))

    def scenario(path: Path) -> None:
        from hwsim.api import SIMULATE_DEFAULTS
        from hwsim.serving.scenario import read_scenario

        read_scenario(path, SIMULATE_DEFAULTS)

    return {"node": node, "serving-scenario": scenario, **{name: checker(model) for name, model in models.items()}}
