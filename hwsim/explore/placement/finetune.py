"""Fine-tuning state over DRAM and CXL cards (arXiv 2507.03305), on the cost model of `hwsim.cost.cxl`.

Bytes a parameter: fp32 master weights, momentum and variance 4 each (read and written by the CPU: 8 each), fp32
gradient 4 (read), 16-bit copies of weights and gradients 2 + 2 that only DMA touches (2 + 2 + 2 a step: weights for
forward and for backward, gradients back). CPU traffic sums to the 28 B of the cost model and scales with its figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hwsim import content
from hwsim.cost.cxl import DMA_BYTES, PASSES
from hwsim.engine import analytic
from hwsim.engine.estimate import Model
from hwsim.errors import unknown_name
from hwsim.explore.placement.phases import Request
from hwsim.explore.placement.tensors import Case, limited
from hwsim.frontends.formats import Formats
from hwsim.ir.mapped import Mapping
from hwsim.ir.platform import Device
from hwsim.mapping.lower import lower
from hwsim.mapping.placement.tier_baselines import aware, interleave, nearest_first
from hwsim.mapping.placement.tiers import Link, Phase, Tensor, Tier, TierProblem
from hwsim.schema.base import validate
from hwsim.schema.loader import single
from hwsim.schema.reader import read
from hwsim.schema.systems import MemoryFile

# name -> (resident bytes, bytes the CPU moves, bytes DMA moves), a parameter
STATE: Final = {
    "master weights": (4, 8, 0),
    "momentum": (4, 8, 0),
    "variance": (4, 8, 0),
    "gradients": (4, 4, 0),
    "16-bit copies": (4, 0, DMA_BYTES),
}
CARD: Final = "cxl-aic"  # the paper's card: 256 GiB
WALKS: Final = ("serial", "parallel")


def finetune_case(
    model: Model, device: Device, request: Request, walk: str = "serial", rooms: Sequence[tuple[str, float]] = ()
) -> Case:
    """One step over the prompt tokens: compute with DMA beside it, then the optimizer.

    `walk`: ``serial`` (one thread walks interleaved pages, as the published baselines) or ``parallel`` (threads on
    disjoint chunks, so tiers work side by side). Raises UnknownNameError for another walk or tier.
    """
    if walk not in WALKS:
        raise unknown_name("walk", walk, WALKS, where="--walk")
    for name, _ in rooms:
        if name not in ("dram", "cxl"):
            raise unknown_name("tier", name, ("dram", "cxl"), where="--room")
    o = device.extra["cxl"]
    forward, parameters = _forward(model, device, request)
    cards, card = int(o["cards"]), content.resolve(CARD, "memory")
    size = validate(MemoryFile, read(card.path)).size * cards
    tiers = (Tier("dram", limited("dram", math.inf, rooms)), Tier("cxl", limited("cxl", size, rooms), cards))
    tensors = tuple(Tensor(name, parameters * b[0]) for name, b in STATE.items())
    scale = float(o["state_bytes"]) / sum(b[1] for b in STATE.values())
    cpu = np.array([b[1] * scale * parameters for b in STATE.values()])
    dma = np.array([float(b[2]) * parameters for b in STATE.values()])
    rates = np.array([float(o["dram"]), float(o["card"]) * cards])
    link = Link("GPU link", float(o["link"]), (0, 1))
    phases = (
        Phase("compute and DMA", dma, rates, PASSES * forward, links=(link,)),
        Phase("optimizer", cpu, rates, serial=walk == "serial"),
    )
    problem = TierProblem(model.name, tiers, tensors, phases)
    rules = {
        "all in DRAM": lambda: nearest_first(problem),
        "all on CXL": lambda: np.tile([0.0, 1.0], (len(tensors), 1)),
        "naive interleave": lambda: interleave(problem),
        "CXL-aware greedy": lambda: aware(problem, range(4), [4]),
    }
    warnings = () if any(n == "dram" for n, _ in rooms) else ("DRAM is taken as large enough: --room dram=128GiB",)
    scenario = {"batch": request.batch, "prompt": request.prompt, "walk": walk, "rooms": dict(rooms)}
    return Case(
        problem, {"compute and DMA": "forward_backward_s", "optimizer": "optimizer_s"}, rules, scenario, warnings
    )


def _forward(model: Model, device: Device, request: Request) -> tuple[float, float]:
    """Seconds of one forward pass and the number of parameters, as the cost model counts them."""
    platform = single(device)
    formats = Formats.of("bf16")
    graph: Any = lower(model.graph("prefill", request.batch, request.prompt, 0, formats), platform, Mapping())
    weights = {str(w.name): float(w.elements) * t.count for t in graph.tasks for w in t.operator.weights}
    return float(analytic.run(graph).time_s), sum(weights.values())
