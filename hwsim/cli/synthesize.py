"""`hwsim synthesize NETWORK --hw FPGA`: resources and cycles of a small network built by high-level synthesis."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Build(g.Group):
    """How each layer is built."""

    reuse: Annotated[int, typer.Option("--reuse", help="Products that one multiplier computes in turn.")] = 1
    weight_bits: Annotated[int, typer.Option("--weight-bits", help="Width of weights.")] = 16
    activation_bits: Annotated[int, typer.Option("--activation-bits", help="Width of activations.")] = 16


@g.grouped
def command(
    network: Annotated[str, typer.Argument(help="Layers: dense:16x64,dense:64x5 or conv:3x28x28x1x16.")],
    build: Build,
    to: g.TableOrJson,
    hw: Annotated[str, typer.Option("--hw", metavar="NAME", help="FPGA of the catalog.")] = "u280",
) -> None:
    """DSP slices, look-up tables, flip-flops, memory blocks and cycles of every layer, and what the device has."""
    form = to.form("table", "json")
    from hwsim.api import synthesize

    found = synthesize(network, hw, **g.keywords(build))
    to.emit(o.to_json(found.to_dict()) if form == "json" else str(found))
