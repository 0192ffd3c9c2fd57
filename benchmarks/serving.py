"""Speed of the serving simulator: requests per CPU second, memory of a long run, cold start of the command.

Run ``python benchmarks/serving.py TRACE.csv.gz`` with the Azure 2023 conversation trace. Times are CPU seconds of this
process (best of three), so that other work on the machine disturbs little; `simpy` gives the machine's own pace.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import simpy

from hwsim.serving.iteration_time import ClosedFormTime
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.traces import Trace, read_trace
from hwsim.validation.serving import run_case

# An 8B model on one A100: 6 ms to read the weights, 27 us a token when compute-bound (closed form, not measured).
TIME = ClosedFormTime(1e-3, 5.99e-3, 2.7e-5, 4.89e-8, 1.33e-9)
POLICIES = ("vllm", "sarathi", "orca", "vllm_v1")
CLUSTERS = ((1, "round_robin"), (8, "round_robin"), (8, "least_outstanding"))
CASES = tuple((policy, count, router) for count, router in CLUSTERS for policy in POLICIES)


def replica(policy: str) -> ReplicaSpec:
    options = {"cap": 256} | ({"max_tokens": 16384} if policy == "vllm" else {})
    return ReplicaSpec(TIME, policy, options, kv_blocks=27000, reserve_tokens=16384 if policy == "orca" else 0)


def cpu_s(action: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def pace() -> float:
    """SimPy timeouts per CPU second on this machine."""

    def work() -> None:
        environment = simpy.Environment()

        def process() -> object:
            for _ in range(50_000):
                yield environment.timeout(1)

        environment.process(process())  # type: ignore[arg-type]
        environment.run()

    return 50_000 / cpu_s(work)


def speeds(trace: Trace) -> None:
    for policy, count, router in CASES:
        spec = ClusterSpec([replica(policy)] * count, router)
        seconds = cpu_s(lambda spec=spec: simulate(trace, spec))
        print(f"{policy:<10}{count} x {router:<20}{len(trace) / seconds:>12,.0f} requests/s")


def against_vidur(folder: Path) -> None:
    """CPU seconds of each exact case beside those that its file records for Vidur's own simulation."""
    document = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    trace = read_trace(folder / "trace.csv.gz")
    for case in document["cases"]:
        seconds = cpu_s(lambda case=case: run_case({**document, **case}, trace), 5)
        theirs = case["vidur_sim_cpu_s"]
        ratio = f"{theirs / seconds:,.0f} times as fast"
        print(f"{case['name']:<20}{seconds:>8.3f} s against {theirs:.2f} s of Vidur: {ratio}")


def long_run(count: int) -> None:
    """One million requests in a process of its own, to see its peak memory."""
    code = (
        "import resource; from benchmarks.serving import *; from hwsim.serving.arrivals import generate; "
        f"simulate(generate(5.0, {count}), ClusterSpec([replica('vllm')])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start
    print(f"{count:,} requests: {float(done.stdout):.0f} MB peak, {seconds:.1f} CPU s")


def cold_start(path: Path) -> None:
    command = [sys.executable, "-m", "hwsim", "simulate", "llama3.1-8b", "--hw", "a100", "--trace", str(path)]
    best = float("inf")
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--requests", "1000", "-q"], capture_output=True, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime)
    print(f"hwsim simulate, 1,000 requests, cold: {best:.2f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--million", action="store_true", help="also run one million requests")
    parser.add_argument("--cases", type=Path, help="Folder of exact cases: also ratios against Vidur.")
    given = parser.parse_args()
    print(f"simpy: {pace():,.0f} timeouts/s")
    speeds(read_trace(given.trace))
    cold_start(given.trace)
    if given.cases:
        against_vidur(given.cases)
    if given.million:
        long_run(1_000_000)


if __name__ == "__main__":
    main()
