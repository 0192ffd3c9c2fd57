"""All tile chains of one dimension as arrays, and what they cost once the loop order around them is known.

A tensor's words depend on the chain of its missing dimension alone (docs/formulas/mapping.md). What the other two
dimensions do at a level enters as one letter: how far the run of reuse goes there, and which loops are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.mapping.counts import passes, steps
from hwsim.mapping.machine import DIMS, TENSOR_OF_DIM, TENSORS, Machine
from hwsim.mapping.problem import Gemm

Array = np.ndarray[Any, Any]

# One letter a level (from level 1): no loop at all; mine alone; mine innermost; another alone; another innermost.
NONE, SOLO, INNER, OTHER_SOLO, OTHER = "n", "s", "i", "x", "o"
RUNS_ON: Final = NONE + SOLO
WITHOUT_LOOP: Final = NONE + OTHER_SOLO
WITH_LOOP: Final = SOLO + INNER


@dataclass(frozen=True, slots=True)
class Chains:
    """Chains of one dimension: `tile`, `loop`, `spread` of shape (levels, chains); spread[i] lies below level i."""

    tile: Array
    loop: Array
    spread: Array
    steps: Array


@dataclass(frozen=True, slots=True)
class Entries:
    """Chains under one word of letters, once for each way to hold the tensor.

    `held` indexes the holdings; `energy` in pJ, `words` of shape (entries, ports), `steps` clock steps.
    """

    chain: Array
    held: Array
    tile: Array
    spread: Array
    energy: Array
    words: Array
    steps: Array

    def take(self, at: Array) -> Entries:
        """The entries at some indices."""
        return Entries(
            self.chain[..., at],
            self.held[..., at],
            self.tile[..., at],
            self.spread[..., at],
            self.energy[..., at],
            self.words[at],
            self.steps[at],
        )


def chains_of(
    machine: Machine, d: int, extent: int, admissible: tuple[int, ...], largest: list[int], loops: list[str]
) -> Chains:
    """Every chain of tile extents of dimension d; `largest` bounds the tile of each level but the last.

    `loops`: per level the dimensions that may have loops there.
    """
    values = np.array(admissible, dtype=np.int64)
    columns: list[Array] = []
    tile = np.ones(1, dtype=np.int64)
    last = len(machine.levels) - 1
    for level in range(last + 1):
        below = machine.levels[level - 1]
        fan = below.fanout if level > 0 and DIMS[d] in below.dims and extent > 1 else 1
        tile, columns, spread = _grow(tile, columns, values, tile * fan)
        if level == last:
            loop = -(-extent // tile)
        elif DIMS[d] in loops[level]:
            # a tile that reaches past the extent takes no more room than the extent
            room = largest[level] if largest[level] < extent else int(values[-1])
            tile, columns, loop = _grow(tile, [*columns, spread], values, np.full_like(tile, room))
            spread = columns.pop()
        else:
            loop = np.ones_like(tile)
        columns = [*columns, spread, loop]
        if level < last:
            columns = [*columns, tile]
    tiles = np.stack([*columns[2::3], tile * columns[-1]])
    spreads, factors = np.stack(columns[0::3]), np.stack(columns[1::3])
    return Chains(tiles, factors, spreads, steps(extent, factors, spreads[1:]))


def _grow(tile: Array, columns: list[Array], values: Array, most: Array) -> tuple[Array, list[Array], Array]:
    """Every admissible multiple of each tile up to `most`: (tiles, columns repeated to match, factors)."""
    allowed = (values[None, :] % tile[:, None] == 0) & ((values[None, :] <= most[:, None]) | (values == tile[:, None]))
    which, value = np.nonzero(allowed)
    return values[value], [c[which] for c in columns], values[value] // tile[which]


def holdings(machine: Machine, v: int) -> list[tuple[bool, ...]]:
    """Every allowed set of levels that hold tensor v."""
    found: list[tuple[bool, ...]] = [()]
    t = TENSORS[v]
    for level in machine.levels:
        options = (False,) if t not in level.keep else (True, False) if t in level.bypass or level.group else (True,)
        found = [(*kept, o) for kept in found for o in options]
    return [kept for kept in found if _one_half_each(machine, kept, t)]


def _one_half_each(machine: Machine, kept: tuple[bool, ...], t: str) -> bool:
    for memory in {level.memory for level in machine.levels if level.group}:
        halves = [i for i, level in enumerate(machine.levels) if level.memory == memory]
        count, item = sum(kept[i] for i in halves), machine.levels[halves[0]]
        if count > 1 or (count == 0 and t in item.keep and t not in item.bypass):
            return False
    return True


class Pricer:
    """Entries of one dimension by the letters of its levels; each distinct word of letters is priced once."""

    def __init__(
        self, machine: Machine, gemm: Gemm, d: int, chains: Chains, ports: tuple[tuple[int | None, int | None], ...]
    ) -> None:
        self.machine, self.gemm, self.d, self.chains, self.ports = machine, gemm, d, chains, ports
        self.tensor = TENSOR_OF_DIM[d]
        self.holdings = holdings(machine, self.tensor)
        self.n_ports = 1 + max((p for pair in ports for p in pair if p is not None), default=-1)
        self._known: dict[str, Entries] = {}

    def entries(self, letters: str) -> Entries:
        """Entries of chains whose loops obey the letters of levels 1, 2, ..."""
        if letters not in self._known:
            self._known[letters] = self._price(letters)
        return self._known[letters]

    def _price(self, letters: str) -> Entries:
        loop = self.chains.loop
        good = np.ones(loop.shape[1], dtype=bool)
        for level, letter in enumerate(letters, start=1):
            if letter in WITHOUT_LOOP:
                good &= loop[level] == 1
            elif letter in WITH_LOOP:
                good &= loop[level] > 1
        which = np.flatnonzero(good)
        part = Chains(*(getattr(self.chains, n)[..., which] for n in ("tile", "loop", "spread", "steps")))
        bills = [self._bill(part, kept, letters) for kept in self.holdings]
        times = len(self.holdings)
        return Entries(
            np.tile(which, times),
            np.repeat(np.arange(times), len(which)),
            np.tile(np.minimum(part.tile, self.gemm.extents[self.d]), times),
            np.tile(part.spread, times),
            np.concatenate([energy for energy, _ in bills]),
            np.concatenate([words for _, words in bills]),
            np.tile(part.steps, times),
        )

    def _bill(self, part: Chains, kept: tuple[bool, ...], letters: str) -> tuple[Array, Array]:
        """Energy and words per port of the tensor held at the `kept` levels."""
        energy, words = np.zeros(part.tile.shape[1]), np.zeros((part.tile.shape[1], self.n_ports))

        def add(level: int, read: Array | float, written: Array | float) -> None:
            item, width = self.machine.levels[level], self.machine.widths[self.tensor]
            energy[:] += width * (read * item.read_energy + written * item.write_energy)
            for port, moved in zip(self.ports[level], (read, written), strict=True):
                if port is not None:
                    words[:, port] += width * moved

        holders = [-1, *(i for i, k in enumerate(kept) if k)]
        for child, parent in zip(holders, holders[1:], strict=False):
            moved, fed = self._between(part, child, parent, letters)
            output = self.tensor == 2
            first = self._begun(part, parent) if output else 0.0
            add(parent, moved - first, moved if output else 0.0)
            if child >= 0:
                begun = self._begun(part, child) if output else 0.0
                add(child, fed if output and self.machine.drain_reads else 0.0, fed - begun)
        return energy, words

    def _between(self, part: Chains, child: int, parent: int, letters: str) -> tuple[Array, Array]:
        """Words asked of the parent and words that arrive at all children."""
        time = np.zeros(part.loop.shape, dtype=bool)
        time[child + 1 :] = True
        if child >= 0:
            for level in range(child + 1, len(self.machine.levels)):
                time[level] = letters[level - 1] not in RUNS_ON + INNER
                if letters[level - 1] not in RUNS_ON:
                    break
        return self._passes(part, time, parent), self._passes(part, time, child)

    def _passes(self, part: Chains, time: Array, level: int) -> Array:
        """Words that every instance of a level moves on its own, once each time the counted loops advance."""
        space = np.zeros(part.spread[1:].shape, dtype=bool)
        space[max(level, 0) :] = True
        words: Array = passes(self.gemm.extents[self.d], part.loop, part.spread[1:], time, space)
        return words * self.gemm.sizes[self.tensor] * self.gemm.batch

    def _begun(self, part: Chains, level: int) -> Array:
        """Words of partial sums that begin at a level: once in each of its instances spread over K."""
        return self._passes(part, np.zeros(part.loop.shape, dtype=bool), level)
