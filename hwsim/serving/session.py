"""One `simulate` call from options to a result document; used by the command line and by Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim import units
from hwsim.errors import InputError
from hwsim.serving.arrivals import Lengths, generate
from hwsim.serving.bounds import check_numbers
from hwsim.serving.caching import require_prefixes, with_prefix_cache
from hwsim.serving.capacity import search_capacity
from hwsim.serving.control import together
from hwsim.serving.features import prepare_of, replicas_of
from hwsim.serving.fields import fields_of
from hwsim.serving.front import Engine, engine_replica
from hwsim.serving.plugins import Plugin, with_plugins
from hwsim.serving.scenario import answering
from hwsim.serving.sessions import serve
from hwsim.serving.several import Companion, companions_of, dealt, per_model, requests_of
from hwsim.serving.simulate import document, simulate, write_table
from hwsim.serving.spec import ClusterSpec, ServiceLevel
from hwsim.serving.traces import Trace, read_trace

Note = Callable[[str], None] | None
_DEFAULT_RATE = 1.0
_DEFAULT_REQUESTS = 1000
_CAP, _CHUNK = 256, 512  # sequences and, with chunked prefill, tokens of an iteration where none are asked for


def run_session(given: Mapping[str, Any], note: Note = None) -> dict[str, Any]:
    """Resolve names, build the cluster, run; a ``hwsim/serving@1`` document.

    `given` holds the options of ``hwsim simulate`` by their parameter names. On Ctrl-C the document is that of the
    requests so far, with ``interrupted`` true. Raises InputError, InfeasibleError.
    """
    given = with_plugins(given)
    check_numbers(given)
    level, (source, trace) = parse_slo(given.get("slo")), _requests(given)
    require_prefixes(given, source, trace)
    also = companions_of(given)
    trace = dealt(given, trace, also) if also else trace
    engine, context = _engine(given, trace, requests_of(trace, str(given["workload"])) if also else trace)
    spec, prepare = _cluster(given, engine, trace, level)
    if also:
        spec = _beside(given, spec, trace, also)
    if given.get("capacity"):
        limits = limits_of(given.get("limits"))
        found = search_capacity(
            trace, spec, level, attainment=given["attainment"], limits=limits, prepare=prepare, note=note,
            tolerance=given["capacity_tolerance"], start_per_s=given.get("capacity_start"),
        )  # fmt: skip
        context["capacity"] = found.to_dict()
        trace = trace.at_rate(found.rate_per_s)
        context["scenario"] |= {"rate_per_s": found.rate_per_s, "asked_rate_per_s": None}
    interrupted = False
    try:
        if source is not None:
            result = serve(source, spec, level, prepare=prepare)
        elif given.get("capacity") and not given.get("steady"):
            result = found.result
        else:
            result = simulate(trace, spec, level, steady=bool(given.get("steady")), prepare=prepare, progress=note)
    except KeyboardInterrupt as stop:
        if not hasattr(stop, "partial"):
            raise
        result, interrupted = stop.partial, True
    if given.get("table"):
        write_table(result, Path(given["table"]))
    if also:
        context["models"] = per_model(result, [str(given["workload"]), *(one.name for one in also)])
    made = document(result, **context)
    made["warnings"] = [*engine.warnings, *made["warnings"]]
    return {**made, "interrupted": True} if interrupted else made


def parse_slo(text: str | None) -> ServiceLevel:
    """``ttft=1s,tpot=50ms`` as limits in seconds. Raises InputError, UnitError."""
    limits: dict[str, float] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if name.strip() not in ("ttft", "tpot", "e2e") or not equals:
            raise InputError(
                "--slo needs NAME=TIME pairs", where="--slo", seen=part, fix="--slo ttft=1s,tpot=50ms,e2e=30s"
            )
        if f"{name.strip()}_s" in limits:
            raise InputError(f"--slo gives {name.strip()} twice", where="--slo", seen=str(text), fix="keep one")
        limits[f"{name.strip()}_s"] = units.parse(value, "time", where=f"--slo {name.strip()}")
    return ServiceLevel(**limits)


def limits_of(given: Any) -> dict[str, float]:
    """``itl_s_p99=200ms,delay_s_p50=2s`` as metric -> largest value, SI. Raises InputError, UnitError."""
    names = (
        given
        if isinstance(given, Mapping)
        else {part.partition("=")[0].strip(): 0 for part in (given or "").split(",")}
    )
    kinds = {name: "number" if "slowdown" in name else "time" for name in names if name}
    return fields_of(given, kinds, "--limits") if kinds else {}


def _requests(given: Mapping[str, Any]) -> tuple[Any, Trace]:
    """(a source that answers or None, the requests as a trace)."""
    return answering(given) or (None, workload_trace(given))


def workload_trace(given: Mapping[str, Any]) -> Trace:
    """The trace file, cut and rescaled as asked, or generated arrivals."""
    count, rate = given.get("requests"), given.get("rate")
    if given.get("trace") is not None:
        trace = read_trace(given["trace"], limit=count)
        return trace.at_rate(rate) if rate else trace
    return generate(
        rate or _DEFAULT_RATE,
        count or _DEFAULT_REQUESTS,
        process=given["arrivals"],
        prompt=(given["lengths"], Lengths.of(given["prompt"], "--prompt")),
        output=(given["lengths"], Lengths.of(given["output"], "--output")),
        seed=given["seed"],
        cv=given.get("burstiness") or 1.0,
    )


def _engine(given: Mapping[str, Any], trace: Trace, mine: Trace) -> tuple[Engine, dict[str, Any]]:
    """The engine of the run's model, made for its requests `mine`, and what the document says about the run."""
    engine, facts = _machine(given, mine, given["hw"])
    return engine, _context(given, trace, engine, facts)


