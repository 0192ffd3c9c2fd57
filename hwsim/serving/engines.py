"""What real engines do around an iteration: limits they take by themselves, time outside the engine loop."""

from __future__ import annotations

from typing import Final

# vllm/engine/arg_utils.py of vLLM 0.8-0.19: limits of the API server by the memory of the device (A100 excepted).
LARGE_DEVICE_BYTES: Final = 70 * 2**30
LARGE: Final = (8192, 1024)
SMALL: Final = (2048, 256)
# HTTP, tokenizer, hand-over between processes and detokenizer of a request, seconds. What closed loops of 4 and 8
# clients leave over the simulated time to first token: median 5 ms, 9 ms at 1,024 prompt tokens (H100, vLLM 0.18).
FRONT_END_S: Final = {"vllm_v1": 0.004}
WATERMARKS: Final = {"vllm_v1": 0.0}  # V1 takes blocks as they are needed


def vllm_limits(device: str, memory_bytes: float) -> tuple[int, int]:
    """(tokens of an iteration, most sequences) that vLLM takes where the user names none."""
    return LARGE if memory_bytes >= LARGE_DEVICE_BYTES and "a100" not in device.lower() else SMALL
