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
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Safetensors file or index: hold its parameters against."),
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
    if checkpoint is not None:
        _hold_against(checkpoint, model.parameters)
    o.emit(to_yaml(spec), out, force)


def _hold_against(checkpoint: Path, parameters: int) -> None:
    """Parameters of the shape beside those of the checkpoint's headers. Raises CheckFailedError, InputError."""
    from hwsim.errors import CheckFailedError
    from hwsim.frontends.safetensors import read_checkpoint
    from hwsim.schema.model import SAME_COUNT

    found = read_checkpoint(checkpoint)
    kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in found.by_dtype.items())
    if found.missing:
        o.note(f"{checkpoint}: {len(found.missing)} shards are not there, so nothing is compared ({kinds})")
    elif abs(found.difference(parameters)) > SAME_COUNT:
        raise CheckFailedError(
            "the checkpoint holds another number of parameters than the shape",
            where=str(checkpoint),
            seen=f"{found.elements:,} ({kinds}) against {parameters:,}",
            fix="is it of this model? packed integers (4-bit weights) count several parameters as one",
        )
    else:
        o.note(f"{checkpoint}: {kinds}, as the shape says")
