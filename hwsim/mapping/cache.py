"""Decisions kept by the hash of everything that led to them: machine, GEMM, objective, mapper file, this package.

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
    """Hash of the problem. The GEMM's name and the machine's play no part."""
    problem = {**asdict(machine), "name": "", "notes": ""}
    extents = [gemm.batch, *gemm.extents]
    text = json.dumps([problem, extents, objective, mapper_sha256, _code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of this package's sources: another formulation is another answer."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load(key: str) -> Decision | None:
    """The decision kept under a key, or None (also where the entry cannot be read)."""
    try:
        data = json.loads((folder() / f"{key}.json").read_text(encoding="utf-8"))
        report: dict[str, Any] = {name: math.nan if value is None else value for name, value in data["report"].items()}
        return Decision(Tiling.from_dict(data["tiling"]), SolverReport(**report))
    except Exception:  # an entry that is absent or damaged is no entry: it is computed again
        return None


def store(key: str, decision: Decision) -> None:
    """Keep a decision, whole or not at all; a folder that cannot be written is no reason to fail."""
    if decision.tiling is None:
        return
    report: dict[str, Any] = asdict(decision.report)
    report = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in report.items()}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder(), prefix=".new")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"tiling": decision.tiling.to_dict(), "report": report}, stream)
        os.replace(name, folder() / f"{key}.json")
    except OSError:
        return
