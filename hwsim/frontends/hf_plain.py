"""Families of the GPT recipe (plain feed-forward, layer norms), encoders, encoder-decoders. One function a family."""

from __future__ import annotations

from hwsim.frontends.hf_reader import Config
from hwsim.frontends.hf_shapes import ACTIVATIONS, Shape, activation, bias_list, split_heads


def _plain(c: Config, hidden: int, heads: int) -> Shape:
    """The GPT recipe: layer norms, plain feed-forward of four times the width, biases everywhere."""
    return {
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": split_heads(c, hidden, heads),
        "ffn": 4 * hidden,
        "vocab": c.count("vocab_size"),
        "activation": "gelu",
        "gated": False,
        "norm": "layer_norm",
        "biases": ["qkv", "out", "ffn"],
    }


def opt(c: Config) -> Shape:
    """GPT with norms in front of each half, and two rows more in its table of positions."""
    hidden = c.count("hidden_size")
    c.require(c.count("word_embed_proj_dim", default=hidden) == hidden, "projected embeddings", "word_embed_proj_dim")
    c.require(c.flag("do_layer_norm_before", default=True), "norms after each half", "do_layer_norm_before")
    positions = c.count("max_position_embeddings")
    return _plain(c, hidden, c.count("num_attention_heads")) | {
        "layers": c.count("num_hidden_layers"),
        "ffn": c.count("ffn_dim"),
        "activation": activation(c, "activation_function", default="relu"),
        "biases": ["qkv", "out", "ffn"] if c.flag("enable_bias", default=True) else [],
        "positions": "learned",
        "max_positions": positions,
        "position_rows": positions + 2,  # OPT's table starts with two rows that are never looked up
        "tied": c.flag("tie_word_embeddings", default=True),
    }


def _gpt(c: Config) -> Shape:
    hidden = c.count("n_embd", "hidden_size")
    return _plain(c, hidden, c.count("n_head", "num_attention_heads")) | {
        "layers": c.count("n_layer", "num_hidden_layers"),
        "ffn": c.count("n_inner", default=None) or 4 * hidden,
        "activation": activation(c, "activation_function", default="gelu_new"),
        "max_positions": c.count("n_positions", "max_position_embeddings"),
    }


def gpt2(c: Config) -> Shape:
    """GPT-2: learned positions, tied embeddings."""
    c.require(not c.flag("add_cross_attention", default=False), "cross attention", "add_cross_attention")
    return _gpt(c) | {"positions": "learned", "tied": c.flag("tie_word_embeddings", default=True)}


def gptj(c: Config) -> Shape:
    """GPT-J: both halves on one norm, partly rotated heads, no biases in attention."""
    placed = {"norm_placement": "parallel_shared", "biases": ["ffn", "head"], "rotary_dim": c.count("rotary_dim")}
    return _gpt(c) | placed | {"tied": c.flag("tie_word_embeddings", default=False)}


def gpt_neox(c: Config) -> Shape:
    """GPT-NeoX and Pythia: both halves side by side on norms of their own, partly rotated heads."""
    shape = _plain(c, c.count("hidden_size"), c.count("num_attention_heads"))
    bias = c.flag("attention_bias", default=True)
    return shape | {
        "layers": c.count("num_hidden_layers"),
        "ffn": c.count("intermediate_size"),
        "activation": activation(c, "hidden_act", default="gelu"),
        "norm_placement": "parallel" if c.flag("use_parallel_residual", default=True) else "pre",
        "rotary_dim": int(shape["head_dim"] * c.fraction("rotary_pct", "partial_rotary_factor", default=0.25)),
        "biases": bias_list(qkv=bias, out=bias, ffn=True),
        "max_positions": c.count("max_position_embeddings", default=None),
        "tied": c.flag("tie_word_embeddings", default=False),
    }


def falcon(c: Config) -> Shape:
    """Falcon: one key-value head or a few, halves side by side, no biases."""
    hidden, heads = c.count("hidden_size"), c.count("num_attention_heads", "n_head")
    grouped = c.flag("new_decoder_architecture", default=False)
    # Without the new architecture the code ignores num_kv_heads: one KV head, or one for each query head
    kv = c.count("num_kv_heads", "n_head_kv", default=heads) if grouped else 1
    if not grouped and not c.flag("multi_query", default=True):
        kv = heads
    norms = c.count("num_ln_in_parallel_attn", default=2 if grouped else 1)
    parallel = grouped or c.flag("parallel_attn", default=True)
    bias = c.flag("bias", default=False)
    return _plain(c, hidden, heads) | {
        "layers": c.count("num_hidden_layers", "n_layer"),
        "kv_heads": kv,
        "ffn": c.count("ffn_hidden_size", default=None) or 4 * hidden,
        "norm_placement": ("parallel" if norms == 2 else "parallel_shared") if parallel else "pre",
        "positions": "alibi" if c.flag("alibi", default=False) else "rope",
        "biases": bias_list(qkv=bias, out=bias, ffn=bias),
        "max_positions": c.count("max_position_embeddings", default=None),
        "tied": c.flag("tie_word_embeddings", default=True),
    }


