"""What real engines do around an iteration: limits they take by themselves, time outside the engine loop."""

from __future__ import annotations

from typing import Final

# vllm/engine/arg_utils.py of vLLM 0.8-0.19: limits of the API server by the memory of the device (A100 excepted).
LARGE_DEVICE_BYTES: Final = 70 * 2**30
LARGE: Final = (8192, 1024)
SMALL: Final = (2048, 256)
# Seconds of a request outside the engine loop. HTTP, hand-over between processes, detokenizer: with the tokenizer below
# what closed loops of 4 clients leave at 1,024 prompt tokens (H100, vLLM 0.18: 4 to 6 ms).
FRONT_END_S: Final = {"vllm_v1": 0.005}
# Tokenizer, seconds a prompt token: 1.5 MB/s of text on one thread (Hugging Face tokenizers, in the benchmark that
# tiktoken publishes), 4 bytes a token.
FRONT_END_TOKEN_S: Final = {"vllm_v1": 2.7e-6}
# Experts in passes with prompts: time beyond the reading of their weights, over that of the calibrated kernels (those
# of TensorRT-LLM and SGLang; without routing, alignment, permutation and reduction). Chosen on DEV serving runs under
# vLLM: gpt-oss 120B alone and MiniMax M2.5 alone both ask for 1.8 of 1, 1.5, 1.7, 1.8, 2; taken a little lower.
PROMPT_EXPERTS: Final = {"vllm_v1": 1.7}
WATERMARKS: Final = {"vllm_v1": 0.0}  # V1 takes blocks as they are needed


def vllm_limits(device: str, memory_bytes: float) -> tuple[int, int]:
    """(tokens of an iteration, most sequences) that vLLM takes where the user names none."""
    return LARGE if memory_bytes >= LARGE_DEVICE_BYTES and "a100" not in device.lower() else SMALL
