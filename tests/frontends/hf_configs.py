"""Configurations written for these tests in the shape of each family's ``config.json``, with their parameters."""

from __future__ import annotations

from typing import Any

_LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "hidden_act": "silu",
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip


def _like(base: dict[str, Any], kind: str, **changes: Any) -> dict[str, Any]:
    out = base | {"model_type": kind} | changes
    return {key: value for key, value in out.items() if value != "drop"}


_QWEN = _like(_LLAMA, "qwen2", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
              num_key_value_heads=4, vocab_size=152064)  # fmt: skip
_DEEPSEEK = _like(
    _LLAMA, "deepseek_v2", hidden_size=2048, intermediate_size=10944, num_hidden_layers=27, num_attention_heads=16,
    num_key_value_heads=16, vocab_size=102400, q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408,
    first_k_dense_replace=1, moe_layer_freq=1, topk_method="greedy",
)  # fmt: skip
_GEMMA3 = _like(
    _LLAMA, "gemma3_text", hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4,
    num_key_value_heads=1, head_dim=256, vocab_size=262144, hidden_act="drop", hidden_activation="gelu_pytorch_tanh",
    sliding_window=512, sliding_window_pattern=6, tie_word_embeddings="drop",
)  # fmt: skip
_GPT2 = {
    "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_ctx": 1024,
    "vocab_size": 50257,
    "activation_function": "gelu_new",
}  # fmt: skip
_NEOX = {
    "model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 44,
    "num_attention_heads": 64, "rotary_pct": 0.25, "vocab_size": 50432, "hidden_act": "gelu_fast",
    "max_position_embeddings": 2048, "use_parallel_residual": True,
}  # fmt: skip
_BERT = {
    "model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 30522, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip

# family -> (configuration, parameters of the released model of this shape)
CONFIGS: dict[str, tuple[dict[str, Any], int]] = {
    "llama": (_LLAMA, 6_738_415_616),
    "llama-kv-absent": (_like(_LLAMA, "llama", num_key_value_heads="drop"), 6_738_415_616),
    "mistral": (_like(_LLAMA, "mistral", intermediate_size=14336, num_key_value_heads=8, sliding_window=4096),
    7_241_732_096),
    "mixtral": (
        _like(_LLAMA, "mixtral", intermediate_size=14336, num_key_value_heads=8, num_local_experts=8,
        num_experts_per_tok=2),
        46_702_792_704,
    ),
    "qwen2": (_QWEN, 7_615_616_512),
    "qwen3": (
        _like(_LLAMA, "qwen3", intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8, head_dim=128,
              vocab_size=151936),
        8_190_735_360,
    ),
    "qwen2_moe": (
        _like(_LLAMA, "qwen2_moe", hidden_size=2048, intermediate_size=5632, num_hidden_layers=24,
        num_attention_heads=16,
              num_key_value_heads=16, vocab_size=151936, num_experts=60, num_experts_per_tok=4,
              moe_intermediate_size=1408,
              shared_expert_intermediate_size=5632, decoder_sparse_step=1),
        14_315_784_192,
    ),
    "qwen3_moe": (
        _like(_LLAMA, "qwen3_moe", hidden_size=2048, intermediate_size=6144, num_hidden_layers=48,
        num_attention_heads=32,
              num_key_value_heads=4, head_dim=128, vocab_size=151936, num_experts=128, num_experts_per_tok=8,
              moe_intermediate_size=768, mlp_only_layers=[], decoder_sparse_step=1),
        30_532_122_624,
    ),
    "deepseek_v2": (_DEEPSEEK, 15_706_484_224),
    "deepseek_v3": (
        _like(_DEEPSEEK, "deepseek_v3", hidden_size=7168, intermediate_size=18432, num_hidden_layers=61,
        num_attention_heads=128,
              num_key_value_heads=128, vocab_size=129280, q_lora_rank=1536, n_routed_experts=256, n_shared_experts=1,
              num_experts_per_tok=8, moe_intermediate_size=2048, first_k_dense_replace=3, topk_method="noaux_tc"),
        671_026_419_200,
    ),
    "gemma": (
        _like(_LLAMA, "gemma", hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
              num_key_value_heads=1, head_dim=256, vocab_size=256000, hidden_act="gelu", tie_word_embeddings="drop"),
        2_506_172_416,
    ),
    "gemma2": (
        _like(_GEMMA3, "gemma2", hidden_size=3584, intermediate_size=14336, num_hidden_layers=42,
        num_attention_heads=16,
              num_key_value_heads=8, vocab_size=256000, sliding_window=4096),
        9_241_705_984,
    ),
    "gemma3_text": (_GEMMA3, 999_885_952),
    "gemma3": ({"model_type": "gemma3", "text_config": _GEMMA3, "vision_config": {}}, 999_885_952),
    "gpt_oss": (
        _like(_LLAMA, "gpt_oss", hidden_size=2880, intermediate_size=2880, num_hidden_layers=24, num_attention_heads=64,
              num_key_value_heads=8, head_dim=64, vocab_size=201088, sliding_window=128, num_local_experts=32,
              num_experts_per_tok=4, attention_bias=True, layer_types=["sliding_attention", "full_attention"] * 12),
        20_914_757_184,
    ),
    "phi": (
        _like(_LLAMA, "phi", hidden_size=2560, intermediate_size=10240, num_key_value_heads=None, vocab_size=51200,
              hidden_act="gelu_new", partial_rotary_factor=0.4),
        2_779_683_840,
    ),
    "phi3": (
        _like(_LLAMA, "phi3", hidden_size=3072, intermediate_size=8192, vocab_size=32064, sliding_window=2047),
        3_821_079_552,
    ),
    "opt": (
        {"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "vocab_size": 50272, "max_position_embeddings": 2048, "activation_function": "relu",
         "word_embed_proj_dim": 768,
         "do_layer_norm_before": True},
        125_239_296,
    ),
    "gpt2": (_GPT2, 124_439_808),
    "gptj": (
        _like(_GPT2, "gptj", n_embd=4096, n_layer=28, n_head=16, n_positions=2048, vocab_size=50400, rotary_dim=64,
        n_inner=None),
        6_050_882_784,
    ),
    "gpt_neox": (_NEOX, 20_554_567_680),
    "falcon": (
        {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "num_kv_heads": 71,
         "vocab_size": 65024, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True,
         "bias": False,
         "alibi": False},
        6_921_720_704,
    ),
    "RefinedWeb": (
        {"model_type": "RefinedWeb", "hidden_size": 8192, "n_layer": 60, "n_head": 128, "n_head_kv": 8,
        "vocab_size": 65024,
         "new_decoder_architecture": True},
        41_303_293_952,
    ),
    "bloom": (
        {"model_type": "bloom", "n_embed": 4096, "n_layer": 30, "num_attention_heads": 32, "vocab_size": 250880},
        7_069_016_064,
    ),
    "bert": (_BERT, 109_482_240),
    "vit": (
        {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 1024,
        "intermediate_size": 4096,
         "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224, "patch_size": 16, "hidden_act": "gelu",
         "id2label": {str(i): f"class {i}" for i in range(1000)}},
        304_326_632,
    ),
    "t5": (
        {"model_type": "t5", "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_decoder_layers": 24,
         "num_heads": 64, "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        11_135_332_352,
    ),
    "whisper": (
        {"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "decoder_layers": 32,
        "encoder_attention_heads": 20,
         "decoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "vocab_size": 51866,
         "num_mel_bins": 128, "max_source_positions": 1500, "max_target_positions": 448, "activation_function": "gelu"},
        1_543_490_560,
    ),
}  # fmt: skip
