"""Fine-tuning with optimizer state on the host and CXL cards beside its DRAM (arXiv 2507.03305).

One prompt pass of the graph is the forward of a step; backward costs two more. Mixed-precision Adam on the CPU passes
over `state_bytes` a parameter and is bound by memory; DMA to the GPU hides behind compute unless it is longer.

- optimizer = state_bytes N x (share / rate of each tier), tiers one after another (pages interleaved)
- DMA = 6 N bytes / min(link, cards x card rate or DRAM rate, over the GPUs that share them)
- overlap: a share of the optimizer runs beside the next pass; where both touch the cards, DMA waits for its bytes
- step = max(forward + backward, DMA) + (1 - overlap) optimizer

Formulas: docs/formulas/memory-beyond-hbm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from hwsim.cost.bracketed import bracketed, held
from hwsim.cost.roofline import dynamic_energy_j, largest
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.5  # times and divided by (assumption: no residuals of other machines are published)
DMA_BYTES: Final = 6  # of a parameter a step: 16-bit weights for forward and backward, 16-bit gradients back
PASSES: Final = 3  # forward, and a backward of twice its work
# share of the CPU's state in DRAM, and whether the GPU's copies lie on the cards
_PLACEMENTS: Final = {"dram": (1.0, False), "cxl": (0.0, True), "interleave": (0.5, True), "aware": (1.0, True)}


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one forward execution: a sustained share of the matrix peak, or the GPU's memory."""
    o = platform.device.extra["cxl"]
    floors = held(task, platform)
    parts = {k: plain(v / o["mfu"] if k == "compute" else v) for k, v in floors.parts_s.items()}
    energy = dynamic_energy_j(task, platform)
    return bracketed(largest(parts), parts, floors, BAND, energy_j=energy, model="cxl")


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Optimizer and step time of one training step over the prompt tokens, and its rate."""
    first = timelines[0]
    o = first.graph.platform.device.extra["cxl"]
    weights = {w.name: w.elements * t.count for t in first.graph.tasks for w in t.operator.weights}
    count = sum(weights.values(), 0)
    in_dram, on_cards = _PLACEMENTS[o["placement"]]
    optimizer = count * o["state_bytes"] * (in_dram / o["dram"] + (1 - in_dram) / (o["cards"] * o["card"]))
    source = o["cards"] * o["card"] if on_cards else o["dram"]
    in_the_way = count * o["state_bytes"] * o["overlap"] * ((1 - in_dram) if on_cards else in_dram)
    dma = np.maximum(
        count * DMA_BYTES / o["link"],  # each GPU has a link of its own, and all of them share the memory behind
        (o["gpus"] * count * DMA_BYTES + in_the_way) / source,
    )
    step = np.maximum(first.time_s * PASSES, dma) + (1 - o["overlap"]) * optimizer
    return {
        "optimizer_s": Bracket(plain(optimizer)),
        "dma_s": Bracket(plain(dma)),
        "step_s": Bracket(plain(step)),
        "training_tokens_per_s": Bracket(plain(_rate(first.graph.tokens, step))),
    }


def _rate(tokens: Num, step: Num) -> Num:
    return tokens / step


def placements() -> tuple[str, ...]:
    """Names of the placement policies."""
    return tuple(_PLACEMENTS)
