"""Job lists of known overlap techniques, ready for `hwsim.engine.des_fluid.execute`.

Times are seconds of one piece alone; fractions say how much of each resource the piece uses meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwsim.engine.des_fluid import Job
from hwsim.errors import InputError


def pipeline(stage_s: Sequence[Sequence[float]], transfer_s: float = 0.0) -> list[Job]:
    """Micro-batches through pipeline stages: ``stage_s[m][p]`` s of micro-batch m on stage p.

    Equal times t give a makespan of (m + p - 1) t; the bubble share is (p - 1)/(m + p - 1) (GPipe, Huang et al. 2019).
    Uneven micro-batches add bubbles of their own.
    """
    jobs: list[Job] = []
    for batch, times in enumerate(stage_s):
        for stage, seconds in enumerate(times):
            before = f"b{batch}s{stage - 1}"
            if stage and transfer_s > 0:
                jobs.append(Job(f"{before}>", transfer_s, f"link{stage - 1}", {f"link{stage - 1}": 1.0}, (before,)))
                before += ">"
            jobs.append(Job(f"b{batch}s{stage}", seconds, f"stage{stage}", {}, (before,) if stage else ()))
    return jobs


def overlapped_halves(
    compute_s: float, link_s: float, layers: int, *, sm_share: float = 0.0, split: float = 0.5
) -> list[Job]:
    """Two parts of the tokens, one computing while the other communicates (TokenWeave).

    `compute_s` and `link_s` are one layer's compute and all-reduce for all tokens; `split` the first part's share;
    `sm_share` the SMs that the all-reduce takes from compute.
    """
    if not 0 < split < 1 or not 0 <= sm_share < 1:
        raise InputError("split must lie in (0, 1) and the SM share in [0, 1)", seen=f"{split}, {sm_share}")
    jobs: list[Job] = []
    for layer in range(layers):
        for part, share in (("a", split), ("b", 1 - split)):
            before = (f"{part}{layer - 1}comm",) if layer else ()
            jobs.append(Job(f"{part}{layer}comp", compute_s * share, "compute", {"sm": 1.0}, before))
            use = {"link": 1.0, "sm": sm_share} if sm_share else {"link": 1.0}
            jobs.append(Job(f"{part}{layer}comm", link_s * share, "link", use, (f"{part}{layer}comp",)))
    return jobs


def nano_batches(operations: Sequence[Job], parts: int = 2, *, reload: float = 0.0) -> list[Job]:
    """Split a chain of operations of one layer into nano-batches, each resource its own stream (NanoFlow).

    `operations` run in order for the whole batch. Each becomes `parts` jobs of 1/parts the work (`reload` adds a share
    of the work to every part after the first for weights read again); nano-batches are independent, so different
    resources work at the same time.
    """
    jobs: list[Job] = []
    for index, operation in enumerate(operations):
        for part in range(parts):
            work = operation.work_s / parts * (1.0 + (reload if part else 0.0))
            before = (f"n{part}:{operations[index - 1].name}",) if index else ()
            jobs.append(replace(operation, name=f"n{part}:{operation.name}", work_s=work, depends=before))
    return jobs


def prefetched(layer_s: Sequence[float], load_s: Sequence[float], *, depth: int = 1) -> list[Job]:
    """Layers whose weights come over a host link, `depth` layers ahead of their use (FlexGen, ZeRO-Inference).

    Buffers for ``depth + 1`` layers: the load of layer i waits for the compute of layer i - depth - 1.
    """
    jobs: list[Job] = []
    for index, (compute, load) in enumerate(zip(layer_s, load_s, strict=True)):
        freed = (f"compute{index - depth - 1}",) if index > depth else ()
        jobs.append(Job(f"load{index}", load, "host-link", {"host-link": 1.0}, freed))
        jobs.append(Job(f"compute{index}", compute, "compute", {"sm": 1.0}, (f"load{index}",)))
    return jobs


def sharers(work_s: Sequence[float], resource: str, fractions: Sequence[float]) -> list[Job]:
    """Independent jobs that contend for one resource: ranks on a fabric, hosts on a CXL port."""
    return [
        Job(f"{resource}{i}", seconds, f"stream{i}", {resource: share})
        for i, (seconds, share) in enumerate(zip(work_s, fractions, strict=True))
    ]
