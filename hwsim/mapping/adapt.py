"""From a device of the catalog to the machine that tiling mappers see (words, clock cycles, pJ).

Assumptions: all three tensors have words of the operands' type; a memory with equal read and write rates has one port
for both; a memory of scope ``unit`` has one instance a core; a core with many multipliers feeds them from operand
latches that hold one word of each tensor and cost nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Final

from hwsim.errors import InputError, unknown_name
from hwsim.ir.platform import ComputeUnit, Device, Memory
from hwsim.mapping.machine import Level, Machine
from hwsim.units import si

# Words a cycle that one multiplier can ask of its nearest level: reads of A, B, Z, an update of Z, three fills.
MOST_WORDS_PER_MAC: Final = 7.0
PJ_PER_J: Final = 1e12
FLOP_PER_MAC: Final = 2
PEAK_ROUNDING: Final = 0.005  # peaks and clocks of datasheets have about three digits (assumption)
ARRAY_ROUNDING: Final = 0.02  # relative: multipliers times clock may be off a peak by this
PREFERRED: Final = ("bf16", "fp16")
COUNTINGS: Final = ("timeloop", "drains")


def machine_of(
    device: Device,
    *,
    dtype: str | None = None,
    word_bits: float | None = None,
    counting: str = "timeloop",
    bypass: bool = False,
) -> Machine:
    """The tiling machine of a device.

    Parameters
    ----------
    dtype: whose peak says how many multipliers work a cycle; None: the first of bf16, fp16 and then the matrix
        engine's own types that the device lists.
    word_bits: bits of one element; None: those of the dtype.
    counting: ``timeloop`` (an output tile leaves a level for free) or ``drains`` (that read counts).
    bypass: let every tensor skip every level but the nearest and the last.

    Raises
    ------
    InputError: the device gives no clock, fewer than two memories, or a peak that no whole number of multipliers has
    (less than one product a cycle, say). UnknownNameError: no such counting or dtype.
    """
    if counting not in COUNTINGS:
        raise unknown_name("counting", counting, COUNTINGS, where="--counting")
    clock = float(device.clock_hz)
    if clock <= 0:
        raise InputError("a tiling needs the clock of the device", where=device.name, fix="give cores.clock")
    core = device.units == 1 and "sram_per_core" in device.extra.get("mesh", {})
    if len(device.memories) < 2 and not core:
        fix = "list an on-chip memory under memories, nearest first"
        raise InputError(f"{device.name} has one memory: nothing to tile for", where=device.name, fix=fix)
    if not all(isinstance(m.size_bytes, int | float) for m in device.memories):
        raise InputError("a tiling maps one machine, not a grid of them", where=device.name)
    unit = _compute(device, dtype)
    bits = word_bits or float(re.findall(r"\d+", unit.dtype)[0])
    a_cycle = float(unit.peak_flop_per_s) / (FLOP_PER_MAC * clock) * (1 + 1e-9)
    levels = _levels(device, clock, bits, _multipliers(device, unit, a_cycle), bypass)
    energy = float(unit.energy_j_per_flop) * FLOP_PER_MAC * PJ_PER_J
    notes = (f"{unit.dtype} operands", *(["one core"] if core else []))
    return Machine(device.name, levels, energy, clock, bits, drain_reads=counting == "drains", notes=notes)


def core_of(device: Device) -> Device:
    """One core with its SRAM where that is the only memory (a wafer); any other device as it is.

    Assumption: rates and peaks are shared evenly by the cores, and operands are in the core's SRAM already.
    """
    mesh = device.extra.get("mesh", {})
    if len(device.memories) != 1 or "sram_per_core" not in mesh:
        return device
    cores, sram = float(device.units), device.memories[0]
    room = float(mesh["sram_per_core"]) - float(mesh.get("reserved_per_core", 0.0))
    rates: dict[str, Any] = {
        "read_bytes_per_s": sram.read_bytes_per_s / cores,
        "write_bytes_per_s": sram.write_bytes_per_s / cores,
    }
    compute = tuple(replace(unit, peak_flop_per_s=unit.peak_flop_per_s / cores) for unit in device.compute)
    return replace(device, units=1, compute=compute, memories=(replace(sram, size_bytes=room, **rates),))


def _multipliers(device: Device, unit: ComputeUnit, a_cycle: float) -> tuple[int, int]:
    """Cores, and multipliers of one, whose products a cycle are those of a peak. Raises InputError.

    A type that needs several cores a product has fewer of them; one that a core does a fraction more of than a whole
    number has the next whole number on fewer cores.
    """
    cores = min(int(device.units), max(int(a_cycle), 1))
    each = whole_array(a_cycle / cores)
    if abs(cores * each - a_cycle) > ARRAY_ROUNDING * a_cycle:
        each = math.ceil(a_cycle / cores)
        cores = max(int(a_cycle / each), 1)
    if abs(cores * each - a_cycle) > ARRAY_ROUNDING * a_cycle:
        raise InputError(
            f"{a_cycle:.3g} products a cycle are no whole number of multipliers",
            where=f"{device.name}.compute.{unit.unit}.{unit.dtype}.peak",
            seen=f"{si(float(unit.peak_flop_per_s), 'FLOP/s')} at {si(float(device.clock_hz), 'Hz')}",
            fix=f"a peak that is a multiple of {si(FLOP_PER_MAC * float(device.clock_hz), 'FLOP/s')}",
        )
    return cores, each


def whole_array(multipliers: float) -> int:
    """Multipliers of a core from a peak and a clock that a datasheet rounded.

    Arrays have sides of powers of two, and a count a little short of the real one would leave half of such an array
    idle: within `PEAK_ROUNDING` the count with the most factors of two is taken, the nearest of equals.
    """
    exact = int(multipliers * (1 + 1e-9))
    if exact < 2 or exact.bit_count() == 1:
        return max(exact, 1)
    low, high = math.ceil(multipliers * (1 - PEAK_ROUNDING)), math.floor(multipliers * (1 + PEAK_ROUNDING))
    for power in range(exact.bit_length(), -1, -1):
        step = 1 << power
        near = [c * step for c in range(-(-low // step), high // step + 1) if c > 0]
        if near:
            return min(near, key=lambda count: abs(count - multipliers))
    return exact


def _compute(device: Device, dtype: str | None) -> ComputeUnit:
    """The matrix engine (any engine, where there is none) of a dtype."""
    usable = [c for c in device.compute if c.unit == "tensor"] or list(device.compute)
    by_name = {c.dtype: c for c in reversed(usable)}
    if dtype is not None and dtype not in by_name:
        raise unknown_name("dtype", dtype, by_name, where=f"{device.name}.compute")
    chosen = dtype or next((name for name in PREFERRED if name in by_name), usable[0].dtype)
    return by_name[chosen]


def _levels(device: Device, clock: float, word_bits: float, counts: tuple[int, int], bypass: bool) -> tuple[Level, ...]:
    """Levels near to far; the fan-out over the cores hangs under the first memory that they share.

    `counts`: cores, and multipliers of one core.
    """
    units, per_unit = counts
    scopes = [m.scope for m in device.memories]
    inside = sum(1 for s in scopes if s == "unit")
    levels = [
        _level(m, clock, word_bits, last=i == len(scopes) - 1, skip=bypass and i > 0)
        for i, m in enumerate(device.memories)
    ]
    if per_unit > 1 or inside == 0:
        fan = per_unit if inside else per_unit * units
        levels.insert(0, Level("latch", 3, 0.0, 0.0, fanout=fan))
        inside += 1 if inside else 0
    elif levels[0].read_words_per_cycle >= MOST_WORDS_PER_MAC:
        levels[0] = _with(levels[0], read_words_per_cycle=math.inf, write_words_per_cycle=math.inf)
    if inside:
        levels[inside - 1] = _with(levels[inside - 1], fanout=units)
    return tuple(levels)


def _level(memory: Memory, clock: float, word_bits: float, *, last: bool, skip: bool) -> Level:
    word = word_bits / 8
    read, write = (float(r) / clock / word for r in (memory.read_bytes_per_s, memory.write_bytes_per_s))
    energy = float(memory.energy_j_per_byte) * word * PJ_PER_J
    return Level(
        memory.name,
        math.inf if last else float(memory.size_bytes) // word,
        _tidy(energy),
        _tidy(energy),
        read_words_per_cycle=_tidy(read),
        write_words_per_cycle=_tidy(write),
        shared_port=read == write,
        bypass="ABZ" if skip and not last else "",
    )


def _with(level: Level, **changes: float) -> Level:
    return replace(level, **changes)  # type: ignore[arg-type]


def _tidy(value: float) -> float:
    """The value without the last digits that unit conversion leaves behind."""
    return float(f"{value:.12g}")
