"""The exact mapper against random search over the same tilings: ``python benchmarks/mapping_search.py [SECONDS]``.

The search draws as Timeloop's random-pruned one does: a factorization, spreads, loop order a level, uniformly and
independently; illegal draws are dropped before they are costed. It costs mappings in arrays, by the same exact counts.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from hwsim.mapping import Machine, best_tiling, machine_of
from hwsim.mapping.counts import Nest, count_nests
from hwsim.mapping.enumerate import factor_chains
from hwsim.mapping.legality import fits
from hwsim.mapping.problem import Gemm
from hwsim.schema.loader import load_accelerator

SHAPES = (
    ("prefill", Gemm(2048, 12288, 4096)),
    ("prefill", Gemm(2048, 22016, 4096)),
    ("prefill", Gemm(2048, 2048, 128)),
    ("decode", Gemm(1, 12288, 4096)),
    ("decode", Gemm(1, 22016, 4096)),
    ("decode", Gemm(1, 2048, 128)),
)
DRAWS = 20_000
FEW = 200_000  # what a search that costs some thousand mappings a second draws in 30 s (assumed rate)


def random_search(machine: Machine, gemm: Gemm, seconds: float, seed: int = 1) -> tuple[float, float, int, int]:
    """Least EDP drawn, the same after `FEW` draws, mappings drawn, legal ones. Every level keeps all tensors."""
    rng, levels = np.random.default_rng(seed), len(machine.levels)
    slots = [np.inf] * levels + [float(level.fanout) for level in machine.levels[:-1]]
    chains = [factor_chains(extent, slots) for extent in gemm.extents]  # type: ignore[arg-type]
    best, early, drawn, legal = np.inf, np.inf, 0, 0
    end = time.process_time() + seconds
    while time.process_time() < end:
        picked = np.stack([c[rng.integers(len(c), size=DRAWS)] for c in chains], axis=1)
        temporal = np.moveaxis(picked[:, :, :levels], (2, 1), (0, 1))
        spatial = np.moveaxis(picked[:, :, levels:], (2, 1), (0, 1))
        keep = np.ones((levels, 3, DRAWS), dtype=bool)
        inner = np.argsort(rng.random((levels, 3, DRAWS)), axis=1)
        good = fits(machine, Nest(temporal, spatial, inner, keep))
        drawn, legal = drawn + DRAWS, legal + int(good.sum())
        if not good.any():
            continue
        counts = count_nests(
            machine, gemm, Nest(temporal[..., good], spatial[..., good], inner[..., good], keep[..., good])
        )
        best = min(best, float(np.min(np.asarray(counts.energy) * np.asarray(counts.cycles))))
        early = best if drawn <= FEW else early
    return best, early, drawn, legal


def main(seconds: float) -> None:
    """One line a shape: both EDPs, how much lower the exact one is, and the speeds."""
    machine = machine_of(load_accelerator("g3-256")[0])
    for phase, gemm in SHAPES:
        begun = time.process_time()
        found = best_tiling(machine, gemm, "edp")
        took = time.process_time() - begun
        best, early, drawn, legal = random_search(machine, gemm, seconds)
        lower = 1 - found.edp / best
        name = "x".join(str(e) for e in gemm.extents)
        print(
            f"{phase:<8}{name:<18} exact {found.edp:.6g} in {took:.2f} s ({found.report.status})  random {best:.6g}"
            f" after {drawn} drawn, {legal} legal, {drawn / seconds:.0f}/s  exact {lower:.1%} lower;"
            f" {1 - found.edp / early:.1%} lower than after {FEW} drawn"
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
