"""Grid evaluation against the scalar path: points/s, ratio, largest difference; and cold start of the command line.

    python benchmarks/grid.py [--efficiency calibrated] [--points 100000]

One process, one core (OMP_NUM_THREADS=1). The grid is batch x prompt x bandwidth x peak of llama-2-7b on the A100-80GB,
as an open grid (axes broadcast) and as a flat list of points (every array has all of them).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import hwsim
from hwsim.schema.loader import load_accelerator

MODEL = "llama-2-7b"
METRICS = ("ttft_s", "tpot_s", "latency_s", "throughput_tokens_per_s", "energy_j_per_token", "mfu", "mbu")


def axes(points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Batch, prompt, bandwidth and peak with about `points` combinations."""
    side = round(points**0.25)
    rest = round(points / side**3)
    batch = np.unique(np.geomspace(1, 256, side).round())
    prompt = np.unique(np.geomspace(16, 8192, side).round())
    return batch, prompt, np.geomspace(0.5e12, 8e12, side), np.geomspace(50e12, 2e15, max(rest, 1))


def evaluate(batch: object, prompt: object, bandwidth: object, peak: object, efficiency: str) -> object:
    """One call of the public API; scalars or arrays."""
    return hwsim.evaluate(
        MODEL,
        DEVICE,
        batch=batch,
        prompt=prompt,
        output=128,
        what_if={"memories.hbm.read": bandwidth, "compute.tensor.bf16.peak": peak},
        efficiency=efficiency,
        check_fit=False,
    )


def timed(function: object, repeat: int = 3) -> tuple[float, object]:
    """Median seconds of a call, and its result."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeat // 2], result


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--efficiency", default="datasheet", choices=("datasheet", "calibrated"))
    parser.add_argument("--points", type=int, default=100_000)
    options = parser.parse_args()
    batch, prompt, bandwidth, peak = axes(options.points)
    open_grid = np.ix_(batch, prompt, bandwidth, peak)
    flat = [a.ravel() for a in np.broadcast_arrays(*open_grid)]
    points = flat[0].size
    open_s, grid = timed(lambda: evaluate(*open_grid, options.efficiency))
    flat_s, listed = timed(lambda: evaluate(*flat, options.efficiency))
    rng = np.random.default_rng(0)
    sample = rng.choice(points, 200, replace=False)
    start = time.perf_counter()
    scalars = [evaluate(*(a[i].item() for a in flat), options.efficiency) for i in sample]
    scalar_s = (time.perf_counter() - start) / len(sample)
    worst = 0.0
    shape = np.broadcast_shapes(*(a.shape for a in open_grid))
    for name in METRICS:
        want = np.array([float(s.estimate.metrics[name].value) for s in scalars])
        for result, flatten in ((grid, True), (listed, False)):
            got = np.broadcast_to(result.estimate.metrics[name].value, shape if flatten else (points,)).ravel()[sample]
            worst = max(worst, float(np.max(np.abs(got / want - 1))))
    print(f"{points} points of {MODEL}, {options.efficiency}")
    print(f"open grid   {points / open_s:>12,.0f} points/s")
    print(f"flat list   {points / flat_s:>12,.0f} points/s")
    print(f"scalar path {1 / scalar_s:>12,.0f} points/s   grid is {scalar_s * points / open_s:,.0f}x faster")
    print(f"largest relative difference to the scalar path: {worst:.1e}")
    for arguments in (["--help"], ["evaluate", "llama7b", "--hw", "a100.yaml"]):
        cold = lambda a=arguments: subprocess.run([sys.executable, "-m", "hwsim", *a], capture_output=True, check=True)  # noqa: E731
        print(f"hwsim {' '.join(arguments)}: {timed(cold, 5)[0]:.2f} s wall, median of 5")


if __name__ == "__main__":
    DEVICE, _ = load_accelerator("a100-sxm4-80gb")
    main()
