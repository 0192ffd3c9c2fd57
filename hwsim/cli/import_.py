"""`hwsim import CONFIG.json -o MODEL.yaml`: a Hugging Face config as a readable workload file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="config.json of a model repository.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the workload [from the file or its folder].")
    ] = None,
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Read the shape of a model; weights are never loaded and nothing is fetched."""
    o.check_suffix(out, (".yaml", ".yml"))
    from hwsim.frontends.hf import import_config, to_yaml
    from hwsim.frontends.model import Model

    spec = import_config(config, name) if name else import_config(config)
    model = Model(spec)
    o.note(f"{spec.name}: {model.parameters:,} parameters, {spec.layers} layers")
    o.emit(to_yaml(spec), out, force)