def _machine(given: Mapping[str, Any], trace: Trace, hardware: Any) -> tuple[Engine, dict[str, Any]]:
    """The engine of one kind of machine, and what the document says about it."""
    from dataclasses import replace

    from hwsim.frontends.formats import Formats
    from hwsim.serving.resolve import resolve

    names = ("weights", "activations", "kv_cache", "tp", "pp", "efficiency")
    asked = {**{n: given.get(n) for n in names}, **_ranks(given)}
    model, platform, scenario, facts = resolve(given["workload"], hardware, asked)
    if scenario.dp != 1 and model.spec.moe is None:
        raise InputError("ranks in lock step share the experts of a layer, and this model has none",
                         where="--dp", seen=str(given["workload"]), fix="--replicas")  # fmt: skip
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    scenario = replace(scenario, weights=formats.weights.name, kv_cache=formats.kv_cache.name)
    longest = max(p + q for p, q in zip(trace.prompt, trace.output, strict=True))
    engine = engine_replica(
        model,
        platform,
        scenario,
        formats,
        policy=given["policy"],
        options=policy_options(given, trace),
        longest=longest,
        kv_blocks=given.get("kv_blocks"),
        overhead_s=units.parse(given["overhead"], "time", where="--overhead") if given.get("overhead") else 0.0,
    )
    engine = replace(engine, replica=with_prefix_cache(given, engine.replica.with_(queue=given["queue"])))
    return engine, {**facts, "workload": {**facts["workload"], "layers": model.layers}}


def _ranks(given: Mapping[str, Any]) -> dict[str, int]:
    """Data-parallel attention over `dp` ranks with the experts over all of them."""
    ranks = int(given.get("dp") or 1)
    if ranks == 1:
        return {}
    for name in ("prefill_pool", "partition", "autoscale", "failures"):
        if given.get(name):
            raise InputError("a rank cannot come, go or work without the others", where=f"--{name.replace('_', '-')}")
    return {"dp": ranks, "ep": ranks * int(given.get("tp") or 1)}


