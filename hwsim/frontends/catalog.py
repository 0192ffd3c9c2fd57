"""From a name or path to a model: catalog entries, the user's YAML files, and HF ``config.json``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hwsim import content
from hwsim.errors import InputError
from hwsim.frontends import single
from hwsim.frontends.model import Model
from hwsim.frontends.raw import is_raw, raw_graph
from hwsim.schema.base import validate
from hwsim.schema.model import ModelSpec
from hwsim.schema.reader import read


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with where it came from, for provenance."""

    model: Model
    entry: content.Entry


def load_model(name: str) -> Model:
    """The model that a catalog name, an alias, a path to a YAML file or to an HF ``config.json`` means.

    Raises
    ------
    UnknownNameError: nothing carries the name; the nearest names are proposed.
    InputError: the file is malformed, or holds a family that is not known.
    """
    return resolve_model(name).model


def resolve_model(name: str) -> LoadedModel:
    """As `load_model`, with the catalog entry that was found. Raises as it does."""
    operator = single.parse(name)
    if operator is not None:
        return LoadedModel(operator, content.Entry("model", operator.name, single.NO_FILE))  # type: ignore[arg-type]
    if is_raw(name):
        raw_graph(name)  # says what is malformed
        raise InputError(
            "evaluate takes one matrix multiply, not a batch", where="WORKLOAD", seen=name, fix="write gemm:MxNxK"
        )
    entry = content.resolve(name, "model")
    return LoadedModel(_load(entry.path), entry)


def _load(path: Path) -> Model:
    if path.suffix == ".json":
        from hwsim.frontends.hf import import_config

        return Model(import_config(path), str(path), _sha256(path))
    return Model(validate(ModelSpec, read(path)), str(path), _sha256(path))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
