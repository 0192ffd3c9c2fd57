"""Slowdown of each request against the same request alone on a reference machine (the service levels of Splitwise).

Alone: the whole prompt in one iteration, then single-sequence decode steps at the mean context of its answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.serving.iteration_time import IterationTime

Array = np.ndarray[Any, Any]


def alone_s(time: IterationTime, prompt: Array, output: Array) -> tuple[Array, Array, Array]:
    """(time to first token, time a token, end to end) of requests alone, in seconds; one entry a request."""
    sizes, where = np.unique(np.asarray(prompt), return_inverse=True)
    first = np.array([time.iteration_s(0, 0, [(int(p), 0)]) for p in sizes])[where]
    middle = (np.asarray(prompt) + np.asarray(output) / 2).astype(np.int64)
    contexts, which = np.unique(middle, return_inverse=True)
    step = np.array([time.decode_line(1, int(c))[0] for c in contexts])[which]
    return first, step, first + step * np.maximum(0, np.asarray(output) - 1)


def slowdowns(result: Any, time: IterationTime) -> dict[str, Array]:
    """Measured over alone, for finished requests: ``ttft_slowdown``, ``tpot_slowdown`` (answers of two tokens or more),
    ``e2e_slowdown``."""
    done = result.finished
    prompt, output = result.column("prompt")[done], result.column("output")[done]
    first, step, whole = alone_s(time, prompt, output)
    several = output > 1
    return {
        "ttft_slowdown": result.ttft_s / first,
        "tpot_slowdown": (result.tpot_s / step)[several],
        "e2e_slowdown": result.e2e_s / whole,
    }
