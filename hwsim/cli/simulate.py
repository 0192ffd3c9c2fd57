"""`hwsim simulate WORKLOAD --hw NAME`: request-level serving of a trace or of generated arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import options as o

Routers = "round_robin, least_outstanding, lor, least_loaded, prefix_aware, slo_aware, random"


def command(
    workload: o.Workload,
    hw: o.Hardware,
    trace: Annotated[Path | None, typer.Option("--trace", help="Trace file (CSV or JSON lines, .gz allowed).")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests/s: generated, or the trace rescaled.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Requests [1000, or the whole trace].")] = None,
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma, bursty or constant.")] = "poisson",
    prompt: Annotated[float, typer.Option("--prompt", help="Mean prompt tokens of generated requests.")] = 1024.0,
    output: Annotated[float, typer.Option("--output", help="Mean output tokens of generated requests.")] = 256.0,
    lengths: Annotated[str, typer.Option("--lengths", help="fixed, uniform, exponential or lognormal.")] = "lognormal",
    seed: Annotated[int, typer.Option("--seed", help="Seed of generated requests.")] = 0,
    policy: Annotated[str, typer.Option("--policy", help="vllm, sarathi, orca, lightllm or static.")] = "vllm",
    max_batch: Annotated[int, typer.Option("--max-batch", help="Most sequences in a replica.")] = 256,
    chunk: Annotated[int, typer.Option("--chunk", help="Token budget of an iteration (sarathi).")] = 512,
    queue: Annotated[str, typer.Option("--queue", help="fcfs, sjf or priority.")] = "fcfs",
    replicas: Annotated[int, typer.Option("--replicas", help="Engines behind the router.")] = 1,
    router: Annotated[str, typer.Option("--router", help=Routers)] = "round_robin",
    slo: Annotated[str | None, typer.Option("--slo", help="Limits, e.g. ttft=1s,tpot=50ms,e2e=30s.")] = None,
    prefill_pool: Annotated[int, typer.Option("--prefill-pool", help="Replicas that only prefill.")] = 0,
    capacity: Annotated[bool, typer.Option("--capacity", help="Search the largest rate that meets --slo.")] = False,
    attainment: Annotated[float, typer.Option("--attainment", help="Share of requests that must meet --slo.")] = 0.9,
    kv_blocks: Annotated[int | None, typer.Option("--kv-blocks", help="KV blocks [what memory leaves].")] = None,
    overhead: Annotated[str | None, typer.Option("--overhead", help='Host time an iteration, e.g. "2 ms".')] = None,
    weights: o.Weights = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    pp: o.Pp = 1,
    efficiency: o.Efficiency = "calibrated",
    steady: Annotated[bool, typer.Option("--steady", help="Leave the warm-up (MSER-5) out of the metrics.")] = False,
    table: Annotated[Path | None, typer.Option("--requests-csv", help="Write the per-request table.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:  # fmt: skip
    """TTFT, TPOT, tails, throughput, goodput, energy and cost of serving a stream of requests."""
    given: dict[str, Any] = dict(locals())
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv", "html"))
    from hwsim.serving.session import run_session

    document = run_session(given, note=None if quiet else o.note)
    o.emit(render(document, form), out, force)
    if document.get("interrupted"):
        raise KeyboardInterrupt


def render(document: dict[str, Any], form: str) -> str:
    """A serving document as text of one format."""
    if form == "json":
        return o.to_json(document)
    from hwsim.report import serving

    if form == "csv":
        return serving.csv_text(document)
    return serving.page(document) if form == "html" else serving.table_text(document)
