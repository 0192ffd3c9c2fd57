"""Decisions kept by the hash of everything that led to them: machine, problem, objective, mapper file, this package.

What is read back is checked and costed again like any other decision, so a damaged entry can do no harm.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim.ir.mapped import SolverReport
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.protocol import Decision


def folder() -> Path:
    """Where decisions are kept: HWSIM_CACHE, or the user's cache folder."""
    named = os.environ.get("HWSIM_CACHE")
    if named:
        return Path(named) / "mapping"
    from platformdirs import user_cache_path

    return user_cache_path("hwsim") / "mapping"


def key_of(machine: Machine, gemm: Gemm, objective: str, mapper_sha256: str) -> str:
    """Hash of the problem. The GEMM's name plays no part."""
    return hash_of(machine, [gemm.batch, *gemm.extents], objective, mapper_sha256)


def hash_of(machine: Machine, *rest: Any) -> str:
    """Hash of a machine whatever it is called, of plain data, and of this package's sources."""
    text = json.dumps([{**asdict(machine), "name": "", "notes": ""}, *rest, _code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of this package: another formulation is another answer."""
    return sources_hash(Path(__file__).parent)


def sources_hash(package: Path) -> str:
    """Hash of all Python files of a folder, those of its folders too."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load(key: str) -> Decision | None:
    """The decision kept under a key, or None (also where the entry cannot be read)."""
    try:
        data = read(key)
        return Decision(Tiling.from_dict(data["tiling"]), report_of(data))
    except Exception:  # an entry that is absent or damaged is no entry: it is computed again
        return None


def store(key: str, decision: Decision) -> None:
    """Keep a decision; a folder that cannot be written is no reason to fail."""
    if decision.tiling is not None:
        write(key, decision.tiling.to_dict(), decision.report)


def read(key: str) -> dict[str, Any]:
    """What is kept under a key. Raises OSError, ValueError."""
    data: dict[str, Any] = json.loads((folder() / f"{key}.json").read_text(encoding="utf-8"))
    return data


def report_of(data: dict[str, Any]) -> SolverReport:
    """The report of an entry; what was not finite comes back as NaN. Raises KeyError, TypeError."""
    said: dict[str, Any] = {name: math.nan if value is None else value for name, value in data["report"].items()}
    return SolverReport(**said)


def write(key: str, tiling: dict[str, Any], report: SolverReport) -> None:
    """Keep an entry, whole or not at all; a folder that cannot be written is no reason to fail."""
    said = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in asdict(report).items()}
    text = json.dumps({"tiling": tiling, "report": said})
    name = ""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder(), prefix=".new")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, folder() / f"{key}.json")
    except OSError:
        if name:
            Path(name).unlink(missing_ok=True)
