"""`hwsim map WORKLOAD --mapper placement`: operators on devices, or tensors in memories, with the proof."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from hwsim.cli import options as o

DEFAULT_BUDGET: Final = "20 s"


def command(
    workload: o.Workload,
    hw: Annotated[
        list[str], typer.Option("--hw", metavar="NAME", help="Device or node; repeat it. Companions of a node count.")
    ],
    mapper: Annotated[str, typer.Option("--mapper", help="placement.")] = "placement",
    using: Annotated[str | None, typer.Option("--using", metavar="FILE", help="Your own placement mapper.")] = None,
    cut: Annotated[
        str, typer.Option("--cut", help="graph: any operator anywhere; contiguous: pipeline stages.")
    ] = "graph",
    objective: Annotated[
        str, typer.Option("--objective", help="latency, throughput (busiest device), energy or edp.")
    ] = "latency",
    tier: Annotated[
        list[str] | None,
        typer.Option("--tier", metavar="NAME[:N]", help="Memory beyond the device's (N modules): place tensors."),
    ] = None,
    walk: Annotated[
        str, typer.Option("--walk", help="Fine-tuning hosts: serial or parallel walk of the CPU over its tiers.")
    ] = "serial",
    room: Annotated[
        list[str] | None, typer.Option("--room", metavar="NAME=SIZE", help="Limit the memory of a device or tier.")
    ] = None,
    link: Annotated[
        str | None, typer.Option("--link", help='Rate between devices, e.g. "32 GB/s" [their ports].')
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="Weight format allowed; repeat for a choice [each device's].")
    ] = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    keep: Annotated[
        bool, typer.Option("--keep-on-chip", help="Also decide which tensors stay on chip between operators.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="What one more GiB, GB/s or a faster device would buy.")
    ] = False,
    phase: Annotated[str | None, typer.Option("--phase", help="One phase [the whole request].")] = None,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    efficiency: o.Efficiency = "calibrated",
    budget: Annotated[str | None, typer.Option("--budget", help="Wall time of the mapper, e.g. 2s [20s].")] = None,
    set_: o.Set = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Place operators on devices (CPU, GPU, NPU ...) or tensors in memories (HBM, DDR, CXL cards, flash)."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.api import place

    del mapper  # this module was chosen by it
    document = place(
        workload,
        hw,
        cut=cut,
        objective=objective,
        tiers=tier or (),
        walk=walk,
        rooms=_rooms(room),
        link=link,
        weights=weights or (),
        activations=activations,
        kv_cache=kv_cache,
        keep_on_chip=keep,
        explain=explain,
        phase=phase,
        batch=batch,
        prompt=prompt,
        output=output,
        efficiency=efficiency,
        budget=budget or DEFAULT_BUDGET,
        mapper=using or "placement",
        what_if=o.parse_set(set_),
    ).document
    o.emit(render(document, form), out, force)


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
    from hwsim.report.placement import placement_table

    return placement_table(document)
