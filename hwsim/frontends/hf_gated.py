"""Families of the Llama recipe: rotary positions, gated feed-forward (Phi-1/2: plain). One function a family."""

from __future__ import annotations

from hwsim.frontends.hf_reader import Config
from hwsim.frontends.hf_shapes import Shape, bias_list, gated_shape, layer_pattern, window_section


def llama(c: Config) -> Shape:
    """Llama 1 to 3 and those that share their class: optional biases, nothing else."""
    bias, mlp = c.flag("attention_bias", default=False), c.flag("mlp_bias", default=False)
    return gated_shape(c, tied=False) | {"biases": bias_list(qkv=bias, out=bias, ffn=mlp)}


def mistral(c: Config) -> Shape:
    """Llama with a sliding window in every layer, where the file gives one."""
    return gated_shape(c, tied=False) | window_section(c)


def mixtral(c: Config) -> Shape:
    """Mistral whose feed-forward is a choice among experts of its width."""
    shape = mistral(c)
    experts = {"experts": c.count("num_local_experts"), "top_k": c.count("num_experts_per_tok")}
    return shape | {"moe": experts | {"expert_ffn": shape["ffn"]}}


def _qwen_window(c: Config, shape: Shape) -> Shape:
    if not c.flag("use_sliding_window", default=False):
        return {}
    first = c.count("max_window_layers", default=shape["layers"], least=0)
    layers = shape["layers"]
    c.require(layers <= 1000, "windows of more than 1000 layers", "num_hidden_layers")
    return window_section(c, layer_pattern(c, ["window" if i >= first else "full" for i in range(layers)]))


def qwen2(c: Config) -> Shape:
    """Llama with biases on query, key and value; windows from a layer on, where they are switched on."""
    shape = gated_shape(c, tied=False) | {"biases": ["qkv"]}
    return shape | _qwen_window(c, shape)


def qwen3(c: Config) -> Shape:
    """Llama with norms on queries and keys of each head; windows as Qwen2."""
    bias = c.flag("attention_bias", default=False)
    shape = gated_shape(c, tied=False) | {
        "head_dim": c.count("head_dim"),
        "qk_norm": "head",
        "biases": bias_list(qkv=bias, out=bias),
    }
    return shape | _qwen_window(c, shape)


def _qwen_experts(c: Config) -> Shape:
    dense = c.items("mlp_only_layers") or []
    c.require(dense == list(range(len(dense))), "dense layers must be the first ones", "mlp_only_layers")
    experts = {"experts": c.count("num_experts"), "top_k": c.count("num_experts_per_tok")}
    step = c.count("decoder_sparse_step", default=1)
    c.require(not dense or step == 1, "leading dense layers with a sparse step", "mlp_only_layers")
    return experts | {
        "expert_ffn": c.count("moe_intermediate_size"),
        "first_dense_layers": len(dense),
        "every_n_layers": step,
    }


def qwen2_moe(c: Config) -> Shape:
    """Qwen2 with routed experts and one gated shared expert."""
    shared = {"shared_ffn": c.count("shared_expert_intermediate_size"), "shared_gate": True}
    return qwen2(c) | {"moe": _qwen_experts(c) | shared}


def qwen3_moe(c: Config) -> Shape:
    """Qwen3 with routed experts and no shared one."""
    return qwen3(c) | {"moe": _qwen_experts(c)}


def deepseek(c: Config) -> Shape:
    """DeepSeek V2 and V3, Kimi K2: attention over latents, routed and shared experts after dense layers."""
    nope, rope = c.count("qk_nope_head_dim"), c.count("qk_rope_head_dim")
    c.require(not c.flag("attention_bias", default=False), "attention biases with latents", "attention_bias")
    latent = {"kv_lora_rank": c.count("kv_lora_rank"), "q_lora_rank": c.count("q_lora_rank", default=0, least=0)}
    mla = latent | {"qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": c.count("v_head_dim")}
    shape = gated_shape(c, tied=False) | {"head_dim": nope + rope, "mla": mla}
    shape["kv_heads"] = shape["heads"]
    return shape | _deepseek_experts(c)


