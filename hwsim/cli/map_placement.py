"""`hwsim map WORKLOAD --mapper placement`: operators on devices, or tensors in memories, with the proof."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o

DEFAULT_BUDGET: Final = "20 s"


class Choice(g.Group):
    """Who decides what, for what."""

    mapper: Annotated[str, typer.Option("--mapper", help="placement.")] = "placement"
    using: Annotated[str | None, typer.Option("--using", metavar="FILE", help="Your own placement mapper.")] = None
    cut: Annotated[str, typer.Option("--cut", help="graph: any operator anywhere; contiguous: pipeline stages.")] = (
        "graph"
    )
    objective: Annotated[
        str, typer.Option("--objective", help="latency, throughput (busiest device), energy or edp.")
    ] = "latency"


class Memories(g.Group):
    """Memories beside the devices' own, and what lies between."""

    tier: Annotated[
        list[str] | None,
        typer.Option("--tier", metavar="NAME[:N]", help="Memory beyond the device's (N modules): place tensors."),
    ] = None
    walk: Annotated[
        str, typer.Option("--walk", help="Fine-tuning hosts: serial or parallel walk of the CPU over its tiers.")
    ] = "serial"
    room: Annotated[
        list[str] | None, typer.Option("--room", metavar="NAME=SIZE", help="Limit the memory of a device or tier.")
    ] = None
    link: Annotated[str | None, typer.Option("--link", help='Rate between devices, e.g. "32 GB/s" [their ports].')] = (
        None
    )


class Formats(g.Group):
    """Number formats; several of the weights are a choice."""

    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="Weight format allowed; repeat for a choice [each device's].")
    ] = None
    activations: o.Activations = None
    kv_cache: o.KvCache = None


class Working(g.Group):
    """What else is decided or said, of which phase."""

    keep: Annotated[
        bool, typer.Option("--keep-on-chip", help="Also decide which tensors stay on chip between operators.")
    ] = False
    explain: Annotated[
        bool, typer.Option("--explain", help="What one more GiB, GB/s or a faster device would buy.")
    ] = False
    phase: Annotated[str | None, typer.Option("--phase", help="One phase [the whole request].")] = None


class Run(g.Load):
    """The load, and the limits of the decision."""

    efficiency: o.Efficiency = "calibrated"
    budget: Annotated[str | None, typer.Option("--budget", help="Wall time of the mapper, e.g. 2s [20s].")] = None
    set_: o.Set = None


class Options(Run, Working, Formats, Memories, Choice):
    """Of a placement; --help lists the last base first."""

    def keywords(self) -> dict[str, Any]:
        """Those of `hwsim.place`. Raises InputError."""
        given = super().keywords()
        del given["mapper"]  # this module was chosen by it
        return {
            "mapper": given.pop("using") or "placement",
            "tiers": given.pop("tier") or (),
            "rooms": _rooms(given.pop("room")),
            "weights": given.pop("weights") or (),
            "keep_on_chip": given.pop("keep"),
            "budget": given.pop("budget") or DEFAULT_BUDGET,
            **given,
        }


@g.grouped
def command(
    workload: o.Workload,
    hw: Annotated[
        list[str], typer.Option("--hw", metavar="NAME", help="Device or node; repeat it. Companions of a node count.")
    ],
    options: Options,
    to: g.Destination,
) -> None:
    """Place operators on devices (CPU, GPU, NPU ...) or tensors in memories (HBM, DDR, CXL cards, flash)."""
    form = to.form("table", "json", "html")
    from hwsim.api import place

    to.emit(render(place(workload, hw, **options.keywords()).document, form))


def _rooms(room: list[str] | None) -> dict[str, str]:
    from hwsim.errors import InputError

    found = {}
    for text in room or []:
        name, equals, size = text.partition("=")
        if not equals or not name.strip():
            raise InputError("--room needs NAME=SIZE", where="--room", seen=text, fix="--room dram=128GiB")
        found[name.strip()] = size.strip()
    return found


def render(document: dict[str, Any], form: str) -> str:
    """A placement document as text of one format."""
    if form == "json":
        return o.to_json(document)
    if form == "html":
        from hwsim.report.placement_page import placement_page

        return placement_page(document)
    from hwsim.report.placement import placement_table

    return placement_table(document)
