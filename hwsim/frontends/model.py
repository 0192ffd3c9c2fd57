"""A model: its exact parameter count, cache sizes, and the operator graph of one pass.

The parameters of a model are the weights of its graph: one canonical pass is built and its weight tensors are
counted by name, so a count can never disagree with what the cost models are told to move.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from hwsim.errors import InputError
from hwsim.frontends.attention import visible
from hwsim.frontends.block import layer_kinds
from hwsim.frontends.formats import Formats, get_format
from hwsim.frontends.graph import GraphBuilder, Scenario
from hwsim.frontends.mla import cached_elements
from hwsim.frontends.registry import emitter, fixed_tokens
from hwsim.ir.numbers import Num
from hwsim.ir.workload import NumberFormat, Operator, Tensor, WorkloadGraph
from hwsim.schema.model import ModelSpec

GENERATIVE: Final = ("prefill", "decode")


@dataclass(frozen=True)
class Model:
    """A model whose shape is `spec`; every size below is exact.

    `path` and `sha256` say which file it came from, for provenance.
    """

    spec: ModelSpec
    path: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def layers(self) -> int:
        """Blocks executed one after another by a pass (of the decoder, where there is an encoder too)."""
        return self.spec.layers

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases that `graph` builds: prefill and decode, or forward for encoders and diffusion models."""
        return GENERATIVE if self.spec.arch in ("decoder", "encoder-decoder", "recurrent") else ("forward",)

    @property
    def prompt_is_source(self) -> bool:
        """True where the prompt goes to an encoder (T5), so that the decoder's cache holds generated tokens only.

        Such a model decodes with `past_tokens` = generated tokens and `source_tokens` = prompt.
        """
        return self.spec.encoder is not None and self.spec.encoder.tokens is None

    @property
    def fixed_tokens(self) -> int | None:
        """Tokens of one input where the architecture fixes them (images, audio), else None."""
        return fixed_tokens(self.spec)

    @cached_property
    def parameters(self) -> int:
        """All parameters: matrices, biases, norms, learned positions; a tied table counts once."""
        return sum(int(t.elements) * repeat for t, _, repeat in self._weights(_plain()))

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token uses: `top_k` of each layer's experts, everything else whole."""
        return sum(_active(t, o) * repeat for t, o, repeat in self._weights(_plain()))

    def weight_bytes(self, formats: Formats | NumberFormat | str = "bf16") -> Num:
        """Stored bytes of all weights; what quantization leaves alone is kept in `Formats.wide`."""
        total: Num = 0
        for tensor, _, repeat in self._weights(_formats(formats)):
            total = total + tensor.stored_bytes * repeat
        return total

    def kv_bytes_per_token(self, fmt: NumberFormat | str = "bf16") -> Num:
        """Cache bytes that one more token of one sequence takes, over all layers (cross attention not counted)."""
        return _format(fmt).bytes(self.spec.layers * self._cached)

    def kv_cache_bytes(
        self, batch: Num, context: Num, fmt: NumberFormat | str = "bf16", source_tokens: Num | None = None
    ) -> Num:
        """Cache bytes of `batch` sequences of `context` tokens; a window layer keeps its window only.

        Encoder-decoders add keys and values of the source (`source_tokens`, by default the fixed length or `context`);
        recurrent models keep one state of constant size instead.
        """
        stored = _format(fmt)
        total: Num = 0
        for kind, count in layer_kinds(self.spec).items():
            total = total + visible(context, kind.window) * (count * self._cached)
        return stored.bytes(batch * (total + self._fixed_cache(context, source_tokens)))

    def graph(
        self,
        phase: str,
        batch: Num,
        q_tokens: Num,
        past_tokens: Num,
        formats: Formats | None = None,
        source_tokens: Num | None = None,
    ) -> WorkloadGraph:
        """The operators of one pass over `q_tokens` new tokens for each of `batch` sequences.

        Parameters
        ----------
        phase: one of `phases`. Decode takes one token a sequence (`q_tokens` = 1); images have `fixed_tokens`
            whatever `q_tokens` says.
        batch, q_tokens, past_tokens: scalars, or arrays that broadcast together.
        formats: number formats by role; bf16 by default.
        source_tokens: length of the encoder's input of an encoder-decoder; by default its fixed length, else
            `q_tokens` in prefill and `past_tokens` in decode.

        Raises
        ------
        InputError: a phase that this architecture has not, or a size that is not positive and finite.
        """
        q_tokens = q_tokens if self.fixed_tokens is None else self.fixed_tokens
        _check(self, phase, {"batch": batch, "q_tokens": q_tokens, "past_tokens": past_tokens})
        source = self._source(phase, q_tokens, past_tokens) if source_tokens is None else source_tokens
        scenario = Scenario.of(phase, (batch, q_tokens, past_tokens, source), formats or _plain())
        builder = GraphBuilder()
        notes = emitter(self.spec)(builder, self.spec, scenario)
        return builder.build(self.name, scenario, notes)

    @property
    def _cached(self) -> int:
        """Elements that one token leaves in the cache of one layer."""
        if self.spec.arch not in ("decoder", "encoder-decoder"):
            return 0
        return cached_elements(self.spec.mla) if self.spec.mla else 2 * self.spec.kv_heads * self.spec.head_dim

    def _fixed_cache(self, context: Num, source_tokens: Num | None) -> Num:
        """Cache elements of a sequence that do not grow with it: cross attention, recurrent states."""
        if self.spec.arch == "recurrent":
            return self.spec.layers * self.spec.hidden
        if self.spec.encoder is None:
            return 0
        length = source_tokens if source_tokens is not None else self.spec.encoder.tokens or context
        return length * (self.spec.layers * self._cached)

    def _source(self, phase: str, q_tokens: Num, past_tokens: Num) -> Num:
        if self.spec.encoder is None:
            return 0
        return self.spec.encoder.tokens or (q_tokens if phase == "prefill" else past_tokens)

    def _weights(self, formats: Formats) -> list[tuple[Tensor, Operator, int]]:
        """Each weight once, with an operator that holds it and that operator's repeat."""
        graph = self.graph(self.phases[0], 1, 1, 0, formats)
        found = {t.name: (t, o, o.repeat) for o in graph.operators for t in o.weights}
        return list(found.values())


