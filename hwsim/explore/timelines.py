"""A phase on the clock: which technique hides what, and how far from the critical path it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hwsim.engine import analytic, des
from hwsim.engine.des_fluid import Job, execute
from hwsim.engine.des_layers import Layout, offloaded, staged, together, unfold
from hwsim.engine.estimate import Model, estimate, mapping_of
from hwsim.errors import InputError, unknown_name
from hwsim.ir.platform import Platform
from hwsim.ir.result import Timeline
from hwsim.ir.scenario import Scenario
from hwsim.mapping.lower import lower

MOST_PARTS: Final = 16


@dataclass(frozen=True, slots=True)
class Technique:
    """How a phase is laid out in time.

    Attributes
    ----------
    streams: `hwsim.engine.des_layers.STREAMS`; with `parts` > 1 ``kinds`` is NanoFlow's, ``links`` TokenWeave's.
    parts: equal parts of the batch that run side by side; of a prompt's tokens where a prefill has too few sequences.
    unit_share: share of the compute units that a collective's kernels take.
    micro_batches: of a pipeline (scenario.pp > 1); None: one a stage.
    prefetch: link over which the weights of each layer come, `depth` layers ahead.
    capacity: resource -> share left to this job (0.5: another job holds half of the link).
    """

    streams: str = "links"
    parts: int = 1
    unit_share: float = 0.0
    micro_batches: int | None = None
    prefetch: str | None = None
    depth: int = 1
    capacity: Mapping[str, float] = field(default_factory=dict)


def timeline_document(
    model: Model, platform: Platform, scenario: Scenario, formats: Any, phase: str | None, technique: Technique
) -> dict[str, Any]:
    """The schedule of one phase as a ``hwsim/timeline@1`` document.

    Parameters
    ----------
    phase: a phase of the model; None takes ``decode`` or the only one.

    Raises
    ------
    InputError, UnknownNameError: grids, unknown phases or links, a batch that does not split, two techniques at once.
    InfeasibleError: degrees that do not divide the model.
    """
    _check(technique, scenario)
    whole = _phase(model, platform, scenario, formats, phase)
    jobs = _jobs(model, platform, scenario, formats, technique, whole)
    _check_capacity(technique.capacity, jobs)
    schedule = execute(jobs, dict(technique.capacity))
    title = f"{model.name} on {platform.name}, {whole.graph.phase}"
    document = des.document(schedule, title)
    return {
        **document,
        "workload": model.name,
        "hardware": platform.name,
        "phase": whole.graph.phase,
        "technique": _described(technique, scenario),
        # What the technique is held against: the undivided batch; of a pipeline or an offload, its own steps in turn.
        "in_turn_s": float(whole.time_s) if technique.parts > 1 else schedule.serial_s,
        "jobs": len(jobs),
        "batch": int(scenario.batch),
        "devices": int(scenario.devices),
    }


def _check(technique: Technique, scenario: Scenario) -> None:
    Layout(technique.streams, technique.unit_share)
    if not 1 <= technique.parts <= MOST_PARTS:
        raise InputError(f"--parts takes 1 to {MOST_PARTS}", where="--parts", seen=str(technique.parts))
    chosen = [technique.parts > 1, scenario.pp > 1, technique.prefetch is not None]
    if sum(chosen) > 1:
        raise InputError(
            "one technique at a time: --parts, --pp or --prefetch", seen="several", fix="leave all but one out"
        )
    if technique.micro_batches is not None and scenario.pp == 1:
        raise InputError("micro-batches need pipeline stages", where="--micro-batches", fix="add --pp 2 or more")
    if technique.micro_batches is not None and not 1 <= technique.micro_batches <= int(scenario.batch_of_replica):
        raise InputError("--micro-batches takes 1 up to the batch", seen=str(technique.micro_batches))


def _check_capacity(capacity: Mapping[str, float], jobs: list[Job]) -> None:
    known = sorted({name for job in jobs for name in job.use})
    for name, share in capacity.items():
        if name not in known:
            raise unknown_name("resource", name, known, where="--share")
        if not 0 < share <= 1:
            raise InputError("a share lies in (0, 1]", where="--share", seen=f"{name}={share}")


def _phase(model: Model, platform: Platform, scenario: Scenario, formats: Any, phase: str | None) -> Timeline:
    timelines = {p.name: p.timeline for p in estimate(model, platform, scenario, formats).phases}
    chosen = phase or ("decode" if "decode" in timelines else next(iter(timelines)))
    if chosen not in timelines:
        raise unknown_name("phase", chosen, tuple(timelines), where="--phase")
    return timelines[chosen]


def _jobs(
    model: Model, platform: Platform, scenario: Scenario, formats: Any, technique: Technique, whole: Timeline
) -> list[Job]:
    layout = Layout(technique.streams, technique.unit_share)
    if technique.parts > 1 and whole.graph.phase == "prefill" and int(scenario.batch_of_replica) < technique.parts:
        return together(_token_parts(model, platform, scenario, formats, technique.parts), layout)
    if technique.parts > 1:
        parts = [
            _phase(model, platform, replace(scenario, batch=size * scenario.dp), formats, whole.graph.phase)
            for size in _split(int(scenario.batch_of_replica), technique.parts)
        ]
        return together(parts, layout)
    if scenario.pp > 1:
        return _pipeline(model, platform, scenario, formats, technique, whole)
    if technique.prefetch is not None:
        return offloaded(whole, _rate(platform, technique.prefetch), technique.depth)
    return unfold(whole, layout=layout)


def _token_parts(model: Model, platform: Platform, scenario: Scenario, formats: Any, parts: int) -> list[Timeline]:
    """Parts of the tokens of the prompts: each attends to the cache of the ones before it (TokenWeave's split).

    Runs of operators alternate on a stream, so a part's attention follows that of the part before it.
    """
    mapping, past, made = mapping_of(scenario), 0, []
    for size in _split(int(scenario.prompt_tokens), parts):
        graph = model.graph("prefill", int(scenario.batch_of_replica), size, past, formats)
        made.append(analytic.run(lower(graph, platform, mapping), scenario.efficiency))
        past += size
    return made


def _pipeline(
    model: Model, platform: Platform, scenario: Scenario, formats: Any, technique: Technique, whole: Timeline
) -> list[Job]:
    batch = int(scenario.batch_of_replica)
    count = technique.micro_batches or min(scenario.pp, batch)
    size = -(-batch // count)
    # `estimate` cuts its batch into pp micro-batches: ask for the batch whose micro-batch has the size wanted here.
    asked = replace(scenario, batch=size * scenario.pp * scenario.dp)
    one = _phase(model, platform, asked, formats, whole.graph.phase)
    return staged(one, scenario.pp, count)


def _split(batch: int, parts: int) -> list[int]:
    """Sizes of the parts, the larger ones first. Raises InputError where a part would be empty."""
    if batch < parts:
        raise InputError("the batch has fewer pieces than parts", where="--parts", seen=f"{batch} and {parts}")
    return [batch // parts + (index < batch % parts) for index in range(parts)]


def _rate(platform: Platform, link: str) -> float:
    rates = {item.name: float(item.bandwidth_bytes_per_s) for item in platform.device.links}
    if link not in rates:
        raise unknown_name(f"link of {platform.device.name}", link, tuple(rates), where="--prefetch")
    return rates[link]


def _described(technique: Technique, scenario: Scenario) -> dict[str, Any]:
    return {
        "streams": technique.streams,
        "parts": technique.parts,
        "unit_share": technique.unit_share,
        "stages": scenario.pp,
        "micro_batches": technique.micro_batches,
        "prefetch": technique.prefetch,
        "depth": technique.depth if technique.prefetch else None,
        "capacity": dict(technique.capacity),
    }
