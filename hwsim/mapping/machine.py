"""The machine a tiling mapper sees: storage levels near to far, fan-out between them, words and pJ per word.

A `Machine` counts in words and clock cycles, as mapping literature does; `hwsim.mapping.adapt` makes one from a
device file. Level 0 is nearest the multipliers, the last level holds every tensor whole. Each level's `fanout` says
how many instances of it hang under ONE instance of the next level; traffic between them is multicast (operands) and
reduced (outputs) on the way at no cost, the assumption of Timeloop's legacy counting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hwsim.errors import InputError

TENSORS: Final = ("A", "B", "Z")
DIMS: Final = ("M", "N", "K")
# Z[M,N] += A[M,K] x B[K,N]: the one dimension that each tensor lacks, as an index into DIMS, and the inverse.
IRRELEVANT: Final = (1, 0, 2)
TENSOR_OF_DIM: Final = (1, 0, 2)
RELEVANT: Final = ((0, 2), (2, 1), (0, 1))  # the two dimensions that each tensor has


@dataclass(frozen=True, slots=True)
class Level:
    """One storage level.

    Attributes
    ----------
    words: capacity of one instance in words; ``inf`` for the last level.
    fanout: instances under one instance of the next farther level (ignored on the last).
    dims: which of M, N, K may be spread over the fan-out.
    read_words_per_cycle, write_words_per_cycle: bandwidth of one instance; with `shared_port` the read figure
        carries reads and writes together. ``inf``: never binds.
    read_energy, write_energy: pJ a word.
    double_buffer: every tile is held twice so that the next can arrive while one is used.
    keep: tensors the level may hold; `bypass`: those of them that may also skip it.
    loops: which of M, N, K may have loops at this level; `stationary`: which of them may be the innermost one
        (N keeps a tile of A in place while it runs, M one of B, K one of Z): how a fixed dataflow is written.
    group: levels of one group are one memory: they share its capacity and its port, and a tensor sits in at most
        one of them (how uneven tiling is written). Empty: a memory of its own.
    """

    name: str
    words: float
    read_energy: float
    write_energy: float
    fanout: int = 1
    dims: str = "MNK"
    read_words_per_cycle: float = math.inf
    write_words_per_cycle: float = math.inf
    shared_port: bool = True
    double_buffer: bool = False
    keep: str = "ABZ"
    bypass: str = ""
    group: str = ""
    loops: str = "MNK"
    stationary: str = "MNK"

    @property
    def memory(self) -> str:
        """Name of the memory this level is (part of)."""
        return self.group or self.name


@dataclass(frozen=True, slots=True)
class Machine:
    """Levels near to far with the energy of one multiply-accumulate.

    `widths` are words per element of A, B and Z (1 by default; 0.5 for int8 weights on 16-bit words).
    `drain_reads`: count the read of an output tile when it leaves a level (Timeloop's legacy counting does not).
    """

    name: str
    levels: tuple[Level, ...]
    mac_energy: float = 1.0
    clock_hz: float = 1e9
    word_bits: float = 16.0
    widths: tuple[float, float, float] = (1.0, 1.0, 1.0)
    drain_reads: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        _check(self)

    @property
    def multipliers(self) -> int:
        """Product of the fan-outs: how many MACs a cycle can start."""
        return math.prod(level.fanout for level in self.levels[:-1])

    @property
    def batch_level(self) -> int:
        """The farthest level with a fan-out: members of a batch that run side by side are spread there."""
        return max((i for i, level in enumerate(self.levels[:-1]) if level.fanout > 1), default=0)

    def share(self, members: int) -> Machine:
        """What one of `members` GEMMs running side by side has: its part of the fan-out and of what lies above."""
        at = self.batch_level
        levels = list(self.levels)
        for i, level in enumerate(levels):
            if i > at:
                levels[i] = replace(level, words=level.words / members)
            else:
                rates = (level.read_words_per_cycle * members, level.write_words_per_cycle * members)
                levels[i] = replace(level, read_words_per_cycle=rates[0], write_words_per_cycle=rates[1])
        levels[at] = replace(levels[at], fanout=levels[at].fanout // members)
        return replace(self, levels=tuple(levels))

    def level(self, name: str) -> int:
        """Index of the level called `name`. Raises InputError."""
        for index, item in enumerate(self.levels):
            if item.name == name:
                return index
        raise InputError(
            f"machine {self.name!r} has no level {name!r}",
            seen=repr(name),
            fix="levels: " + ", ".join(item.name for item in self.levels),
        )

    def with_level(self, name: str, **changes: Any) -> Machine:
        """A copy with one level changed: the what-if of `sensitivity`."""
        index = self.level(name)
        levels = list(self.levels)
        levels[index] = replace(levels[index], **changes)
        return replace(self, levels=tuple(levels))

    def with_(self, **changes: Any) -> Machine:
        return replace(self, **changes)

    def split_level(self, name: str) -> Machine:
        """A copy where the level is two of one group: tensors may then be tiled unevenly in it.

        The farther half has no loops of its own below it that the nearer half's tensors do not see; the fan-out
        hangs under the nearer half.
        """
        index = self.level(name)
        level = self.levels[index]
        if index == len(self.levels) - 1 or level.group:
            raise InputError("the last level and a split level cannot be split", where=self.name, seen=name)
        near = replace(level, group=level.memory, fanout=1)
        far = replace(level, group=level.memory, name=f"{level.name}+")
        return replace(self, levels=(*self.levels[:index], near, far, *self.levels[index + 1 :]))


def _check(machine: Machine) -> None:
    if not 2 <= len(machine.levels) <= 9:
        raise InputError(
            "a tiling machine has 2 to 5 storage levels (9 with split ones)",
            where=machine.name,
            seen=f"{len(machine.levels)} levels",
        )
    for item in machine.levels:
        _check_level(machine.name, item)
    if not machine.mac_energy >= 0 or not min(machine.widths) > 0:
        raise InputError("energies are >= 0 and widths > 0", where=machine.name, seen=f"widths {machine.widths}")
    last = machine.levels[-1]
    if set(last.keep) != set(TENSORS) or last.bypass:
        raise InputError(f"the last level {last.name!r} keeps A, B and Z", where=machine.name, seen=repr(last.keep))


def _check_level(machine: str, level: Level) -> None:
    where = f"{machine}.{level.name}"
    numbers = (level.words, level.read_words_per_cycle, level.write_words_per_cycle)
    if any(math.isnan(v) or v <= 0 for v in numbers) or level.fanout < 1:
        raise InputError("sizes, bandwidths and fan-out are positive", where=where, seen=repr(level)[:200])
    if not (math.isfinite(level.read_energy) and math.isfinite(level.write_energy)):
        raise InputError("energies are finite", where=where)
    if level.read_energy < 0 or level.write_energy < 0:
        raise InputError("energies are >= 0", where=where)
    if set(level.keep) - set(TENSORS) or set(level.bypass) - set(TENSORS) or set(level.dims) - set(DIMS):
        raise InputError("keep and bypass name tensors of ABZ, dims name M, N, K", where=where)


def machine_from_dict(spec: Mapping[str, Any]) -> Machine:
    """A machine from plain data: ``{"name", "mac_energy", "levels": [{"name", "words", "energy", ...}]}``.

    `energy` is short for equal `read_energy` and `write_energy`, `words_per_cycle` for a shared port.
    Raises InputError for an unknown key.
    """
    levels = tuple(_level_from_dict(item) for item in spec.get("levels", ()))
    known = {"name", "mac_energy", "clock_hz", "word_bits", "widths", "drain_reads", "notes"}
    _refuse_unknown(spec, known | {"levels"}, "machine")
    rest = {key: spec[key] for key in known & set(spec) - {"name"}}
    for key in ("widths", "notes"):
        if key in rest:
            rest[key] = tuple(rest[key])
    return Machine(name=str(spec.get("name", "machine")), levels=levels, **rest)


def _level_from_dict(item: Mapping[str, Any]) -> Level:
    data = dict(item)
    energy = data.pop("energy", None)
    if energy is not None:
        data.setdefault("read_energy", energy)
        data.setdefault("write_energy", energy)
    if "words_per_cycle" in data:
        data.setdefault("read_words_per_cycle", data.pop("words_per_cycle"))
    data.setdefault("words", math.inf)
    for key in ("words", "read_words_per_cycle", "write_words_per_cycle"):
        if data.get(key, 0) is None:
            data[key] = math.inf
    _refuse_unknown(data, set(Level.__dataclass_fields__), "level")
    return Level(**data)


def _refuse_unknown(data: Mapping[str, Any], known: set[str], kind: str) -> None:
    from hwsim.errors import unknown_name

    for key in data:
        if key not in known:
            raise unknown_name(f"{kind} key", key, known)
