"""All tile chains of one dimension as arrays, and what they cost once the loop order around them is known.

A tensor's words depend on the chain of its missing dimension alone (docs/formulas/mapping.md). What the other two
dimensions do at a level enters as one letter: how far the run of reuse goes there, and which loops are allowed.
"""

from __future__ import annotations

import math
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
    """Costs of the chains of one dimension: its tensor's energy, words per port, and the log of its clock steps.

    Costs are arrays of shape (costs, chains), energy first, log steps last. The run of reuse is all that loop order
    decides: `run` is the last level whose loops over the dimension go on without a new tile.
    """

    def __init__(
        self, machine: Machine, gemm: Gemm, d: int, chains: Chains, ports: tuple[tuple[int | None, int | None], ...]
    ) -> None:
        self.machine, self.gemm, self.d, self.chains, self.ports = machine, gemm, d, chains, ports
        self.tensor = TENSOR_OF_DIM[d]
        self.holdings = holdings(machine, self.tensor)
        self.tile = np.minimum(chains.tile, gemm.extents[d])  # what it takes of a memory
        self.n_ports = 1 + max((p for pair in ports for p in pair if p is not None), default=-1)
        self._bills: dict[tuple[int, int, int], Array] = {}
        self._shares: dict[tuple[int, int, int], Array] = {}

    def run(self, letters: str, level: int) -> int:
        """The last level whose loops leave the tile of `level` in place; `letters` are of levels 1, 2, ..."""
        for outer in range(level + 1, len(self.machine.levels)):
            if letters[outer - 1] == INNER:
                return outer
            if letters[outer - 1] not in RUNS_ON:
                return outer - 1
        return len(self.machine.levels) - 1

    def allowed(self, letters: str, above: int = 0) -> Array:
        """Chains whose loops at the levels beyond `above` obey their letters."""
        good = np.ones(self.chains.loop.shape[1], dtype=bool)
        for level in range(above + 1, len(self.machine.levels)):
            letter = letters[level - 1]
            if letter in WITHOUT_LOOP:
                good &= self.chains.loop[level] == 1
            elif letter in WITH_LOOP:
                good &= self.chains.loop[level] > 1
        return np.flatnonzero(good)

    def share(self, holding: int, level: int, letters: str) -> Array:
        """Costs of all chains on the boundary above `level`, with what the multipliers ask if it is the nearest."""
        key = (holding, level, self.run(letters, level))
        if key not in self._shares:
            holders = [i for i, kept in enumerate(self.holdings[holding]) if kept]
            cost = np.zeros((self.n_ports + 2, self.chains.loop.shape[1]))
            if level == 0:
                cost += self._bill(-1, holders[0], -1)
                cost[-1] = math.log(self.gemm.extents[self.d])
            if level in holders:
                cost += self._bill(level, holders[holders.index(level) + 1], key[2])
            cost[-1] -= np.log(self.chains.spread[level + 1])
            self._shares[key] = cost
        return self._shares[key]

    def entries(self, letters: str) -> Entries:
        """Every holding of the chains whose loops obey the letters of levels 1, 2, ..."""
        which = self.allowed(letters)
        cost = [
            sum(self.share(h, level, letters)[:, which] for level in range(len(self.machine.levels) - 1))
            for h in range(len(self.holdings))
        ]
        costs: Array = np.concatenate(cost, axis=1)
        chain = np.tile(which, len(self.holdings))
        return Entries(
            chain,
            np.repeat(np.arange(len(self.holdings)), len(which)),
            self.tile[:, chain],
            self.chains.spread[:, chain],
            costs[0],
            costs[1:-1].T,
            self.chains.steps[chain],
        )

    def _bill(self, child: int, parent: int, run: int) -> Array:
        """Costs of the words between two neighbouring holders; child -1: the multipliers."""
        key = (child, parent, run)
        if key not in self._bills:
            bill = np.zeros((self.n_ports + 2, self.chains.loop.shape[1]))
            output = self.tensor == 2
            moved, fed = self._passes(run, parent), self._passes(run, child)
            self._add(bill, parent, moved - self._begun(parent) if output else moved, moved if output else 0.0)
            if child >= 0:
                drained = fed if output and self.machine.drain_reads else 0.0
                self._add(bill, child, drained, fed - self._begun(child) if output else fed)
            self._bills[key] = bill
        return self._bills[key]

    def _add(self, bill: Array, level: int, read: Array | float, written: Array | float) -> None:
        item, width = self.machine.levels[level], self.machine.widths[self.tensor]
        bill[0] += width * (read * item.read_energy + written * item.write_energy)
        for port, moved in zip(self.ports[level], (read, written), strict=True):
            if port is not None:
                bill[1 + port] += width * moved

    def _passes(self, run: int, level: int) -> Array:
        """Words that the instances of a level move on their own, each time a loop beyond the run advances."""
        time = np.zeros(self.chains.loop.shape, dtype=bool)
        time[run + 1 :] = True
        space = np.zeros(self.chains.spread[1:].shape, dtype=bool)
        space[max(level, 0) :] = True
        words: Array = passes(self.gemm.extents[self.d], self.chains.loop, self.chains.spread[1:], time, space)
        return words * self.gemm.sizes[self.tensor] * self.gemm.batch

    def _begun(self, level: int) -> Array:
        """Words of partial sums that begin at a level: once in each of its instances spread over K."""
        return self._passes(len(self.machine.levels) - 1, level)
