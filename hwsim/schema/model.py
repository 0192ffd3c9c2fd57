"""`hwsim/model@1`: the shape of one model. Sizes are counts of elements, so plain integers are right here."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from hwsim.schema.base import Name, Strict

# No published model comes near these bounds; they keep every product inside what a float can hold
Width = Annotated[int, Field(gt=0, le=10_000_000)]
Layers = Annotated[int, Field(gt=0, le=100_000)]
Zero = Annotated[int, Field(ge=0, le=10_000_000)]
Source = Annotated[str, Field(min_length=3, max_length=600)]
Arch = Literal["decoder", "encoder", "vision", "encoder-decoder", "diffusion", "recurrent"]
Norm = Literal["rms_norm", "layer_norm", "layer_norm_nobias", "layer_norm_plain"]
Activation = Literal["silu", "gelu", "relu", "relu2"]
Placement = Literal["pre", "post", "sandwich", "branch", "parallel", "parallel_shared"]
Bias = Literal["qkv", "qv", "out", "ffn", "head", "router", "experts"]
LayerKind = Literal["full", "window"]


class MoE(Strict):
    """Experts in place of the feed-forward block.

    `expert_ffn` and `shared_ffn` are widths of one routed expert and of all shared experts together. Layers
    before `first_dense_layers` stay dense; after that every `every_n_layers`-th layer holds experts.
    """

    experts: Width
    top_k: Width
    expert_ffn: Width
    shared_ffn: Zero = 0
    shared_gate: bool = False
    first_dense_layers: Zero = 0
    every_n_layers: Layers = 1
    selection_bias: bool = False

    @model_validator(mode="after")
    def _picks_fit(self) -> MoE:
        if self.top_k > self.experts:
            raise PydanticCustomError("range", "top_k exceeds experts", {"fix": "a token picks at most all experts"})
        return self


class MLA(Strict):
    """Multi-head latent attention: keys and values are kept as one latent of `kv_lora_rank` and one rotary key."""

    kv_lora_rank: Width
    q_lora_rank: Zero = 0
    qk_nope_head_dim: Width
    qk_rope_head_dim: Width
    v_head_dim: Width


class Window(Strict):
    """Sliding attention: a token sees itself and `size` - 1 tokens before it; `pattern` repeats over the layers."""

    size: Width
    pattern: Annotated[list[LayerKind], Field(min_length=1, max_length=1024)] = ["window"]


class EncoderPart(Strict):
    """Encoder of an encoder-decoder. `tokens`: fixed input length (audio frames); absent: as long as the source.

    `mel_bins` > 0 adds the two convolutions of kernel 3 (the second with stride 2) that read a spectrogram.
    """

    layers: Layers
    tokens: Width | None = None
    mel_bins: Zero = 0


class Vision(Strict):
    """Image input: square patches of `patch` pixels, a class token if `class_token`, and a classifier of `classes`."""

    image_size: Width
    patch: Width
    channels: Width = 3
    classes: Zero = 0
    class_token: bool = True
    pooler: bool = False


class Diffusion(Strict):
    """Diffusion transformer on a latent image of `latent_size`; `frequency_dim` is the time embedding's width."""

    patch: Width
    latent_size: Width = 32
    channels: Width = 4
    classes: Zero = 1000
    frequency_dim: Width = 256
    learn_sigma: bool = True


SAME_COUNT: Final = 0.005  # relative: published counts have three digits; more is a wrong shape


class Published(Strict):
    """A parameter count that its makers print; `recalled` counts are kept from memory and unverified.

    `tolerance`: relative distance of the shape's count that is no error; above half a percent the notes say why.
    """

    value: Annotated[int, Field(gt=0)]
    quality: Literal["published", "recalled"] = "published"
    tolerance: Annotated[float, Field(gt=0, le=0.02)] = SAME_COUNT
    source: Source


