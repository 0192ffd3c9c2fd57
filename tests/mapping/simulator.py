"""A deliberately naive loop-nest simulator: runs every tick of a tiling and moves every word one by one.

Written from the definition of a mapped loop nest, not from the formulas of `hwsim.mapping.counts`: real loops over
time and space, tiles that sit in instances, words that are asked for when a multiplier needs them.

- All instances work in lockstep. An instance whose coordinates lie outside the GEMM idles.
- An instance of a level that keeps a tensor holds one tile of it. The tile changes with its position (`by="tile"`),
  or whenever the loops around it advance that a controller counts (`by="loops"`: all but the innermost ones over
  dimensions which the tensor lacks; loops of one pass do not count).
- Each word enters when it is first needed, from the nearest farther level that keeps the tensor: a read there, a
  fill here. Instances that ask one parent for the same word in the same tick share the read (multicast).
- Outputs start as zeros where a level has not seen them yet: no read, no fill. A tile of outputs that is replaced
  goes up as updates; instances under one parent that drain the same word in the same tick are added on the way.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hwsim.mapping.problem import Gemm, Tiling

DEPENDS = {"A": "MK", "B": "KN", "Z": "MN"}


@dataclass(frozen=True)
class Loop:
    """One loop: `level` whose loop it is; of a spread, the level whose instances it spreads."""

    level: int
    spatial: bool
    dim: str
    bound: int
    stride: int


@dataclass
class Moved:
    """What a run did: words by (level, tensor), ticks with work, most words of a tensor
    that one instance held; words by instance."""

    reads: Counter[Any] = field(default_factory=Counter)
    fills: Counter[Any] = field(default_factory=Counter)
    updates: Counter[Any] = field(default_factory=Counter)
    ticks: int = 0
    macs: int = 0
    peak: dict[Any, int] = field(default_factory=dict)
    busiest: dict[Any, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))


def loops_of(tiling: Tiling, batch: int, batch_level: int) -> list[Loop]:
    """All loops from the outermost inward; the batch is the outermost in time and in space."""
    inward: list[tuple[int, bool, str, int]] = []
    side = tiling.batch_spatial
    last = len(tiling.temporal) - 1
    inward.append((last, False, "batch", -(-batch // side)))
    for level in range(last, -1, -1):
        if level == batch_level and level < last:
            inward.append((level, True, "batch", side))
        if level < last:
            inward += [(level, True, d, tiling.spatial[level]["MNK".index(d)]) for d in "MNK"]
        inward += [(level, False, d, tiling.temporal[level]["MNK".index(d)]) for d in tiling.order[level]]
    stride: Counter[str] = Counter(dict.fromkeys(("M", "N", "K", "batch"), 1))
    loops = []
    for level, spatial, dim, bound in reversed(inward):
        loops.append(Loop(level, spatial, dim, bound, stride[dim]))
        stride[dim] *= bound
    return loops[::-1]


class Run:
    """One execution of a tiling."""

    def __init__(
        self, gemm: Gemm, tiling: Tiling, batch_level: int = 0, drains: bool = False, by: str = "tile"
    ) -> None:
        self.extents = {"M": gemm.m, "N": gemm.n, "K": gemm.k, "batch": gemm.batch}
        self.tiling, self.drains, self.by = tiling, drains, by
        self.loops = loops_of(tiling, gemm.batch, batch_level)
        self.time = [loop for loop in self.loops if not loop.spatial]
        self.space = [loop for loop in self.loops if loop.spatial]
        self.last = len(tiling.keep) - 1
        self.keepers = {t: [i for i, kept in enumerate(tiling.keep) if t in kept] for t in "ABZ"}
        self.out = Moved()
        self.tile: dict[Any, Any] = {}  # (level, tensor, instance) -> mark of the tile that is there
        self.held: dict[Any, set[Any]] = defaultdict(set)  # the words of it that have arrived
        self.seen: dict[Any, set[Any]] = defaultdict(set)  # outputs that the instance has ever begun

    def run(self) -> Moved:
        """Every tick in order, then what is left drains."""
        for passes in itertools.product(*(range(loop.bound) for loop in self.time)):
            working = list(self._working(passes))
            if not working:
                continue
            self.out.ticks += 1
            self._replace(passes)
            for tensor in "ABZ":
                self._tick(tensor, working)
        self._drain([key for key in self.tile if key[1] == "Z"])
        return self.out

    def _at(self, passes: tuple[int, ...], places: tuple[int, ...]) -> dict[str, int]:
        where = dict.fromkeys(self.extents, 0)
        for loop, i in itertools.chain(zip(self.time, passes, strict=True), zip(self.space, places, strict=True)):
            where[loop.dim] += i * loop.stride
        return where

    def _places(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(loop.bound) for loop in self.space))

    def _working(self, passes: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], dict[str, int]]]:
        for places in self._places():
            where = self._at(passes, places)
            if all(where[d] < extent for d, extent in self.extents.items()):
                yield places, where

    def _instance(self, level: int, places: tuple[int, ...]) -> tuple[int, ...]:
        """Which instance of a level lies above a multiplier; the member of the batch first, always apart."""
        pairs = list(zip(self.space, places, strict=True))
        member = next((i for loop, i in pairs if loop.dim == "batch"), 0)
        return (member, *(i for loop, i in pairs if loop.level >= level and loop.dim != "batch"))

    def _mark(self, level: int, tensor: str, passes: tuple[int, ...]) -> tuple[int, ...]:
        """What says that the tile of a level is another one."""
        around = [(loop, i) for loop, i in zip(self.time, passes, strict=True) if loop.level > level and loop.bound > 1]
        mine = {*DEPENDS[tensor], "batch"}
        if self.by == "loops":
            while around and around[-1][0].dim not in mine:
                around.pop()
            return tuple(i for _, i in around)
        return tuple(i for loop, i in around if loop.dim in mine)

    def _replace(self, passes: tuple[int, ...]) -> None:
        """Tiles that are no longer wanted leave, in all instances at once."""
        gone = []
        for key in self.tile:
            mark = self._mark(key[0], key[1], passes)
            if self.tile[key] != mark:
                gone.append(key)
                self.tile[key] = mark
        self._drain([key for key in gone if key[1] == "Z"])
        for key in gone:
            self.held[key] = set()
        for tensor, levels in self.keepers.items():
            for level in levels[:-1]:
                for places in self._places():
                    self.tile.setdefault(
                        (level, tensor, self._instance(level, places)), self._mark(level, tensor, passes)
                    )

    def _drain(self, keys: list[Any]) -> None:
        """Outputs of replaced tiles go to the next keeper, near levels first; equal words add up on the way."""
        for level in self.keepers["Z"][:-1]:
            parent = next(i for i in self.keepers["Z"] if i > level)
            arriving = set()
            for key in keys:
                if key[0] != level:
                    continue
                for word in self.held[key]:
                    if self.drains:
                        self._move("reads", level, "Z", key[2])
                    arriving.add((self._above(level, parent, key[2]), word))
            for instance, _ in arriving:
                self._move("updates", parent, "Z", instance)

    def _above(self, level: int, parent: int, instance: tuple[int, ...]) -> tuple[int, ...]:
        mine = [loop for loop in self.space if loop.level >= level and loop.dim != "batch"]
        pairs = zip(mine, instance[1:], strict=True)
        return (instance[0], *(i for loop, i in pairs if loop.level >= parent))

    def _tick(self, tensor: str, working: list[tuple[tuple[int, ...], dict[str, int]]]) -> None:
        """Every working multiplier uses one word of the tensor."""
        asks = set()
        for places, where in working:
            word = (where["batch"], *(where[d] for d in DEPENDS[tensor]))
            asks.add((self._instance(-1, places), word, places))
            if tensor == "A":
                self.out.macs += 1
        child = -1
        for parent in self.keepers[tensor]:
            asks = self._ask(tensor, child, parent, asks)
            child = parent

    def _ask(self, tensor: str, child: int, parent: int, asks: set[Any]) -> set[Any]:
        """Words that instances of `child` ask of `parent` this tick; what the parents lack themselves is returned."""
        served = {(self._instance(parent, places), word): places for _, word, places in asks}
        missing = set()
        for (at, word), places in served.items():
            key = (parent, tensor, at)
            known = tensor != "Z" or word in self.seen[key]
            self.seen[key].add(word)
            if known:
                self._move("reads", parent, tensor, at)
            if tensor == "Z" and child < 0:
                self._move("updates", parent, tensor, at)
            if parent < self.last and word not in self.held[key]:
                self.held[key].add(word)
                self.out.peak[parent, tensor] = max(self.out.peak.get((parent, tensor), 0), len(self.held[key]))
                missing.add((at, word, places))
                if known:
                    self._move("fills", parent, tensor, at)
        return missing

    def _move(self, kind: str, level: int, tensor: str, instance: tuple[int, ...]) -> None:
        getattr(self.out, kind)[level, tensor] += 1
        self.out.busiest[level, kind, tensor][instance] += 1
