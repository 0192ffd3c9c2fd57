"""The reference machine and its cases in the words of `hwsim.mapping`."""

from __future__ import annotations

import math

from hwsim.mapping.machine import Level, Machine


def g3() -> Machine:
    """256 PEs with 64 words each, a buffer of 64 Ki words, DRAM; pJ a word 1 / 6 / 200."""
    return Machine(
        "g3-256",
        (
            Level("rf", 64, 1.0, 1.0, fanout=256),
            Level("glb", 65536, 6.0, 6.0, read_words_per_cycle=64),
            Level("dram", math.inf, 200.0, 200.0, read_words_per_cycle=16),
        ),
    )


def small(rf: int = 12, glb: int = 200, pes: int = 8) -> Machine:
    """A machine of the same kind on which every tiling of a small GEMM can be tried."""
    return Machine(
        "small",
        (
            Level("rf", rf, 1.0, 1.25, fanout=pes),
            Level("glb", glb, 5.0, 7.0, read_words_per_cycle=3),
            Level("dram", math.inf, 90.0, 110.0, read_words_per_cycle=1.5),
        ),
        mac_energy=0.7,
    )