def _active(tensor: Tensor, operator: Operator) -> int:
    if operator.kind != "moe":
        return int(tensor.elements)
    return int(tensor.elements) * int(operator.dims["topk"]) // int(operator.dims["experts"])


def _plain() -> Formats:
    return Formats.of("bf16")


def _format(fmt: NumberFormat | str) -> NumberFormat:
    return get_format(fmt) if isinstance(fmt, str) else fmt


def _formats(formats: Formats | NumberFormat | str) -> Formats:
    if isinstance(formats, Formats):
        return formats
    return Formats.of(formats if isinstance(formats, str) else formats.name)


def _check(model: Model, phase: str, sizes: dict[str, Num]) -> None:
    if phase not in model.phases:
        known = " and ".join(model.phases)
        raise InputError(f"{model.name} has no phase {phase!r}", seen=repr(phase), fix=f"its phases are {known}")
    for name, size in sizes.items():
        values = np.asarray(size)
        least = 0 if name == "past_tokens" else 1
        if values.dtype.kind not in "iuf" or not bool(np.all(np.isfinite(values)) and np.all(values >= least)):
            raise InputError(f"{name} must be a finite number >= {least}", where=name, seen=repr(size)[:80])
    if phase == "decode" and not bool(np.all(np.asarray(sizes["q_tokens"]) == 1)):
        fix = "use the phase prefill for several new tokens"
        raise InputError(
            "decode takes one token a sequence", where="q_tokens", seen=repr(sizes["q_tokens"])[:80], fix=fix
        )
