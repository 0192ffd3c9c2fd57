"""`hwsim simulate WORKLOAD --hw NAME`: request-level serving of a trace or of generated arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.cli.progress import Meter

POLICIES: Final = "vllm (0.2, prefill first), vllm_v1 (today), sarathi, orca, lightllm, static; FILE.py[:Class]."
ROUTERS: Final = "round_robin, least_outstanding, lor, least_loaded, prefix_aware, slo_aware, random; FILE.py[:Class]"
PAIRS: Final = "[NAME=VALUE,...]"


class Stream(g.Group):
    """The requests."""

    trace: Annotated[Path | None, typer.Option("--trace", help="Trace file (CSV or JSON lines, .gz allowed).")] = None
    rate: Annotated[float | None, typer.Option("--rate", help="Requests/s: generated, or the trace rescaled.")] = None
    requests: Annotated[int | None, typer.Option("--requests", help="Requests [1000, or the whole trace].")] = None
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma, bursty or constant.")] = "poisson"
    prompt: Annotated[str, typer.Option("--prompt", help="Prompt tokens: a mean, or median=1730,p90=5696.")] = "1024"
    output: Annotated[str, typer.Option("--output", help="Output tokens: a mean, or mean=256,median=32.")] = "256"
    burstiness: Annotated[float, typer.Option("--burstiness", help="Variation of gamma arrivals.")] = 1.0
    lengths: Annotated[str, typer.Option("--lengths", help="fixed, uniform, exponential or lognormal.")] = "lognormal"
    seed: Annotated[int, typer.Option("--seed", help="Seed of generated requests.")] = 0


class Engine(g.Group):
    """One serving engine."""

    policy: Annotated[str, typer.Option("--policy", help=POLICIES)] = "vllm"
    max_batch: Annotated[int | None, typer.Option("--max-batch", help="Most sequences in a replica [256].")] = None
    chunk: Annotated[int | None, typer.Option("--chunk", help="Tokens of an iteration [sarathi 512].")] = None
    queue: Annotated[str, typer.Option("--queue", help="fcfs, sjf or priority.")] = "fcfs"
    prefix_cache: Annotated[str | None, typer.Option("--prefix-cache", help=f"share, block, host, disk {PAIRS}")] = None


class Service(g.Group):
    """Engines behind a router, and what is asked of them."""

    replicas: Annotated[int, typer.Option("--replicas", help="Engines behind the router.")] = 1
    also: Annotated[str | None, typer.Option("--also", help="More models: 'MODEL share=0.3 tp=2, MODEL ...'.")] = None
    router: Annotated[str, typer.Option("--router", help=ROUTERS)] = "round_robin"
    slo: Annotated[str | None, typer.Option("--slo", help="Limits, e.g. ttft=1s,tpot=50ms,e2e=30s.")] = None
    prefill_pool: Annotated[int, typer.Option("--prefill-pool", help="Replicas that only prefill.")] = 0
    capacity: Annotated[bool, typer.Option("--capacity", help="Search the largest rate that meets --slo.")] = False
    attainment: Annotated[float, typer.Option("--attainment", help="Share of requests that must meet --slo.")] = 0.9
    limits: Annotated[str | None, typer.Option("--limits", help="For --capacity: itl_s_p99=200ms,...")] = None


class Pools(g.Group):
    """Prefill and decode apart."""

    decode_hw: Annotated[str | None, typer.Option("--decode-hw", help="Machine of the decode pool [--hw].")] = None
    kv_transfer: Annotated[str, typer.Option("--kv-transfer", help="KV caches: layerwise or serial.")] = "layerwise"
    kv_link: Annotated[str | None, typer.Option("--kv-link", help='Rate of a KV link, e.g. "25 GB/s".')] = None
    mixed: Annotated[int, typer.Option("--mixed", help="Queue at which idle decoders prefill (0: never).")] = 0
    migration: Annotated[str | None, typer.Option("--migration", help=f"gap, period, downtime {PAIRS}")] = None


class Operation(g.Group):
    """What happens while serving, and what it is measured against."""

    autoscale: Annotated[str | None, typer.Option("--autoscale", help=f"most, least, high, startup {PAIRS}")] = None
    failures: Annotated[str | None, typer.Option("--failures", help="REPLICA:DOWN[:UP], e.g. 0:10s:60s.")] = None
    partition: Annotated[str | None, typer.Option("--partition", help=f"share, saturation, dynamic {PAIRS}")] = None
    queue_limit: Annotated[int | None, typer.Option("--queue-limit", help="Reject above this many a replica.")] = None
    closed_loop: Annotated[str | None, typer.Option("--closed-loop", help=f"users, turns, think {PAIRS}")] = None
    price: Annotated[str | None, typer.Option("--price", help="Price list [the latest].")] = None
    reference: Annotated[str | None, typer.Option("--reference", help="Machine that slowdowns refer to.")] = None
    kv_blocks: Annotated[int | None, typer.Option("--kv-blocks", help="KV blocks [what memory leaves].")] = None
    overhead: Annotated[str | None, typer.Option("--overhead", help='Host time an iteration, e.g. "2 ms".')] = None


class Run(g.Formats):
    """How one engine runs the model, and what is kept of it."""

    tp: o.Tp = 1
    pp: o.Pp = 1
    dp: Annotated[int, typer.Option("--dp", help="Attention ranks in lock step, experts over all.")] = 1
    efficiency: o.Efficiency = "calibrated"
    steady: Annotated[bool, typer.Option("--steady", help="Leave the warm-up (MSER-5) out of the metrics.")] = False
    table: Annotated[Path | None, typer.Option("--requests-csv", help="Write the per-request table.")] = None


class Options(Run, Operation, Pools, Service, Engine, Stream):
    """Those of `hwsim.simulate`; --help lists the last base first."""


@g.grouped
def command(
    context: typer.Context,
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="Model name or path, or a serving scenario file (YAML).")
    ],
    hw: Annotated[str | None, typer.Option("--hw", help="Accelerator, node or cluster [as in a scenario].")] = None,
    *,
    options: Options,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    to: g.Destination,
) -> None:
    """TTFT, TPOT, tails, throughput, goodput, energy and cost of serving a stream of requests.

    Rates "under load" count what came out in the second half of the arrivals, over its length; "with drain" all that
    finished, from the first arrival to the last token.
    """
    form = to.form("table", "json", "csv", "html")
    o.check_file(options.table, to.force)
    from hwsim.api import simulate

    # What the command line leaves alone may come from a scenario file.
    stated = {name: value for name, value in options.keywords().items() if _stated(context, name)}
    meter = Meter()
    try:
        document = simulate(workload, hw, note=None if quiet else meter, **stated).to_dict()
    finally:
        meter.close()
    to.emit(render(document, form))
    if document.get("interrupted"):
        raise KeyboardInterrupt


def _stated(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def render(document: dict[str, Any], form: str) -> str:
    """A serving document as text of one format."""
    if form == "json":
        return o.to_json(document)
    from hwsim.report import serving

    if form == "csv":
        return serving.csv_text(document)
    return serving.page(document) if form == "html" else serving.table_text(document)
