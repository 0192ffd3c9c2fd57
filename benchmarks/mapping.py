"""Wall times of proved tilings of Llama-2-7B GEMMs on g3-256: ``python benchmarks/mapping.py [energy|latency|edp]``."""

from __future__ import annotations

import sys
import time

from hwsim.frontends.catalog import load_model
from hwsim.mapping import best_tiling, machine_of, works_of
from hwsim.schema.loader import load_accelerator

PROMPT_TOKENS = 2048


def main(objectives: list[str]) -> None:
    """One line a GEMM and objective, then the sum."""
    machine = machine_of(load_accelerator("g3-256")[0])
    model = load_model("llama-2-7b")
    total = 0.0
    for phase, sizes in (("prefill", (PROMPT_TOKENS, 0)), ("decode", (1, PROMPT_TOKENS))):
        for work in works_of(model.graph(phase, 1, *sizes)):
            for objective in objectives:
                begun = time.perf_counter()
                found = best_tiling(machine, work.gemm, objective)
                seconds = time.perf_counter() - begun
                total += seconds
                gap = f"{found.report.status} gap {found.report.gap:.1e}"
                print(f"{phase:<8}{work.gemm.name:<22}{objective:<9}{seconds:6.2f} s  {gap}  EDP {found.edp:.6g}")
    print(f"total {total:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or ["energy", "edp"])
