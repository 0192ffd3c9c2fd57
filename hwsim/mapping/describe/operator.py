"""One mapped GEMM and its machine as plain data (`hwsim/mapping@1`): words, bytes where said, joules, seconds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from hwsim.ir.mapped import SolverReport
from hwsim.mapping.legality import footprint
from hwsim.mapping.machine import DIMS, TENSORS, Level, Machine
from hwsim.mapping.problem import Counts, Gemm, Tiling
from hwsim.mapping.protocol import energy_floor, floor_of
from hwsim.mapping.tiling.result import cycle_floor

PJ: Final = 1e-12


def compulsory(machine: Machine, gemm: Gemm) -> dict[str, float]:
    """Words of each tensor that pass every level at least once: A and B read, Z written."""
    return {t: s * w * gemm.batch for t, s, w in zip(TENSORS, gemm.sizes, machine.widths, strict=True)}


def report_of(report: SolverReport) -> dict[str, Any]:
    """A solver report as data; what a solver did not say is None."""
    data = {key: getattr(report, key) for key in report.__slots__}
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in data.items()}


def ideal(machine: Machine, gemm: Gemm, objective: str, report: SolverReport, known: bool) -> dict[str, Any]:
    """The figures of a GEMM for which no loops were decided: its floors."""
    floor = cycle_floor(machine, gemm)
    value = floor_of(machine, gemm, objective)
    return {
        "tiling": None,
        "levels": [],
        "cycles": floor,
        "time_s": floor / machine.clock_hz,
        "energy_j": energy_floor(machine, gemm) * PJ if known else None,
        "energy_split": {},
        "cycles_by": {},
        "utilization": gemm.macs / (floor * machine.multipliers),
        "report": report_of(replace(report, objective=value, bound=value, gap=0.0)),
    }


def mapped(machine: Machine, gemm: Gemm, tiling: Tiling, counts: Counts, known: bool) -> dict[str, Any]:
    """Loops, tiles, words, energy and cycles of a tiling."""
    cycles = int(counts.cycles)
    return {
        "tiling": tiling.to_dict(),
        "levels": [_level(machine, gemm, tiling, counts, i) for i in range(len(machine.levels))],
        "cycles": cycles,
        "time_s": cycles / machine.clock_hz,
        "energy_j": float(counts.energy) * PJ if known else None,
        "energy_split": {k: float(v) * PJ for k, v in counts.energy_by.items()} if known else {},
        "cycles_by": {k: float(v) for k, v in counts.cycles_by.items()},
        "utilization": gemm.macs / (cycles * machine.multipliers),
    }


def _level(machine: Machine, gemm: Gemm, tiling: Tiling, counts: Counts, index: int) -> dict[str, Any]:
    """One level: loops, tile, what stays, and the words by tensor; `served_words` are those for the nearer side."""
    item = machine.levels[index]
    loops = {d: f for d, f in zip(DIMS, tiling.temporal[index], strict=True) if f > 1}
    words = {
        t: {
            "reads": int(counts.reads[index][v]),
            "fills": int(counts.fills[index][v]),
            "updates": int(counts.updates[index][v]),
        }
        for v, t in enumerate(TENSORS)
    }
    last = index == len(machine.levels) - 1
    spread = {} if last else {d: f for d, f in zip(DIMS, tiling.spatial[index], strict=True) if f > 1}
    held = footprint(machine, index, gemm, tiling)
    instances = _instances(machine, tiling, index)
    return {
        "name": item.name,
        "loops_outer_to_inner": [[d, loops[d]] for d in tiling.order[index] if d in loops],
        "spread": spread,
        "fanout": 1 if last else item.fanout,
        "fanout_used": 1 if last else _used(machine, tiling, index),
        "tile_mnk": list(tiling.tile(index)),
        "keeps": tiling.keep[index],
        "held_words": held,
        "used_words": sum(held.values()),
        "words": None if math.isinf(item.words) else item.words,
        "instances_used": instances,
        "traffic": words,
        "served_words": sum(w["reads"] + w["updates"] for w in words.values()),
        "busy_cycles": _busy(machine, item, words, instances),
    }


def _used(machine: Machine, tiling: Tiling, index: int) -> int:
    """Instances of a level that work under one instance of the next."""
    members = tiling.batch_spatial if index == machine.batch_level else 1
    return math.prod(tiling.spatial[index]) * members


def _instances(machine: Machine, tiling: Tiling, index: int) -> int:
    """Instances of a level that work in the whole machine."""
    return math.prod(_used(machine, tiling, i) for i in range(index, len(machine.levels) - 1))


def _busy(
    machine: Machine, item: Level, words: dict[str, dict[str, int]], instances: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Cycles that each port works for each tensor: ``{port: {tensor: {"reads", "fills", "updates"}}}``."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for port, kinds, rate in ports_of(item):
        if math.isfinite(rate):
            table[port] = {
                t: {kind: words[t][kind] * machine.widths[v] / instances / rate for kind in kinds}
                for v, t in enumerate(TENSORS)
            }
    return table


def ports_of(item: Level) -> tuple[tuple[str, tuple[str, ...], float], ...]:
    """(name, the kinds of words it carries, words a cycle) of each port of a level, named as in `Counts.cycles_by`."""
    if item.shared_port:
        return ((item.memory, ("reads", "fills", "updates"), item.read_words_per_cycle),)
    return (
        (f"{item.memory} read", ("reads",), item.read_words_per_cycle),
        (f"{item.memory} write", ("fills", "updates"), item.write_words_per_cycle),
    )


def machine_of_document(machine: Machine, known: bool) -> dict[str, Any]:
    """The machine as data; None stands for infinite, and for energies that the device file does not give."""
    byte = machine.word_bits / 8
    return {
        "name": machine.name,
        "clock_hz": machine.clock_hz,
        "word_bits": machine.word_bits,
        "notes": list(machine.notes),
        "multipliers": machine.multipliers,
        "mac_pj": machine.mac_energy if known else None,
        "levels": [
            {
                "name": item.name,
                "memory": item.memory,
                "words": _finite(item.words),
                "bytes": _finite(item.words * byte),
                "fanout": item.fanout,
                "words_per_cycle": _finite(item.read_words_per_cycle),
                "write_words_per_cycle": _finite(item.write_words_per_cycle),
                "shared_port": item.shared_port,
                "bytes_per_s": _finite(item.read_words_per_cycle * byte * machine.clock_hz),
                "pj_per_word": item.read_energy if known else None,
                "write_pj_per_word": item.write_energy if known else None,
                "double_buffer": item.double_buffer,
            }
            for item in machine.levels
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
