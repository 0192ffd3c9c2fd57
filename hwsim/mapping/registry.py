"""Mappers are content: files of the ``mappers`` folder, or the user's own, loaded by path."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim import content
from hwsim.errors import InputError
from hwsim.mapping.foreign import Foreign
from hwsim.mapping.protocol import Mapper

_FIX = "a mapper file exposes MAPPER with name, summary and map(machine, gemm, objective, budget_s)"


@dataclass(frozen=True, slots=True)
class LoadedMapper:
    """A mapper with the file it came from."""

    mapper: Mapper
    path: Path
    sha256: str


def load_mapper(name: str) -> LoadedMapper:
    """The mapper that a name of the catalog or a path to a Python file means.

    Raises
    ------
    UnknownNameError: nothing carries the name. InputError: the file fails to load, or exposes no mapper.
    """
    path = content.resolve(name, "mapper").path
    spec = importlib.util.spec_from_file_location(f"hwsim_mapper_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("a mapper is a Python file", where=str(path), fix=_FIX)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(
            "the mapper file fails to load", where=str(path), seen=f"{type(error).__name__}: {error}", fix=_FIX
        ) from error
    mapper: Any = getattr(module, "MAPPER", None)
    if not all(hasattr(mapper, key) for key in ("name", "summary", "map")):
        raise InputError("the file exposes no mapper", where=str(path), seen=f"MAPPER = {mapper!r}"[:100], fix=_FIX)
    if not path.is_relative_to(content.root() / "mappers"):
        mapper = Foreign(mapper, path)
    return LoadedMapper(mapper, path, hashlib.sha256(path.read_bytes()).hexdigest())