def _deepseek_experts(c: Config) -> Shape:
    experts = c.count("n_routed_experts", default=None)
    if experts is None:
        return {}
    c.require(c.count("moe_layer_freq", default=1) == 1, "experts in every n-th layer with latents", "moe_layer_freq")
    width = c.count("moe_intermediate_size")
    selection = c.data.get("topk_method") == "noaux_tc" or c.data.get("model_type") in ("deepseek_v3", "kimi_k2")
    return {
        "moe": {
            "experts": experts,
            "top_k": c.count("num_experts_per_tok"),
            "expert_ffn": width,
            "shared_ffn": width * c.count("n_shared_experts", default=0, least=0),
            "first_dense_layers": c.count("first_k_dense_replace", least=0),
            "selection_bias": selection,
        }
    }


def gemma(c: Config) -> Shape:
    """Llama with GELU gates, a head width of its own and tied embeddings."""
    bias = c.flag("attention_bias", default=False)
    shape = gated_shape(c, tied=True, default="gelu_pytorch_tanh") | {"head_dim": c.count("head_dim")}
    return shape | {"activation": "gelu", "biases": bias_list(qkv=bias, out=bias)}


def gemma2(c: Config) -> Shape:
    """Gemma with norms before and after each half; windows in every other layer."""
    pattern = layer_pattern(c, ["window", "full"])
    return gemma(c) | {"norm_placement": "sandwich"} | window_section(c, pattern)


def gemma3_text(c: Config) -> Shape:
    """Gemma 2 with norms on queries and keys; full attention in every sixth layer."""
    period = c.count("sliding_window_pattern", default=6)
    c.require(period <= 1000, "a window pattern of more than 1000 layers", "sliding_window_pattern")
    pattern = layer_pattern(c, ["window"] * (period - 1) + ["full"])
    return gemma(c) | {"norm_placement": "sandwich", "qk_norm": "head"} | window_section(c, pattern)


def gemma3(c: Config) -> Shape:
    """The text half of a Gemma 3 that also sees pictures."""
    return gemma3_text(c.section("text_config"))


def gpt_oss(c: Config) -> Shape:
    """Experts with biases, attention sinks, windows in every other layer."""
    bias = c.flag("attention_bias", default=True)
    shape = gated_shape(c, tied=False)
    experts = {"experts": c.count("num_local_experts"), "top_k": c.count("num_experts_per_tok", "experts_per_token")}
    pattern = layer_pattern(c, ["window", "full"])
    more = {"biases": bias_list(qkv=bias, out=bias, router=True, experts=True), "attention_sinks": True}
    return shape | more | {"moe": experts | {"expert_ffn": shape["ffn"]}} | window_section(c, pattern)


def phi(c: Config) -> Shape:
    """Phi-1 and Phi-2: both halves on one layer norm, plain feed-forward, partly rotated heads."""
    c.require(not c.flag("qk_layernorm", default=False), "norms of queries and keys", "qk_layernorm")
    shape = gated_shape(c, tied=False, default="gelu_new")
    rotary = int(shape["head_dim"] * c.fraction("partial_rotary_factor", default=0.5))
    placed = {"norm": "layer_norm", "norm_placement": "parallel_shared", "rotary_dim": rotary}
    return shape | placed | {"gated": False, "biases": ["qkv", "out", "ffn", "head"]}


def phi3(c: Config) -> Shape:
    """Llama with partly rotated heads and, where given, a window."""
    shape = gated_shape(c, tied=False)
    return (
        shape
        | {"rotary_dim": int(shape["head_dim"] * c.fraction("partial_rotary_factor", default=1.0))}
        | window_section(c)
    )
