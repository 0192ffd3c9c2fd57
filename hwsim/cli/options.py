"""Options and output handling that the verbs share."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.errors import InputError, unknown_name

Workload = Annotated[
    str, typer.Argument(metavar="WORKLOAD", help="Model: catalog name, alias, YAML file or HF config.json.")
]
Hardware = Annotated[
    str, typer.Option("--hw", metavar="NAME", help="Accelerator, node or cluster: name, alias or file.")
]
HardwareList = Annotated[list[str], typer.Option("--hw", metavar="NAME", help="Repeat for each machine.")]
Batch = Annotated[int, typer.Option("--batch", "-b", help="Sequences that run together.")]
Prompt = Annotated[
    int | None, typer.Option("--prompt", help="Prompt tokens a sequence [512, or the model's fixed input].")
]
Output = Annotated[int, typer.Option("--output", help="Output tokens a sequence.")]
OwnOutput = Annotated[
    int | None,
    typer.Option("--output", help="Output tokens a sequence [128, or none of a model that answers in one pass]."),
]
Weights = Annotated[str | None, typer.Option("--weights", help="Weight format, e.g. bf16, fp8, int4-g128, w8a8.")]
Activations = Annotated[str | None, typer.Option("--activations", help="Activation format.")]
KvCache = Annotated[str | None, typer.Option("--kv-cache", help="KV cache format.")]
Tp = Annotated[int, typer.Option("--tp", help="Tensor parallel degree.")]
Pp = Annotated[int, typer.Option("--pp", help="Pipeline stages.")]
Ep = Annotated[int, typer.Option("--ep", help="Expert parallel degree: divides tp, or tp x a divisor of dp.")]
Dp = Annotated[int, typer.Option("--dp", help="Data-parallel replicas that share the batch.")]
Sp = Annotated[bool, typer.Option("--sp", help="Sequence parallelism: norms on rows, over the tensor group.")]
Efficiency = Annotated[str, typer.Option("--efficiency", help="calibrated, or datasheet for the bare roofline.")]
Mapper = Annotated[
    str,
    typer.Option("--mapper", help="Who maps operators: roofline (ideal, instant), tiling, greedy, FILE.py."),
]
MapObjective = Annotated[
    str | None, typer.Option("--map-objective", help="What the mapper minimizes: latency, energy or edp [latency].")
]
MapBudget = Annotated[
    str | None, typer.Option("--map-budget", help="Wall time for the mapper, a phase, e.g. 10s [until proved].")
]
Price = Annotated[str | None, typer.Option("--price", help="Price file [newest that lists the device].")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help='What-if, e.g. memories.hbm.read="3 TB/s". Repeatable.'),
]
Format = Annotated[str, typer.Option("--format", "-f", help="table, json or csv; html where a report exists.")]
_SUFFIX_FORMATS = {".json": "json", ".csv": "csv", ".html": "html", ".md": "md", ".txt": "table", "": "table"}
_FORMAT_HINT = "; or say --format"
OutFile = Annotated[Path | None, typer.Option("-o", "--out", help="Write to this file instead of stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def parse_set(changes: list[str] | None) -> dict[str, str]:
    """``["memories.hbm.read=3 TB/s"]`` as a dictionary. Raises InputError."""
    table: dict[str, str] = {}
    for change in changes or []:
        path, equals, value = change.partition("=")
        if not equals or not path.strip():
            raise InputError(
                "--set needs PATH=VALUE", where="--set", seen=change, fix='--set memories.hbm.read="3 TB/s"'
            )
        if path.strip() in table:
            raise InputError(
                "--set changes one field twice", where=f"--set {path.strip()}", seen=change, fix="keep one"
            )
        table[path.strip()] = value.strip()
    return table


def check_format(name: str, known: tuple[str, ...], out: Path | None = None) -> str:
    """The format itself; `out` is the file whose suffix asked for it. Raises UnknownNameError, InputError."""
    if name not in known and out is not None:
        suffixes = [suffix for suffix, form in _SUFFIX_FORMATS.items() if form in known and suffix]
        raise InputError(
            f"this command writes no {name}", where=f"-o {out}", seen=out.suffix, fix="use " + ", ".join(suffixes)
        )
    if name not in known:
        raise unknown_name("format", name, known, where="--format")
    return name


def format_of(name: str, out: Path | None) -> str:
    """The format asked for, or the one that the output file's suffix implies when none was asked.

    Raises InputError for a suffix that stands for no format, unless a format was asked for.
    """
    if name != "table" or out is None:
        return name
    check_suffix(out, tuple(_SUFFIX_FORMATS))
    return _SUFFIX_FORMATS[out.suffix]


def check_suffix(out: Path | None, known: tuple[str, ...], option: str = "-o") -> None:
    """Refuse an output file whose suffix promises something else than what is written. Raises InputError."""
    if out is not None and out.suffix not in known:
        raise InputError(
            "the suffix of the output file says no format that can be written",
            where=f"{option} {out}",
            seen=repr(out.suffix),
            fix="known: " + ", ".join(item or "no suffix" for item in known) + _FORMAT_HINT * (len(known) > 2),
        )


def check_free(out: Path | None, force: bool) -> None:
    """Refuse a folder that is not there, and to overwrite unless asked to. Raises InputError."""
    if out is not None and not out.parent.is_dir():
        fix = f"mkdir -p {out.parent}"
        raise InputError("the folder of the output does not exist", where=str(out), seen=str(out.parent), fix=fix)
    if out is not None and out.exists() and not force:
        kind = "folder" if out.is_dir() else "file"
        raise InputError(f"the output {kind} exists", where=str(out), fix="choose another name or add --force")


def check_file(out: Path | None, force: bool) -> None:
    """As `check_free`, of one file: a folder is never replaced by it. Raises InputError."""
    if out is not None and out.is_dir():
        raise InputError(
            "the output is a folder", where=str(out), fix=f"name a file in it, e.g. -o {out / 'result.json'}"
        )
    check_free(out, force)


def emit(text: str, out: Path | None, force: bool = False) -> None:
    """Write a result to stdout, or whole and atomically to a file. Raises InputError if the file is in the way."""
    body = text if text.endswith("\n") else text + "\n"
    if out is None:
        sys.stdout.write(body)
        sys.stdout.flush()
        return
    check_file(out, force)
    _write(out, body)
    note(f"wrote {out}")


def _write(out: Path, body: str) -> None:
    """A file whole or not at all. Raises InputError."""
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(body)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, out)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise InputError("cannot write the output file", where=str(out), seen=error.strerror or str(error)) from None


def emit_folder(files: dict[str, str], folder: Path, force: bool = False) -> None:
    """Write files (relative path -> text) as one new folder, whole or not at all; with `force` into an old one.

    Raises InputError if the folder is in the way or cannot be written.
    """
    check_free(folder, force)
    target = folder
    try:
        if not folder.exists():
            target = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for name, text in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _write(target / name, text)
        if target != folder:
            os.chmod(target, 0o777 & ~_umask())
            os.replace(target, folder)
    except OSError as error:
        seen = error.strerror or str(error)
        raise InputError("cannot write the output folder", where=str(folder), seen=seen) from None
    finally:
        if target != folder and target.exists():
            shutil.rmtree(target, ignore_errors=True)
    note(f"wrote {folder} ({len(files)} files)")


def _umask() -> int:
    """The permissions mask of this process (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def note(text: str) -> None:
    """Say something that is not a result, on stderr."""
    print(text, file=sys.stderr)


def progress(text: str) -> None:
    """Say on stderr what is being worked on, over the last such line; only on a terminal. Empty: wipe the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:100]}")
        sys.stderr.flush()


def to_json(document: Any) -> str:
    """One JSON document: keys in their own order, shortest exact floats, no NaN."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