def policy_options(given: Mapping[str, Any], trace: Trace) -> dict[str, int]:
    """Arguments of the policy; the prompt-token limit is never below the longest prompt, as vLLM demands."""
    options = {name: int(given[key]) for name, key in (("cap", "max_batch"), ("chunk", "chunk")) if given.get(key)}
    policy = given["policy"]
    if isinstance(policy, Plugin):
        made = policy.make("form" if int(given.get("pp") or 1) > 1 or int(given.get("dp") or 1) > 1 else "", **options)
        return {name: getattr(made, name) for name in ("cap", "chunk") if hasattr(made, name)}
    if policy == "vllm_v1":
        return options  # vLLM's own limits by device fill in the rest
    chunk = options.pop("chunk", _CHUNK)
    options.setdefault("cap", _CAP)
    if policy == "sarathi":
        options["chunk"] = chunk
    if policy in ("vllm", "lightllm"):
        options["max_tokens"] = max(4096, max(trace.prompt))
    return options


def _context(given: Mapping[str, Any], trace: Trace, engine: Engine, facts: Mapping[str, Any]) -> dict[str, Any]:
    span = trace.arrival_s[-1] if len(trace) > 1 else 0.0
    scenario = {
        "trace": trace.name,
        "requests": len(trace),
        "rate_per_s": (len(trace) - 1) / span if span else 0.0,
        "asked_rate_per_s": _asked_rate(given),
        "policy": str(given["policy"]),
        "options": dict(engine.replica.options),
        "queue": given["queue"],
        "replicas": given["replicas"],
        "prefill_pool": given["prefill_pool"],
        "router": str(given["router"]),
        "kv_blocks": engine.replica.kv_blocks,
        "block_tokens": engine.replica.block_tokens,
        "seed": given["seed"],
    }
    table = {
        "interpolation_error_median": engine.tables.error_median,
        "interpolation_error_max": engine.tables.error_max,
        "points": engine.tables.points,
    }
    files = {p.name: p.sha256 for p in (given["policy"], given["router"]) if isinstance(p, Plugin) and p.path}
    origin = {**facts["provenance"], "inputs": {**facts["provenance"]["inputs"], **files}}
    return {**facts, "scenario": scenario, "iteration_time": table, "provenance": origin}


def _asked_rate(given: Mapping[str, Any]) -> float | None:
    """Requests/s that the run was asked for; None where a trace or answering users set the pace."""
    if given.get("rate"):
        return float(given["rate"])
    paced = given.get("trace") is not None or given.get("closed_loop") is not None
    return None if paced else _DEFAULT_RATE


def _cluster(given: Mapping[str, Any], engine: Engine, trace: Trace, level: ServiceLevel) -> tuple[ClusterSpec, Any]:
    """Replicas behind the router, and what happens to them while they serve."""
    other = given.get("decode_hw")
    decode = None if other is None else _machine(given, trace, other)[0]
    spec = ClusterSpec(replicas_of(given, engine, decode), given["router"])
    parts = [prepare_of(given, engine, level, layers_of(given["workload"]))]
    if given.get("reference") is not None:
        reference = _machine(given, trace, given["reference"])[0].replica.time
        parts.append(lambda cluster: setattr(cluster, "reference", reference))
    kept = [part for part in parts if part is not None]
    return spec, together(*kept) if kept else None


def _beside(given: Mapping[str, Any], spec: ClusterSpec, trace: Trace, also: Sequence[Companion]) -> ClusterSpec:
    """The cluster with the replicas of other models beside those of the run's. Raises as `_machine` does."""
    replicas = [replica.with_(model=str(given["workload"])) for replica in spec.replicas]
    for one in also:
        options = with_plugins({**given, "kv_blocks": None, **one.options})
        check_numbers(options)
        machine = _machine(options, requests_of(trace, one.name), options["hw"])[0]
        replicas += [machine.replica.with_(model=one.name)] * one.replicas
    return ClusterSpec(replicas, spec.router)


def layers_of(workload: str) -> int:
    """Layers of a model. Raises UnknownNameError."""
    from hwsim.frontends.catalog import resolve_model

    return int(resolve_model(workload).model.layers)
