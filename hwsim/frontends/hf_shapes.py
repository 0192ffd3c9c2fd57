"""Parts that several families of HF ``config.json`` share: heads, activations, windows, the gated recipe."""

from __future__ import annotations

from typing import Any, Final

from hwsim.frontends.hf_reader import Config

Shape = dict[str, Any]

ACTIVATIONS: Final = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu", "quick_gelu": "gelu", "relu": "relu", "relu2": "relu2", "gated-gelu": "gelu",
    "gated-silu": "silu",
}  # fmt: skip


def activation(c: Config, *keys: str, default: str) -> str:
    """Our name of the activation under the first of `keys` that the file has. Raises InputError."""
    return ACTIVATIONS[c.word(*keys, known=ACTIVATIONS, default=default)]


def attention_shape(c: Config) -> Shape:
    """Layers, width and heads under their usual names; absent kv heads mean one for each query head."""
    hidden, heads = c.count("hidden_size"), c.count("num_attention_heads")
    return {
        "layers": c.count("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": c.count("num_key_value_heads", default=heads),
        "head_dim": c.count("head_dim", default=None) or split_heads(c, hidden, heads),
        "vocab": c.count("vocab_size"),
    }


def split_heads(c: Config, hidden: int, heads: int) -> int:
    """Width of one head where the heads share the hidden size. Raises InputError."""
    c.require(hidden % heads == 0, "hidden size is not a multiple of the heads, and head_dim is absent", "head_dim")
    return hidden // heads


def bias_list(**present: bool) -> list[str]:
    """Names of the multiplies that have a bias."""
    return [name for name, there in present.items() if there]


def gated_shape(c: Config, *, tied: bool, default: str = "silu") -> Shape:
    """The Llama recipe: RMS norms before each half, rotary positions, gated feed-forward."""
    return attention_shape(c) | {
        "ffn": c.count("intermediate_size"),
        "activation": activation(c, "hidden_act", "hidden_activation", default=default),
        "gated": True,
        "tied": c.flag("tie_word_embeddings", default=tied),
        "max_positions": c.count("max_position_embeddings", default=None),
    }


def window_section(c: Config, pattern: list[str] | None = None) -> Shape:
    """The `window` key of a model file, or nothing where there is none; without `pattern` every layer has one."""
    size = c.count("sliding_window", default=None)
    return {"window": {"size": size, "pattern": pattern or ["window"]}} if size else {}


def layer_pattern(c: Config, fallback: list[str]) -> list[str]:
    """``layer_types`` as our pattern, or the pattern that the class makes where the key is absent."""
    types = c.items("layer_types")
    if types is None:
        return fallback
    c.require(set(map(str, types)) <= {"full_attention", "sliding_attention"}, "unknown kind of layer", "layer_types")
    c.require(len(types) == c.count("num_hidden_layers"), "layer_types must name each layer", "layer_types")
    return _period(["window" if kind == "sliding_attention" else "full" for kind in types])


def _period(kinds: list[str]) -> list[str]:
    """The shortest start of `kinds` whose repetition gives all of it."""
    lengths = range(1, len(kinds) + 1)
    return next(kinds[:n] for n in lengths if all(kinds[i] == kinds[i % n] for i in range(len(kinds))))
