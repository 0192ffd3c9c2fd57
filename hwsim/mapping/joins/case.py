"""One GEMM on one machine, laid out for joining: limits, entries of each dimension, and exact costs of triples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hwsim.mapping.candidates import Options, admissible_extents
from hwsim.mapping.joins.bounds import Cells, cells_of
from hwsim.mapping.joins.chains import INNER, NONE, OTHER, OTHER_SOLO, SOLO, Entries, Pricer, chains_of
from hwsim.mapping.machine import DIMS, IRRELEVANT, RELEVANT, TENSORS, Machine
from hwsim.mapping.problem import Gemm, Tiling
from hwsim.mapping.tiling.limits import capacity, largest_tiles, ports_of

Array = np.ndarray[Any, Any]
Way = tuple[str, int]  # what happens at a level: (NONE, -1), (SOLO, d) or (INNER, d)


class Case:
    """Everything about one GEMM (or the members of a batch that run one after another) on one machine.

    `loops`: per level the dimensions that may have loops there; `inner`: per level those that may be innermost.
    """

    def __init__(
        self,
        machine: Machine,
        gemm: Gemm,
        options: Options,
        members: int = 1,
    ) -> None:
        self.machine, self.gemm = machine, gemm
        self.rounds = -(-gemm.batch // members)
        self.last = len(machine.levels) - 1
        self.constant = gemm.macs * machine.mac_energy
        ports = ports_of(machine)
        self.rates, self.port_owner = np.array(ports.rates), ports.owner
        largest = [largest_tiles(machine, gemm, level) for level in range(self.last + 1)]
        self.pricers = []
        for d in range(3):
            extents = admissible_extents(gemm.extents[d], options)
            loops = [level.loops for level in machine.levels]
            chains = chains_of(machine, d, gemm.extents[d], extents, [row[d] for row in largest], loops)
            self.pricers.append(Pricer(machine, gemm, d, chains, ports.levels))
        self.memories = self._memories()
        self.fanouts = [i for i, level in enumerate(machine.levels[:-1]) if level.fanout > 1]
        work = gemm.m * gemm.n * gemm.k * self.rounds
        self.least_energy, once = self._once()
        self.floor = math.ceil(max(work / self._widest(), once) * (1 - 1e-13))
        self.cells = [self._cells(level) for level in range(self.last)]

    def _once(self) -> tuple[float, float]:
        """Least energy in pJ and cycles of the last level, which every operand leaves and every result enters once."""
        last = self.machine.levels[-1]
        words = [s * w * self.gemm.batch for s, w in zip(self.gemm.sizes, self.machine.widths, strict=True)]
        out, into = words[0] + words[1], words[2]
        energy = self.constant + out * last.read_energy + into * last.write_energy
        if last.shared_port:
            return energy, (out + into) / last.read_words_per_cycle
        return energy, max(out / last.read_words_per_cycle, into / last.write_words_per_cycle)

    def _memories(self) -> list[tuple[list[int], float]]:
        """Finite memories as (levels, words that tiles may fill)."""
        found: dict[str, list[int]] = {}
        for i, level in enumerate(self.machine.levels[:-1]):
            if math.isfinite(level.words):
                found.setdefault(level.memory, []).append(i)
        return [(levels, capacity(self.machine, levels[0])) for levels in found.values()]

    def ways(self, level: int) -> list[Way]:
        """What may happen at a level; together these cover every loop order (docs/formulas/mapping.md)."""
        may = [d for d in range(3) if DIMS[d] in self.machine.levels[level].loops and self.gemm.extents[d] > 1]
        found: list[Way] = [(NONE, -1), *((SOLO, d) for d in may)]
        half = self.machine.levels[level].memory == self.machine.levels[level - 1].memory
        if not half and len(may) > 1:  # one loop at most runs between the halves of a split memory
            inner = [d for d in may if DIMS[d] in self.machine.levels[level].stationary]
            found += [(INNER, d) for d in inner]
        if level == self.last:  # nothing runs on beyond the last level: a lone loop is an innermost one
            found = [w for w in found if w[0] != SOLO or len(may) == 1 or (INNER, w[1]) not in found]
        return found

    @staticmethod
    def letter(way: Way, d: int) -> str:
        """The way of a level in the eyes of dimension d."""
        kind, mine = way
        if kind == NONE:
            return NONE
        if d == mine:
            return kind
        return OTHER_SOLO if kind == SOLO else OTHER

    def _cells(self, level: int) -> Cells:
        tiles = [pricer.tile[level] for pricer in self.pricers]
        return cells_of(self.machine, level, tiles, [pricer.chains.spread[level + 1] for pricer in self.pricers])

    def letters(self, ways: tuple[Way, ...], d: int) -> str:
        """The ways of levels 1, 2, ... in the eyes of dimension d."""
        return "".join(self.letter(way, d) for way in ways)

    def axes(self, part: Entries) -> list[Array]:
        """What entries take of shared room: tile extents at finite memories, spreads over fan-outs."""
        rows = [part.tile[level] for levels, _ in self.memories for level in levels]
        return [*rows, *(part.spread[at + 1] for at in self.fanouts)]

    def _widest(self) -> float:
        """Most multipliers that any triple of admissible spreads uses."""
        total = 1.0
        for at in self.fanouts:
            products = np.ones(1, dtype=np.int64)
            for pricer in self.pricers:
                products = np.unique(np.outer(products, np.unique(pricer.chains.spread[at + 1])))
                products = products[products <= self.machine.levels[at].fanout]
            total *= float(products[-1])
        return total

    def held(self, d: int) -> Array:
        """Which levels hold the tensor that lacks d, shape (holdings, levels)."""
        return np.array(self.pricers[d].holdings)

    def cycles(self, steps: Array, words: Array, used: Callable[[int], Array]) -> Array:
        """Clock cycles of steps and words per port (last axis); `used(level)` instances of a level."""
        worst = steps * float(self.rounds)
        for port, rate in enumerate(self.rates):
            worst = np.maximum(worst, words[..., port] / (rate * used(self.port_owner[port])))
        rounded: Array = np.ceil(worst * (1 - 1e-13))
        return rounded

    def figures(self, parts: tuple[Entries, Entries, Entries]) -> tuple[Array, Array, Array]:
        """Energy, cycles and legality of triples of entries (broadcast against each other, in the order M, N, K)."""
        energy = parts[0].energy + parts[1].energy + parts[2].energy + self.constant
        steps = parts[0].steps.astype(float) * parts[1].steps * parts[2].steps
        words = parts[0].words + parts[1].words + parts[2].words

        def used(level: int) -> Array:
            out: Array = np.ones(())
            for at in self.fanouts:
                if at >= level:
                    for p in parts:
                        out = out * p.spread[at + 1]
            return out

        return energy, self.cycles(steps, words, used), self._legal(parts)

    def _legal(self, parts: tuple[Entries, Entries, Entries]) -> Array:
        good: Array = np.ones((), dtype=bool)
        for at in self.fanouts:
            spread = parts[0].spread[at + 1] * parts[1].spread[at + 1] * parts[2].spread[at + 1]
            good = good & (spread <= self.machine.levels[at].fanout)
        for levels, room in self.memories:
            filled: Array = np.zeros(())
            for v in range(3):
                held = self.held(IRRELEVANT[v])[parts[IRRELEVANT[v]].held]
                x, y = RELEVANT[v]
                for level in levels:
                    size = self.machine.widths[v] * parts[x].tile[level] * parts[y].tile[level]
                    filled = filled + np.where(held[..., level], size, 0.0)
            good = good & (filled <= room * (1 + 1e-12))
        return good

    def tiling(self, ways: tuple[Way, ...], picked: tuple[int, int, int], held: tuple[int, int, int]) -> Tiling:
        """The tiling of three chains (M, N, K) and the holdings of their tensors."""
        chains = [self.pricers[d].chains for d in range(3)]
        levels = range(self.last + 1)
        loop = [[int(chains[d].loop[i, picked[d]]) for d in range(3)] for i in levels]
        spread = [[int(chains[d].spread[i, picked[d]]) for d in range(3)] for i in levels]
        keep = [
            "".join(TENSORS[v] for v in range(3) if self.pricers[IRRELEVANT[v]].holdings[held[IRRELEVANT[v]]][i])
            for i in levels
        ]
        order = ["KNM", *(_order(way) for way in ways)]
        return Tiling(
            tuple((r[0], r[1], r[2]) for r in loop),
            tuple((r[0], r[1], r[2]) for r in spread[1:]),
            tuple(order),
            tuple(keep),
        )


def _order(way: Way) -> str:
    """Outermost first, the dimension of the way innermost."""
    return "".join(DIMS[d] for d in sorted(range(3), key=lambda d: (d == way[1], -d)))