def bloom(c: Config) -> Shape:
    """BLOOM: ALiBi positions, a norm after the embedding."""
    hidden = c.count("hidden_size", "n_embed")
    shape = _plain(c, hidden, c.count("n_head", "num_attention_heads"))
    more = {"positions": "alibi", "embedding_norm": True, "tied": c.flag("tie_word_embeddings", default=True)}
    return shape | more | {"layers": c.count("n_layer", "num_hidden_layers")}


def bert(c: Config) -> Shape:
    """BERT: norms after each half, token types, a pooler."""
    c.word("position_embedding_type", known=("absolute",), default="absolute")
    c.require(not c.flag("is_decoder", default=False), "BERT as a decoder", "is_decoder")
    return _plain(c, c.count("hidden_size"), c.count("num_attention_heads")) | {
        "arch": "encoder",
        "layers": c.count("num_hidden_layers"),
        "ffn": c.count("intermediate_size"),
        "activation": activation(c, "hidden_act", default="gelu"),
        "norm_placement": "post",
        "final_norm": False,
        "embedding_norm": True,
        "positions": "learned",
        "max_positions": c.count("max_position_embeddings"),
        "token_types": c.count("type_vocab_size", default=2),
        "pooler": True,
        "tied": c.flag("tie_word_embeddings", default=True),
    }


def vit(c: Config) -> Shape:
    """ViT: patches of a picture in place of words; a classifier where the class of the model has one."""
    c.require(c.flag("qkv_bias", default=True), "projections without biases", "qkv_bias")
    hidden, heads = c.count("hidden_size"), c.count("num_attention_heads")
    labels, kind = c.data.get("id2label"), str((c.items("architectures") or [""])[0])
    classes = len(labels) if isinstance(labels, dict) else c.count("num_labels", default=2)
    classifier = kind.endswith("ForImageClassification")
    picture = {"image_size": c.count("image_size"), "patch": c.count("patch_size")}
    picture |= {"channels": c.count("num_channels", default=3), "classes": classes if classifier else 0}
    c.require(picture["patch"] <= picture["image_size"], "a patch larger than the picture", "patch_size")
    return _plain(Config(c.data | {"vocab_size": 1}, c.where), hidden, heads) | {
        "arch": "vision",
        "layers": c.count("num_hidden_layers"),
        "ffn": c.count("intermediate_size"),
        "activation": activation(c, "hidden_act", default="gelu"),
        "vocab": 0,
        "positions": "learned",
        "tied": False,
        "vision": picture | {"pooler": not classifier},
    }


def t5(c: Config) -> Shape:
    """T5: encoder and decoder, relative positions, no biases."""
    heads, layers = c.count("num_heads"), c.count("num_layers")
    feed = c.word("feed_forward_proj", known=ACTIVATIONS, default="relu")
    return {
        "arch": "encoder-decoder",
        "layers": c.count("num_decoder_layers", default=layers),
        "encoder": {"layers": layers},
        "hidden": c.count("d_model"),
        "heads": heads,
        "kv_heads": heads,
        "head_dim": c.count("d_kv"),
        "ffn": c.count("d_ff"),
        "vocab": c.count("vocab_size"),
        "activation": ACTIVATIONS[feed],
        "gated": feed.startswith("gated-"),
        "positions": "relative",
        "position_buckets": c.count("relative_attention_num_buckets", default=32),
        "tied": c.flag("tie_word_embeddings", default=True),
    }


def whisper(c: Config) -> Shape:
    """Whisper: an encoder over spectrogram frames of fixed length, no bias on keys."""
    heads, ffn = c.count("decoder_attention_heads"), c.count("decoder_ffn_dim")
    c.require(c.count("encoder_attention_heads") == heads, "heads differ between the halves", "encoder_attention_heads")
    c.require(c.count("encoder_ffn_dim") == ffn, "ffn widths differ between the halves", "encoder_ffn_dim")
    encoder = {"layers": c.count("encoder_layers"), "tokens": c.count("max_source_positions")}
    return _plain(c, c.count("d_model"), heads) | {
        "arch": "encoder-decoder",
        "layers": c.count("decoder_layers"),
        "encoder": encoder | {"mel_bins": c.count("num_mel_bins")},
        "ffn": ffn,
        "activation": activation(c, "activation_function", default="gelu"),
        "biases": ["qv", "out", "ffn"],
        "positions": "learned",
        "max_positions": c.count("max_target_positions"),
        "tied": c.flag("tie_word_embeddings", default=True),
    }
