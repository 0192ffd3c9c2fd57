"""The closed loops of serving benchmarks, replayed by the request-level simulator.

C clients each wait for their answer and ask again; a benchmark sends a few rounds and averages over all of them, the
opening burst of C prompts included. vLLM's benchmark client, as public nightly benchmarks call it, sends ten requests a
client whose prompts and answers are 80 to 100 % of the nominal length. Of TensorRT-LLM's client nothing is known but
that templates and tokenizers vary lengths by a percent or so, which lets clients of equal length drift apart. The
engine is the simulator's own: nothing here knows a queueing formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.frontends.catalog import resolve_model
from hwsim.frontends.formats import Formats
from hwsim.ir.scenario import Scenario
from hwsim.serving.front import engine_replica
from hwsim.serving.sessions import ClosedLoop, serve
from hwsim.serving.spec import ClusterSpec
from hwsim.validation.endtoend_runs import Deployment, Report, Run, Scored, node_of, score_deployments, unusable

# Engine -> (requests a client sends, smallest and largest length over the nominal one). TensorRT-LLM: six of 4, 5, 6, 8
# on the DEV rows. vLLM: InferenceMAX runs benchmark_serving.py with ten prompts a client and --random-range-ratio 0.8.
CLIENTS: Final = {"trtllm": (6, 0.99, 1.01)}
VLLM_CLIENT: Final = (10, 0.8, 1.0)
LONGEST: Final = 1.01  # of a request over its nominal length
TRTLLM_TOKENS: Final = 8192  # max_num_tokens of TensorRT-LLM
TRTLLM_SEQUENCES: Final = 2048  # its max_batch_size
MOST_CLIENTS: Final = 4096  # of a loop that is simulated: minutes beyond


@dataclass(frozen=True, slots=True)
class Loop:
    """What one simulated benchmark needs to know."""

    clients: int
    prompt: int
    output: int
    backend: str

    @property
    def client(self) -> tuple[int, float, float]:
        """Requests a client sends, and the range of their lengths over the nominal one."""
        return CLIENTS.get(self.backend, VLLM_CLIENT)

    @property
    def rounds(self) -> int:
        return self.client[0]

    @property
    def requests(self) -> tuple[list[int], list[int]]:
        """Prompt and output tokens of all requests, from one stream of random numbers."""
        random = np.random.default_rng(0)
        _, low, high = self.client
        count = self.clients * self.rounds
        drawn = (random.integers(int(low * n), int(high * n) + 1, count) for n in (self.prompt, self.output))
        prompts, outputs = (np.maximum(1, lengths).tolist() for lengths in drawn)
        return prompts, outputs


def simulate_runs(runs: Sequence[Run]) -> Report:
    """TTFT and TPOT of every aggregated closed-loop run by simulation; equal runs are simulated once."""

    def refused(run: Run) -> str:
        return unusable(run) or ("too many clients" if run.number("concurrency") > MOST_CLIENTS else "")

    return score_deployments(runs, refused, _simulated)


def _simulated(deployment: Deployment, runs: Sequence[Run]) -> list[Scored]:
    name, gpu, weights, tp, ep = deployment
    model, platform = resolve_model(name).model, node_of(gpu, tp)
    formats = Formats.of(weights, "bf16" if weights == "mxfp4" else None, None)
    scenario = Scenario(
        1, 1024, 128, formats.weights.name, formats.activations.name, formats.kv_cache.name, tp=tp, ep=ep
    )
    longest = int(max((r.number("isl") + r.number("osl")) * LONGEST for r in runs)) + 2
    engines: dict[str, Any] = {}
    seen: dict[Loop, tuple[float, float]] = {}
    scored = []
    for run in runs:
        backend = run.text["backend"]
        loop = Loop(int(run.number("concurrency")), int(run.number("isl")), int(run.number("osl")), backend)
        if backend not in engines:
            asked = {"longest": longest, **_engine_of(backend)}
            engines[backend] = engine_replica(model, platform, scenario, formats, **asked).replica
        if loop not in seen:
            seen[loop] = replay(loop, _with_slots(engines[backend], loop, dense=model.spec.moe is None))
        ttft_s, tpot_s = seen[loop]
        scored.append(Scored(run, ttft_s * 1e3, tpot_s * 1e3))
    return scored


def _engine_of(backend: str) -> Mapping[str, Any]:
    """Fields of `EngineOptions`: today's vLLM, or one budget for prompts and decodes at TensorRT-LLM's limits."""
    if backend != "trtllm":
        return {"policy": "vllm_v1"}
    return {"policy": "sarathi", "options": {"cap": TRTLLM_SEQUENCES, "chunk": TRTLLM_TOKENS}, "front_end_s": 0.02}


def _with_slots(replica: Any, loop: Loop, *, dense: bool) -> Any:
    """Dense models under TensorRT-LLM 1.0 wait as if the engine had one slot less than clients (see endtoend)."""
    if loop.backend != "trtllm" or not dense or loop.clients < 2:
        return replica
    return replica.with_(options={**replica.options, "cap": min(loop.clients - 1, TRTLLM_SEQUENCES)})


def replay(loop: Loop, replica: Any) -> tuple[float, float]:
    """Mean (TTFT, TPOT) in seconds over all requests of the loop."""
    prompts, outputs = loop.requests
    source = ClosedLoop(loop.clients, loop.rounds, 0.0, prompts, outputs)
    result = serve(source, ClusterSpec([replica]))
    return float(result.ttft_s.mean()), float(result.tpot_s.mean())