class ModelSpec(Strict):
    """One model file. See `docs/recipes/model.md` for each key."""

    schema_: Literal["hwsim/model@1"] = Field(alias="schema")
    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    aliases: Annotated[list[Name], Field(max_length=40)] = []
    arch: Arch = "decoder"
    layers: Layers
    hidden: Width
    heads: Width
    kv_heads: Width
    head_dim: Width
    ffn: Width
    vocab: Zero
    activation: Activation
    gated: bool
    norm: Norm = "rms_norm"
    norm_placement: Placement = "pre"
    final_norm: bool = True
    embedding_norm: bool = False
    qk_norm: Literal["none", "head", "full", "head_layer_norm"] = "none"
    positions: Literal["rope", "learned", "alibi", "relative", "relative_xl", "none"] = "rope"
    max_positions: Annotated[int, Field(gt=0, le=10**9)] | None = None
    position_rows: Zero = 0
    position_buckets: Zero = 0
    rotary_dim: Zero = 0
    tied: bool
    biases: list[Bias] = []
    attention_sinks: bool = False
    token_types: Zero = 0
    pooler: bool = False
    moe: MoE | None = None
    mla: MLA | None = None
    window: Window | None = None
    encoder: EncoderPart | None = None
    vision: Vision | None = None
    diffusion: Diffusion | None = None
    parameters_published: Published | None = None
    notes: Annotated[str, Field(max_length=1200)] = ""
    source: Source
    imported_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.heads % self.kv_heads:
            seen = f"{self.heads} heads, {self.kv_heads} kv_heads"
            raise _bad("heads must be a multiple of kv_heads", "grouped queries share keys evenly", "kv_heads", seen)
        if self.arch in ("decoder", "encoder", "encoder-decoder", "recurrent") and self.vocab == 0:
            raise _bad("vocab must be > 0 for a text model", "give the embedding table's rows", "vocab", "0")
        if self.rotary_dim > (self.mla.qk_rope_head_dim if self.mla else self.head_dim):
            raise _bad("rotary_dim exceeds head_dim", "leave it out where the whole head rotates")
        for section, arch in (("vision", "vision"), ("diffusion", "diffusion"), ("encoder", "encoder-decoder")):
            if (getattr(self, section) is None) == (self.arch == arch):
                raise _bad(f"the section {section!r} belongs to arch {arch!r} and only there", "change one of them")
        if self.positions == "learned" and not (self.position_rows or self.max_positions) and self.arch != "vision":
            raise _bad("learned positions need max_positions or position_rows", "give the table's rows")
        if (self.positions == "relative") != (self.position_buckets > 0):
            raise _bad(
                "relative positions and position_buckets go together", "give the rows of the bias table, e.g. 32"
            )
        if (self.positions == "relative") and self.arch != "encoder-decoder":
            raise _bad("relative positions belong to encoder-decoders", "choose another kind of positions")
        self._nothing_ignored()
        if self.moe is not None and self.moe.first_dense_layers >= self.layers:
            raise _bad("first_dense_layers leaves no layer with experts", "it counts the first layers without experts")
        return self

    def _nothing_ignored(self) -> None:
        """A key that this architecture's builder does not read would be a silent lie."""
        read = {"moe": ("decoder",), "mla": ("decoder",), "window": ("decoder",), "pooler": ("encoder",)}
        for key, archs in read.items():
            if getattr(self, key) and self.arch not in archs:
                raise _bad(f"{key!r} has no meaning for arch {self.arch!r}", "remove it, or change arch")
        for size, part in (("image_size", self.vision), ("latent_size", self.diffusion)):
            if part is not None and part.patch > getattr(part, size):
                raise _bad(f"patch exceeds {size}", "a picture holds at least one patch")
        if self.encoder is not None and self.encoder.mel_bins and self.encoder.tokens is None:
            raise _bad("mel_bins needs encoder.tokens", "an audio encoder has a fixed input length, e.g. 1500")
        if self.norm_placement != "pre" and self.arch not in ("decoder", "encoder"):
            raise _bad(
                f"norm_placement {self.norm_placement!r} is not supported for arch {self.arch!r}", "leave it out"
            )


def _bad(what: str, fix: str, key: str = "", seen: str = "") -> PydanticCustomError:
    """A rule over several keys; `key` is the one whose line is named."""
    place = {"key": key} if key else {}
    return PydanticCustomError("range", "{what}", {"what": what, "fix": fix, "seen": seen, **place})
