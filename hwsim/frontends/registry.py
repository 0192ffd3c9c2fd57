"""Which builder makes the graph of which architecture: the one place that names them all."""

from __future__ import annotations

from hwsim.frontends.transformer import Emitter, emit_decoder
from hwsim.schema.model import ModelSpec


def emitter(spec: ModelSpec) -> Emitter:
    """The function that adds the operators of `spec`'s architecture to a builder."""
    return emit_decoder


def fixed_tokens(spec: ModelSpec) -> int | None:
    return None
