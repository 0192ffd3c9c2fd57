"""The exact mapper on other machines: ``python benchmarks/mapping_machines.py [MACHINE ...] [--objective NAME]``.

One line a shape: CPU seconds of each objective on one core, value, proved or gap. Machines are of the literature's
kinds, not products: an Eyeriss-like array of 12 x 14 PEs under 108 KB, a TPU-like array of 128 x 128 that spreads
outputs and inputs of a weight-stationary tile, a Simba-like one of four levels with two fan-outs, a small edge one.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from hwsim.mapping import Gemm, Machine, best_tiling, machine_from_dict

BUDGET_S = 30.0
BARS_S = {"decode": 1.0, "prefill": 3.0, "edp": 5.0}

MACHINES: dict[str, dict[str, Any]] = {
    "eyeriss": {
        "mac_energy": 1.0,
        "levels": [
            {"name": "spad", "words": 256, "energy": 1.0, "fanout": 168},
            {"name": "glb", "words": 55296, "energy": 6.0, "words_per_cycle": 16},
            {"name": "dram", "energy": 200.0, "words_per_cycle": 2},
        ],
    },
    "tpu": {
        "mac_energy": 0.8,
        "levels": [
            {"name": "cell", "words": 4, "energy": 0.3, "fanout": 16384, "dims": "NK"},
            {"name": "vmem", "words": 8 * 2**20, "energy": 7.0, "words_per_cycle": 2048},
            {"name": "hbm", "energy": 60.0, "words_per_cycle": 450},
        ],
    },
    "simba": {
        "mac_energy": 0.6,
        "levels": [
            {"name": "reg", "words": 16, "energy": 0.2, "fanout": 64, "dims": "NK"},
            {"name": "pe", "words": 24576, "energy": 1.7, "fanout": 16, "words_per_cycle": 64},
            {"name": "glb", "words": 32768, "energy": 3.5, "words_per_cycle": 32, "bypass": "ABZ"},
            {"name": "dram", "energy": 120.0, "words_per_cycle": 12.8},
        ],
    },
    "edge": {
        "mac_energy": 1.2,
        "levels": [
            {"name": "rf", "words": 8, "energy": 0.4, "fanout": 16},
            {
                "name": "sram",
                "words": 2048,
                "read_energy": 2.1,
                "write_energy": 2.9,
                "read_words_per_cycle": 8,
                "write_words_per_cycle": 4,
                "shared_port": False,
                "double_buffer": True,
            },
            {"name": "flash", "energy": 350.0, "words_per_cycle": 0.5},
        ],
    },
}

SHAPES = (
    ("Llama-70B qkv", Gemm(2048, 10240, 8192)),
    ("Llama-70B gate, up", Gemm(2048, 57344, 8192)),
    ("Llama-70B down", Gemm(2048, 8192, 28672)),
    ("Llama-70B qkv", Gemm(1, 10240, 8192)),
    ("Llama-70B gate, up", Gemm(16, 57344, 8192)),
    ("Mixtral expert", Gemm(512, 14336, 4096)),
    ("Mixtral expert", Gemm(2, 14336, 4096)),
    ("Mixtral router", Gemm(2048, 8, 4096)),
    ("GPT-3 up", Gemm(2048, 49152, 12288)),
    ("GPT-3 up", Gemm(1, 49152, 12288)),
    ("GPT-2 head", Gemm(1, 50257, 768)),
    ("QK of 64 heads", Gemm(2048, 2048, 128, batch=64)),
    ("QK of 64 heads", Gemm(1, 2049, 128, batch=64)),
    ("primes", Gemm(127, 4099, 4093)),
    ("primes", Gemm(1009, 2053, 1021)),
    ("primes", Gemm(1, 8191, 4093)),
)


def main(names: list[str], objectives: list[str]) -> None:
    """One line a machine and shape, then the slowest of each kind."""
    slowest: dict[str, float] = {}
    for name in names:
        machine = machine_from_dict({"name": name, **MACHINES[name]})
        for label, gemm in SHAPES:
            line = f"{name:<8} {label:<19} {_size(gemm):<20}"
            for objective in objectives:
                seconds, text = timed(machine, gemm, objective)
                line += f" {objective} {seconds:5.2f} s {text:<24}"
                kind = "edp" if objective == "edp" else "decode" if gemm.m <= 16 else "prefill"
                slowest[kind] = max(slowest.get(kind, 0.0), seconds)
            print(line, flush=True)
    for kind, seconds in slowest.items():
        print(f"slowest {kind}: {seconds:.2f} s CPU, bar {BARS_S[kind]:g} s")


def timed(machine: Machine, gemm: Gemm, objective: str) -> tuple[float, str]:
    """CPU seconds of one search, and its value with the proof."""
    begun = time.process_time()
    found = best_tiling(machine, gemm, objective, budget_s=BUDGET_S)
    seconds = time.process_time() - begun
    proof = "proved" if found.report.status == "optimal" else f"gap {found.report.gap:.1%}"
    return seconds, f"{found.report.objective:.6g} {proof}"


def _size(gemm: Gemm) -> str:
    sizes = "x".join(str(e) for e in gemm.extents)
    return f"{gemm.batch}x({sizes})" if gemm.batch > 1 else sizes


if __name__ == "__main__":
    asked = sys.argv[1:]
    goals = ["energy", "latency", "edp"]
    if "--objective" in asked:
        at = asked.index("--objective")
        goals = [asked[at + 1]]
        asked = asked[:at] + asked[at + 2 :]
    main(asked or list(MACHINES), goals)
