"""Which builder makes the graph of which architecture: the one place that names them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hwsim.frontends.dit import emit_diffusion, latent_tokens
from hwsim.frontends.encdec import emit_encoder_decoder
from hwsim.frontends.encoder import emit_encoder, emit_vision, image_tokens
from hwsim.frontends.graph import GraphBuilder, Scenario
from hwsim.frontends.recurrent import emit_recurrent
from hwsim.frontends.transformer import emit_decoder
from hwsim.schema.model import ModelSpec

Emitter = Callable[[GraphBuilder, ModelSpec, Scenario], tuple[str, ...]]  # adds operators, returns notes
_EMITTERS: Final[dict[str, Emitter]] = {
    "decoder": emit_decoder,
    "encoder": emit_encoder,
    "vision": emit_vision,
    "encoder-decoder": emit_encoder_decoder,
    "diffusion": emit_diffusion,
    "recurrent": emit_recurrent,
}


def emitter(spec: ModelSpec) -> Emitter:
    """The function that adds the operators of `spec`'s architecture to a builder."""
    return _EMITTERS[spec.arch]


def fixed_tokens(spec: ModelSpec) -> int | None:
    """Tokens of one image or latent, or None where the length is the caller's."""
    if spec.vision is not None:
        return image_tokens(spec.vision)
    return latent_tokens(spec.diffusion) if spec.diffusion is not None else None
