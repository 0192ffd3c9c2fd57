"""What a machine allows: ports that can bind, words that tiles may fill, and the largest tile of each level."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from hwsim.errors import InfeasibleError
from hwsim.mapping.machine import IRRELEVANT, TENSORS, Machine
from hwsim.mapping.problem import Gemm


@dataclass(frozen=True)
class Ports:
    """Finite ports: names, rate in words a cycle, and which port each level reads and writes through."""

    names: tuple[str, ...]
    rates: tuple[float, ...]
    levels: tuple[tuple[int | None, int | None], ...]
    owner: tuple[int, ...]


def ports_of(machine: Machine) -> Ports:
    """The ports that can bind. Levels of one group share theirs."""
    names: dict[str, int] = {}
    rates: list[float] = []
    owner: list[int] = []
    levels = []

    def port(name: str, rate: float, level: int) -> int | None:
        if not math.isfinite(rate):
            return None
        if name not in names:
            names[name] = len(rates)
            rates.append(rate)
            owner.append(level)
        return names[name]

    for index, level in enumerate(machine.levels):
        if level.shared_port:
            both = port(level.memory, level.read_words_per_cycle, index)
            levels.append((both, both))
        else:
            read = port(f"{level.memory} read", level.read_words_per_cycle, index)
            levels.append((read, port(f"{level.memory} write", level.write_words_per_cycle, index)))
    return Ports(tuple(names), tuple(rates), tuple(levels), tuple(owner))


def capacity(machine: Machine, level: int) -> float:
    """Words of one instance that tiles may fill: half where every tile is held twice."""
    item = machine.levels[level]
    return item.words / 2 if item.double_buffer else item.words


def masks_of(machine: Machine, level: int) -> list[tuple[bool, bool, bool]]:
    """The sets of tensors that a level may hold."""
    item = machine.levels[level]
    options = [(False,) if t not in item.keep else (True, False) if t in item.bypass else (True,) for t in TENSORS]
    return [(a, b, z) for a, b, z in itertools.product(*options)]


def largest_tiles(machine: Machine, gemm: Gemm, level: int) -> tuple[int, int, int]:
    """Per dimension the largest extent that fits when the other two are 1 and only forced tensors are held.

    Raises InfeasibleError where not even single elements fit.
    """
    item, room = machine.levels[level], capacity(machine, level)
    if math.isinf(room):
        return (2 * gemm.m + 64, 2 * gemm.n + 64, 2 * gemm.k + 64)
    forced = [v for v in range(3) if TENSORS[v] in item.keep and TENSORS[v] not in item.bypass and not item.group]
    if sum(machine.widths[v] for v in forced) > room:
        raise does_not_fit(machine, level, forced)
    out = []
    for d in range(3):
        slope = sum(machine.widths[v] for v in forced if IRRELEVANT[v] != d)
        rest = sum(machine.widths[v] for v in forced if IRRELEVANT[v] == d)
        out.append(int((room - rest) / slope) if slope else 2 * gemm.extents[d] + 64)
    return (out[0], out[1], out[2])


def does_not_fit(machine: Machine, level: int, forced: list[int]) -> InfeasibleError:
    """The refusal of a level that cannot hold one element of each tensor that it must, with the words missing."""
    item = machine.levels[level]
    need = sum(machine.widths[v] for v in forced) * (2 if item.double_buffer else 1)
    names = ", ".join(TENSORS[v] for v in forced)
    short = need - item.words
    return InfeasibleError(
        f"no tiling: level {item.name} cannot hold one element of each of {names}",
        where=f"{machine.name}.{item.name}",
        seen=f"{item.words:g} words, {need:g} needed: {short:g} words ({short * machine.word_bits / 8:g} B) short",
        fix=f"enlarge {item.name}, or let a tensor bypass it",
        budget={"words": item.words, "needed_words": need, "shortfall_words": short},
    )
