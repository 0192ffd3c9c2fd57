"""`hwsim map WORKLOAD --mapper placement`: operators on devices, or tensors in memories, with the proof."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from hwsim.cli import options as o

DEFAULT_BUDGET_S: Final = 20.0


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
    phase: Annotated[str | None, typer.Option("--phase", help="One phase [the whole request].")] = None,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    efficiency: o.Efficiency = "calibrated",
    budget: Annotated[str | None, typer.Option("--budget", help="Wall time of the mapper, e.g. 2s [20s].")] = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """Place operators on devices (CPU, GPU, NPU ...) or tensors in memories (HBM, DDR, CXL cards, flash)."""
    form = o.check_format(o.format_of(format_, out), ("table", "json"))
    from hwsim.explore.placement.phases import Request
    from hwsim.explore.placement.price import Options
    from hwsim.units import parse

    del mapper  # this module was chosen by it
    length = 512 if prompt is None else prompt
    request = Request(batch, length, output, phase or "")
    rate = None if link is None else parse(link, "bytes_per_s", where="--link")
    options = Options(
        weights=tuple(weights or ()),
        activations=activations,
        kv_cache=kv_cache,
        efficiency=efficiency,
        keep=keep,
        rooms=_rooms(room),
        link_bytes_per_s=rate,
    )
    how = {
        "mapper": using or "placement",
        "budget_s": DEFAULT_BUDGET_S if budget is None else parse(budget, "time", where="--budget"),
    }
    document = _document(workload, hw, tier, (cut, objective, walk), request, options, how)
    o.emit(render(document, form), out, force)


def _rooms(room: list[str] | None) -> tuple[tuple[str, float], ...]:
    from hwsim.errors import InputError
    from hwsim.units import parse

    found = []
    for text in room or []:
        name, equals, size = text.partition("=")
        if not equals or not name.strip():
            raise InputError("--room needs NAME=SIZE", where="--room", seen=text, fix="--room dram=128GiB")
        found.append((name.strip(), parse(size, "bytes", where="--room")))
    return tuple(found)


def _document(
    workload: str,
    hw: list[str],
    tier: list[str] | None,
    decision: tuple[str, str, str],
    request: Any,
    options: Any,
    how: dict[str, Any],
) -> dict[str, Any]:
    """Which of the three questions is asked: tensors in tiers, fine-tuning state, or operators on devices."""
    from hwsim.explore.placement.decide import place_model

    cut, objective, walk = decision
    if tier:
        return _tiers(workload, hw, tier, objective, request, options, how)
    if len(hw) == 1 and (device := _fine_tuning_host(hw[0])) is not None:
        return _fine_tuning(workload, hw[0], device, walk, request, options, how)
    return place_model(workload, hw, request=request, options=options, cut=cut, objective=objective, **how)


def _fine_tuning_host(name: str) -> Any:
    from hwsim.schema.loader import load_hardware

    device = load_hardware(name).platform.device
    return device if device.kind == "cxl" else None


def _fine_tuning(
    workload: str, name: str, device: Any, walk: str, request: Any, options: Any, how: dict[str, Any]
) -> dict[str, Any]:
    from hwsim.explore.placement.finetune import finetune_case
    from hwsim.explore.placement.phases import check_request
    from hwsim.explore.placement.tensors import place_case
    from hwsim.frontends.catalog import resolve_model

    check_request(request)
    model = resolve_model(workload).model
    return place_case(model.name, name, finetune_case(model, device, request, walk, options.rooms), **how)


def _tiers(
    workload: str, hw: list[str], tier: list[str], objective: str, request: Any, options: Any, how: dict[str, Any]
) -> dict[str, Any]:
    from hwsim.errors import InputError
    from hwsim.explore.placement.offload import offload_case
    from hwsim.explore.placement.phases import check_request
    from hwsim.explore.placement.tensors import place_case
    from hwsim.frontends.catalog import resolve_model
    from hwsim.schema.loader import load_hardware

    if len(hw) > 1:
        raise InputError("tensors are placed around one device", where="--tier", seen=", ".join(hw), fix="one --hw")
    if objective != "latency":
        raise InputError("tensors are placed for latency", where="--objective", seen=objective)
    check_request(request)
    device, model = load_hardware(hw[0]).platform.device, resolve_model(workload).model
    return place_case(model.name, device.name, offload_case(model, device, tier, request, options), **how)


def render(document: dict[str, Any], form: str) -> str:
    """A placement document as text of one format."""
    if form == "json":
        return o.to_json(document)
    from hwsim.report.placement import placement_table

    return placement_table(document)
