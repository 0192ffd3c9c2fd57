"""What a decision means for a cost model: seconds of computing, bytes by memory, beyond what must move anyway.

The ideal of an operator moves every tensor once. A tiling moves some of them again; those bytes are the excess, and a
cost model adds them to its ideal. So a mapped operator is never faster than its ideal, and equal to it where nothing
is fetched twice and no multiplier idles. The first read of an activation that the ideal leaves in the last-level
cache stays free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.ir.platform import Device
from hwsim.mapping.machine import Machine
from hwsim.mapping.problem import Counts, Gemm


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one execution. `level_s` are seconds that each on-chip port is busy, `moved_bytes` all bytes at each memory.

    `excess_bytes` counts main memory only: what the mapping moves beyond every tensor once.
    """

    compute_s: float
    excess_bytes: float
    level_s: Mapping[str, float] = field(default_factory=dict)
    moved_bytes: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in `Task.choice`."""
        return {
            "compute_s": self.compute_s,
            "excess_bytes": self.excess_bytes,
            "level_s": dict(self.level_s),
            "moved_bytes": dict(self.moved_bytes),
        }


def effect_of(machine: Machine, device: Device, gemm: Gemm, counts: Counts) -> Effect:
    """The effect of one tiled GEMM.

    Assumptions: those of the counts (perfect overlap, free multicast); the clock of the machine is the device's.
    """
    word = machine.word_bits / 8
    words = level_words(machine, counts)
    main = machine.levels[-1].memory
    least = sum(s * w for s, w in zip(gemm.sizes, machine.widths, strict=True)) * gemm.batch
    known = {m.name for m in device.memories}
    return Effect(
        compute_s=float(counts.cycles_by["compute"]) / machine.clock_hz,
        excess_bytes=max(words[main] - least, 0.0) * word,
        level_s=port_s(machine, counts.cycles_by),
        moved_bytes={name: amount * word for name, amount in words.items() if name in known},
    )


def level_words(machine: Machine, counts: Counts) -> dict[str, float]:
    """Words read, filled and updated at every memory, near to far."""
    widths = np.array(machine.widths)
    found: dict[str, float] = {}
    for index, level in enumerate(machine.levels):
        moved = counts.reads[index] + counts.fills[index] + counts.updates[index]
        found[level.memory] = found.get(level.memory, 0.0) + float((moved * widths).sum())
    return found


def port_s(machine: Machine, cycles_by: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that the busier port of every on-chip memory needs."""
    found: dict[str, float] = {}
    for level in machine.levels[:-1]:
        keys = (level.memory, f"{level.memory} read", f"{level.memory} write")
        cycles = max((float(cycles_by[key]) for key in keys if key in cycles_by), default=0.0)
        if cycles:
            found[level.memory] = cycles / machine.clock_hz
    return found


def total(parts: Sequence[tuple[Effect, int]], extra_bytes: float = 0.0) -> Effect:
    """Effects one after another, each so many times; `extra_bytes` pass main memory between them."""
    level_s: dict[str, float] = {}
    moved: dict[str, float] = {}
    for effect, times in parts:
        for into, found in ((level_s, effect.level_s), (moved, effect.moved_bytes)):
            for name, value in found.items():
                into[name] = into.get(name, 0.0) + value * times
    compute = sum(effect.compute_s * times for effect, times in parts)
    excess = sum(effect.excess_bytes * times for effect, times in parts)
    return Effect(compute, excess + extra_bytes, level_s, moved)
