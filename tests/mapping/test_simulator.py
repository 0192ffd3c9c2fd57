"""Access counts against a naive simulator that executes the loops, and its capacities, ports and optima."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.mapping.candidates import Options, admissible_extents
from hwsim.mapping.counts import Nest, count, count_nests
from hwsim.mapping.enumerate import keep_choices
from hwsim.mapping.legality import footprint, violations
from hwsim.mapping.machine import Level, Machine
from hwsim.mapping.optimize import best_tiling
from hwsim.mapping.problem import Counts, Gemm, Tiling
from tests.mapping.reference import small
from tests.mapping.simulator import Moved, Run

ORDERS = ("MNK", "MKN", "NMK", "NKM", "KMN", "KNM")
MOST_MACS = 320


@st.composite
def nests(draw: st.DrawFn, ragged: bool) -> tuple[Machine, Gemm, Tiling]:
    """Two to five levels with spreads, bypass, batches, two halves of one memory; `ragged`: sizes do not divide."""
    levels = draw(st.sampled_from([2, 3, 3, 4, 4, 5]))
    loop, fan = st.sampled_from([1, 1, 2, 2, 3]), st.sampled_from([1, 1, 1, 2, 3])
    factors = [draw(st.tuples(loop, loop, loop)) for _ in range(levels)]
    spreads = [draw(st.tuples(fan, fan, fan)) for _ in range(levels - 1)]
    split = levels > 2 and draw(st.booleans())
    if split:
        spreads[0] = (1, 1, 1)  # the halves are one memory: nothing spreads between them
    rows = [*factors, *spreads]
    for at in range(len(rows)):  # short enough to walk
        while math.prod(math.prod(row) for row in rows) > MOST_MACS:
            rows[at] = (1, 1, 1)
            break
    factors, spreads = rows[:levels], rows[levels:]
    whole = [math.prod(row[d] for row in rows) for d in range(3)]
    m, n, k = (draw(st.integers((w + 1) // 2, w)) for w in whole) if ragged else whole
    batch = draw(st.sampled_from([1, 1, 1, 2, 3]))
    keep = [draw(st.sampled_from(["ABZ", "ABZ", "AB", "BZ", "AZ", "Z", ""])) for _ in range(levels - 1)]
    if split:  # a tensor sits in one half
        keep[1] = "".join(t for t in keep[1] if t not in keep[0])
    tiling = Tiling(
        tuple(factors),
        tuple(spreads),
        tuple(draw(st.sampled_from(ORDERS)) for _ in range(levels)),
        (*keep, "ABZ"),
        draw(st.sampled_from([s for s in (1, 2, 3) if s <= batch and (ragged or batch % s == 0)])),
    )
    items = [
        Level(
            f"l{i}",
            math.inf,
            1.0 + 3 * i,
            2.0 + 5 * i,
            fanout=6**3 if i < levels - 1 and (max(spreads[i]) > 1 or i == levels - 2) else 1,
            read_words_per_cycle=draw(st.sampled_from([math.inf, 2.0, 0.25])),
            write_words_per_cycle=draw(st.sampled_from([math.inf, 0.5])),
            shared_port=draw(st.booleans()),
        )
        for i in range(levels)
    ]
    if split:
        items[0] = replace(items[1], name="l0", group="split", fanout=1)
        items[1] = replace(items[1], group="split")
    widths = draw(st.sampled_from([(1.0, 1.0, 1.0), (1.0, 0.5, 2.0)]))
    machine = Machine("simulated", tuple(items), 0.7, widths=widths, drain_reads=draw(st.booleans()))
    return machine, Gemm(m, n, k, batch=batch), tiling


def simulate(machine: Machine, gemm: Gemm, tiling: Tiling, by: str = "tile") -> Moved:
    return Run(gemm, tiling, machine.batch_level, machine.drain_reads, by).run()


def words_of(counts: Counts, tiling: Tiling) -> dict[Any, int]:
    kinds = ("reads", "fills", "updates")
    grid = itertools.product(kinds, range(len(tiling.temporal)), enumerate("ABZ"))
    return {(kind, level, t): int(getattr(counts, kind)[level][v]) for kind, level, (v, t) in grid}


def words_moved(moved: Moved, tiling: Tiling) -> dict[Any, int]:
    grid = itertools.product(("reads", "fills", "updates"), range(len(tiling.temporal)), "ABZ")
    return {(kind, level, t): getattr(moved, kind)[level, t] for kind, level, t in grid}


@settings(max_examples=80)
@given(nests(ragged=False))
def test_words_energy_and_cycles_equal_the_simulator(case: tuple[Machine, Gemm, Tiling]) -> None:
    machine, gemm, tiling = case
    counts, moved = count(machine, gemm, tiling), simulate(*case)
    assert moved.macs == gemm.macs
    assert words_of(counts, tiling) == words_moved(moved, tiling)
    assert float(counts.energy) == pytest.approx(energy_of(machine, moved), rel=1e-12)
    assert counts.cycles_by["compute"] == moved.ticks
    assert float(counts.cycles) == pytest.approx(math.ceil(slowest(machine, moved) * (1 - 1e-12)), abs=0)


def energy_of(machine: Machine, moved: Moved) -> float:
    total = moved.macs * machine.mac_energy
    for at, level in enumerate(machine.levels):
        for t, width in zip("ABZ", machine.widths, strict=True):
            written = moved.fills[at, t] + moved.updates[at, t]
            total += width * (moved.reads[at, t] * level.read_energy + written * level.write_energy)
    return total


def slowest(machine: Machine, moved: Moved) -> float:
    """Ticks, or those that the port of the busiest instance needs."""
    rows = [float(moved.ticks)]
    for memory in {level.memory for level in machine.levels}:
        both = [at for at, level in enumerate(machine.levels) if level.memory == memory]
        level = machine.levels[both[0]]
        out = sum(busiest(machine, moved, at, ("reads",)) for at in both)
        into = sum(busiest(machine, moved, at, ("fills", "updates")) for at in both)
        if level.shared_port:
            rows.append((out + into) / level.read_words_per_cycle)
        else:
            rows += [out / level.read_words_per_cycle, into / level.write_words_per_cycle]
    return max(rows)


def busiest(machine: Machine, moved: Moved, level: int, kinds: tuple[str, ...]) -> float:
    """Words through the busiest instance of a level; members of a batch above their fan-out share one instance."""
    found: dict[Any, float] = {}
    for kind, (t, width) in itertools.product(kinds, zip("ABZ", machine.widths, strict=True)):
        for instance, words in moved.busiest[level, kind, t].items():
            place = instance[1:] if level > machine.batch_level else instance
            found[place] = found.get(place, 0.0) + words * width
    return max(found.values(), default=0.0)


@settings(max_examples=80)
@given(nests(ragged=True))
def test_sizes_that_do_not_divide(case: tuple[Machine, Gemm, Tiling]) -> None:
    """Exact where loops are counted as a controller counts them; looking at the tiles themselves saves a little."""
    machine, gemm, tiling = case
    counts, moved = count(machine, gemm, tiling), simulate(*case, by="loops")
    mine = words_of(counts, tiling)
    assert mine == words_moved(moved, tiling)
    assert min(mine.values()) >= 0
    assert counts.cycles_by["compute"] == moved.ticks
    clever = simulate(*case)
    for key, words in words_moved(clever, tiling).items():
        assert words <= mine[key], key
    # a port is charged with the words of all instances spread evenly: never more than the busiest one has
    assert float(counts.cycles) <= math.ceil(slowest(machine, moved) * (1 + 1e-12))


@settings(max_examples=30)
@given(nests(ragged=True))
def test_footprints_hold_what_arrives(case: tuple[Machine, Gemm, Tiling]) -> None:
    machine, gemm, tiling = case
    run = Run(gemm, tiling, machine.batch_level, machine.drain_reads)
    moved = run.run()
    for level in range(len(machine.levels) - 1):
        room = footprint(machine, level, gemm, replace(tiling, batch_spatial=1))
        for v, t in enumerate("ABZ"):
            assert moved.peak.get((level, t), 0) * machine.widths[v] <= room.get(t, 0.0) * (1 + 1e-12)
    if math.prod(tiling.tile(len(machine.levels) - 1)) == math.prod(gemm.extents):
        peaks = {(level, t): p for (level, t), p in moved.peak.items()}
        for (level, t), words in peaks.items():
            held = footprint(machine, level, gemm, replace(tiling, batch_spatial=1))[t]
            assert words * machine.widths["ABZ".index(t)] == pytest.approx(held)


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
@pytest.mark.parametrize(("sizes", "two"), [((5, 7, 3), False), ((7, 1, 11), True), ((3, 5, 7), True)])
def test_the_optimum_is_counted_as_the_simulator_counts(objective: str, sizes: tuple[int, int, int], two: bool) -> None:
    machine = two_fans() if two else small(8, 60, 4).with_level("glb", bypass="ABZ")
    gemm = Gemm(*sizes)
    found = best_tiling(machine, gemm, objective, options=Options("always"))
    assert violations(machine, gemm, found.tiling) == []
    moved = simulate(machine, gemm, found.tiling, by="loops")
    assert words_of(found.counts, found.tiling) == words_moved(moved, found.tiling)
    assert found.report.status == "optimal"


def two_fans() -> Machine:
    """Fan-outs at two levels: latches under scratchpads, scratchpads under a buffer."""
    return Machine(
        "two-fans",
        (
            Level("latch", 3, 0.0, 0.0, fanout=4),
            Level("pad", 24, 1.0, 1.0, fanout=3, read_words_per_cycle=6),
            Level("dram", math.inf, 80.0, 100.0, read_words_per_cycle=2),
        ),
        0.5,
    )


def tried(machine: Machine, gemm: Gemm) -> dict[str, tuple[float, ...]]:
    """Best keys by trying every chain of admissible extents, order and holding, partial tiles included."""
    levels = len(machine.levels)
    chains = [np.array(list(written(machine, d, gemm.extents[d]))) for d in range(3)]
    grid = np.indices([len(c) for c in chains]).reshape(3, -1)
    picked = np.stack([c[i] for c, i in zip(chains, grid, strict=True)], axis=1)  # (n, 3, slots)
    temporal = np.moveaxis(picked[:, :, :levels], (2, 1), (0, 1))
    spatial = np.moveaxis(picked[:, :, levels:], (2, 1), (0, 1))
    best = {"energy": (math.inf,), "latency": (math.inf, math.inf), "edp": (math.inf,)}
    for kept in keep_choices(machine):
        good = _fits(machine, gemm, temporal, spatial, kept)
        t, s = temporal[..., good], spatial[..., good]
        keep = np.broadcast_to(np.array([[x in k for x in "ABZ"] for k in kept])[..., None], t.shape)
        for order in itertools.product(itertools.permutations(range(3)), repeat=levels - 1):
            inner = np.broadcast_to(np.array([(0, 1, 2), *order])[..., None], t.shape)
            counts = count_nests(machine, gemm, Nest(t, s, inner, keep))
            energy, cycles = np.asarray(counts.energy, float), np.asarray(counts.cycles, float)
            least = int(np.lexsort((energy, cycles))[0])
            best["energy"] = min(best["energy"], (float(energy.min()),))
            best["latency"] = min(best["latency"], (float(cycles[least]), float(energy[least])))
            best["edp"] = min(best["edp"], (float((energy * cycles).min()),))
    return best


def written(machine: Machine, d: int, extent: int) -> Any:
    """Factors (levels, then spreads) of one dimension whose tiles are all admissible extents."""
    values = admissible_extents(extent, Options("always"))
    last = len(machine.levels) - 1

    def grow(level: int, tile: int, loops: list[int], spreads: list[int]) -> Any:
        if level == last:
            yield [*loops, -(-extent // tile), *spreads]
            return
        for inside in (v for v in values if v % tile == 0):
            for outside in (v for v in values if v % inside == 0 and v // inside <= machine.levels[level].fanout):
                if extent > 1 or outside == 1:
                    yield from grow(level + 1, outside, [*loops, inside // tile], [*spreads, outside // inside])

    yield from grow(0, 1, [], [])


def _fits(machine: Machine, gemm: Gemm, temporal: Any, spatial: Any, kept: tuple[str, ...]) -> Any:
    good = np.ones(temporal.shape[2], dtype=bool)
    tile = np.ones((3, temporal.shape[2]), dtype=np.int64)
    for level, item in enumerate(machine.levels[:-1]):
        tile = tile * temporal[level]
        m, n, k = (np.minimum(tile[d], gemm.extents[d]) for d in range(3))
        size = {"A": m * k, "B": k * n, "Z": m * n}
        good &= sum((size[t] for t in kept[level]), 0 * m) <= item.words
        good &= spatial[level].prod(axis=0) <= item.fanout
        tile = tile * spatial[level]
    return good


@pytest.mark.parametrize("sizes", [(3, 5, 2), (7, 1, 3), (1, 5, 5)])
@pytest.mark.parametrize("two", [False, True])
def test_partial_tiles_are_searched_completely(sizes: tuple[int, int, int], two: bool) -> None:
    machine = two_fans() if two else small(6, 20, 3).with_level("glb", bypass="AZ")
    gemm = Gemm(*sizes)
    exact = tried(machine, gemm)
    for objective, key in exact.items():
        found = best_tiling(machine, gemm, objective, options=Options("always"))
        mine = {"energy": (found.energy_pj,), "latency": (found.cycles, found.energy_pj), "edp": (found.edp,)}
        assert mine[objective] == pytest.approx(key, rel=1e-9), objective
