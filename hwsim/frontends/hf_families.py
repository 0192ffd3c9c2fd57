"""The table of HF model families: ``model_type`` to the function that reads its configuration.

Defaults of keys that files leave out follow the configuration classes of the transformers library as documented there;
a shape whose default differs between checkpoints is required instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hwsim.frontends import hf_gated, hf_plain
from hwsim.frontends.hf_reader import Config
from hwsim.frontends.hf_shapes import Shape

FAMILIES: Final[dict[str, Callable[[Config], Shape]]] = {
    "llama": hf_gated.llama,
    "mistral": hf_gated.mistral,
    "mixtral": hf_gated.mixtral,
    "qwen2": hf_gated.qwen2,
    "qwen3": hf_gated.qwen3,
    "qwen2_moe": hf_gated.qwen2_moe,
    "qwen3_moe": hf_gated.qwen3_moe,
    "deepseek_v2": hf_gated.deepseek,
    "deepseek_v3": hf_gated.deepseek,
    "kimi_k2": hf_gated.deepseek,
    "gemma": hf_gated.gemma,
    "gemma2": hf_gated.gemma2,
    "gemma3": hf_gated.gemma3,
    "gemma3_text": hf_gated.gemma3_text,
    "gpt_oss": hf_gated.gpt_oss,
    "phi": hf_gated.phi,
    "phi3": hf_gated.phi3,
    "opt": hf_plain.opt,
    "gpt2": hf_plain.gpt2,
    "gptj": hf_plain.gptj,
    "gpt_neox": hf_plain.gpt_neox,
    "falcon": hf_plain.falcon,
    "RefinedWeb": hf_plain.falcon,
    "RefinedWebModel": hf_plain.falcon,
    "bloom": hf_plain.bloom,
    "bert": hf_plain.bert,
    "vit": hf_plain.vit,
    "t5": hf_plain.t5,
    "mt5": hf_plain.t5,
    "whisper": hf_plain.whisper,
}
