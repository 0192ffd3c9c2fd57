"""How the two halves of a block join the residual stream, and which layers of a model are alike.

Layers that do the same work form one segment with a repeat; a model whose layers alternate (windows, experts)
has one segment for each kind. Work does not depend on the order of layers, so the segments run one after another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hwsim.frontends.attention import Heads, self_attention
from hwsim.frontends.ffn import experts_block, feed_forward
from hwsim.frontends.graph import Scenario, Segment
from hwsim.frontends.mla import latent_attention
from hwsim.ir.workload import Tensor
from hwsim.schema.model import ModelSpec


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What sets a layer apart: its window (0: full attention) and whether it holds experts."""

    window: int
    experts: bool

    def label(self, kinds: tuple[LayerKind, ...]) -> str:
        """``block``, or the traits in which the kinds of this model differ: ``block_window``, ``block_dense`` ..."""
        parts = ["block"]
        if len({k.window for k in kinds}) > 1:
            parts.append("window" if self.window else "full")
        if len({k.experts for k in kinds}) > 1:
            parts.append("moe" if self.experts else "dense")
        return "_".join(parts)


def layer_kinds(spec: ModelSpec) -> dict[LayerKind, int]:
    """Kinds of layers in order of first appearance, and how many layers are of each."""
    return dict(Counter(_kind(spec, index) for index in range(spec.layers)))


def layer_labels(spec: ModelSpec) -> tuple[str, ...]:
    """Segment of each layer, in the order of the layers."""
    kinds = tuple(layer_kinds(spec))
    return tuple(_kind(spec, index).label(kinds) for index in range(spec.layers))


def _kind(spec: ModelSpec, index: int) -> LayerKind:
    window = spec.window
    size = window.size if window and window.pattern[index % len(window.pattern)] == "window" else 0
    moe = spec.moe
    experts = (
        moe is not None and index >= moe.first_dense_layers and _hits(index, moe.first_dense_layers, moe.every_n_layers)
    )
    return LayerKind(size, experts)


def _hits(index: int, first: int, every: int) -> bool:
    """The last layer of each group of `every` holds experts, counted after the leading dense layers."""
    return (index - first) % every == every - 1


State = tuple[Tensor, Tensor | None]
Half = Callable[[Tensor], Tensor]


def decoder_block(seg: Segment, spec: ModelSpec, kind: LayerKind, state: State, s: Scenario) -> State:
    """One block on (residual, branch still to be added); returns the same pair for the next block."""

    def attention(x: Tensor) -> Tensor:
        if spec.mla is not None:
            return latent_attention(seg, spec, x, s)
        return self_attention(seg, spec, Heads.of(spec, kind.window, s.phase != "forward"), x, s)

    def ffn(x: Tensor) -> Tensor:
        return experts_block(seg, spec, x, s) if kind.experts else feed_forward(seg, spec, x, spec.ffn)

    return join(seg, spec, state, attention, ffn)


def join(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    """Wire both halves as the model's norm placement says. Each residual sum is fused with the norm after it."""
    placement = {
        "pre": _pre, "post": _post, "sandwich": _sandwich, "branch": _branch, "parallel": _parallel,
        "parallel_shared": _parallel,
    }[spec.norm_placement]  # fmt: skip
    return placement(seg, spec, carried(seg, state), attention, ffn)


def carried(seg: Segment, state: State) -> State:
    """A repeated block adds the branch of the block before it, also where this graph shows only the first."""
    residual, delta = state
    if delta is None and seg.repeat > 1:
        delta = Tensor(f"{seg.name}.carried", residual.shape, residual.format)
    return residual, delta


def _pre(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    x, residual = seg.norm("norm1", spec.norm, *state)
    x, residual = seg.norm("norm2", spec.norm, residual, attention(x))
    return residual, ffn(x)


def _post(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    x = state[0]
    x, _ = seg.norm("norm1", spec.norm, x, attention(x))
    x, _ = seg.norm("norm2", spec.norm, x, ffn(x))
    return x, None


def _sandwich(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    x, residual = seg.norm("norm1", spec.norm, *state)
    branch, _ = seg.norm("post_attention_norm", spec.norm, attention(x), quantize=False)
    x, residual = seg.norm("norm2", spec.norm, residual, branch)
    branch, _ = seg.norm("post_ffn_norm", spec.norm, ffn(x), quantize=False)
    return residual, branch


def _branch(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    """Norms on the branches only (OLMo 2): x + norm(f(x))."""
    x = state[0]
    for name, half in (("norm1", attention), ("norm2", ffn)):
        branch, _ = seg.norm(name, spec.norm, half(x), quantize=False)
        x = seg.vector(f"{name}_add", "add", (x, branch), (seg.like(f"{name}_add.out", x),))
    return x, None


def _parallel(seg: Segment, spec: ModelSpec, state: State, attention: Half, ffn: Half) -> State:
    """Both halves read the same residual, through one norm (``parallel_shared``) or one each."""
    x, residual = seg.norm("norm1", spec.norm, *state)
    other = x if spec.norm_placement == "parallel_shared" else seg.norm("norm2", spec.norm, residual)[0]
    branches = (attention(x), ffn(other))
    return residual, seg.vector("branch_add", "add", branches, (seg.like("branch_add.out", residual),))
