"""Building a workload graph: kernels of one segment, and the edges that follow from which tensor feeds which.

A segment is one block with its repeat. Activations are matrices of (rows, cols): rows are tokens of the
whole batch. Weights are tensors with the role ``weight``, so a model's parameters are the weights of its graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from hwsim.frontends.formats import Formats, compute_dtype
from hwsim.ir.numbers import Num, exact
from hwsim.ir.workload import Edge, NumberFormat, Operator, Shard, Tensor, WorkloadGraph

# Operations for one element of a vector kernel's output, exponential, square root and division counted as one each.
# rms_norm: square, accumulate, scale by 1/rms, weight. layer_norm: mean, difference, square, accumulate, scale,
# weight, bias. Gated forms add the product. rope: two products and a sum. They bound vector units only;
# every one of these kernels moves far more bytes than it computes.
VECTOR_FLOP: Final = {
    "rms_norm": 4, "layer_norm": 7, "silu_mul": 5, "gelu_mul": 9, "relu_mul": 2, "relu2_mul": 3, "silu": 4, "gelu": 8,
    "relu": 1, "relu2": 2, "tanh": 1, "rope": 3, "add": 1,
    "topk_softmax": 5, "softmax": 5, "modulate": 2, "gate_add": 2, "recurrence": 6,
}  # fmt: skip


def lesser(a: Num, b: Num) -> Num:
    """Elementwise minimum that keeps exact Python ints for scalars."""
    if np.ndim(a) == 0 and np.ndim(b) == 0:
        return min(a, b)
    return np.minimum(a, b)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of a model: `q_tokens` new tokens for each of `batch` sequences after `past_tokens` cached ones.

    `source_tokens` is the length that an encoder reads (encoder-decoders only).
    """

    phase: str
    batch: Num
    q_tokens: Num
    past_tokens: Num
    formats: Formats
    source_tokens: Num = 0

    @classmethod
    def of(cls, phase: str, sizes: Sequence[Num], formats: Formats) -> Scenario:
        """Sizes are (batch, q_tokens, past_tokens, source_tokens): ints stay exact, arrays become float64."""
        batch, q_tokens, past_tokens, source_tokens = (exact(size) for size in sizes)
        return cls(phase, batch, q_tokens, past_tokens, formats, source_tokens)

    @property
    def tokens(self) -> Num:
        """New tokens of the whole batch."""
        return self.batch * self.q_tokens

    @property
    def context(self) -> Num:
        """Tokens a sequence holds after this pass."""
        return self.past_tokens + self.q_tokens


@dataclass(slots=True)
class GraphBuilder:
    """Collects operators in execution order; an input made by an earlier operator becomes an edge."""

    operators: list[Operator] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    _producer: dict[str, str] = field(default_factory=dict)

    def add(self, operator: Operator) -> None:
        for tensor in operator.inputs:
            source = self._producer.get(tensor.name)
            if source is not None:
                self.edges.append(Edge(source, operator.name, tensor.name))
        self._producer.update({tensor.name: operator.name for tensor in operator.outputs})
        self.operators.append(operator)

    def build(self, name: str, scenario: Scenario, notes: tuple[str, ...] = ()) -> WorkloadGraph:
        return WorkloadGraph(
            name, scenario.phase, tuple(self.operators), tuple(self.edges), scenario.tokens, scenario.batch, notes
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """Adds the kernels of one block, `repeat` times executed, to a graph. Each method returns the output."""

    graph: GraphBuilder
    name: str
    repeat: int
    formats: Formats

    def tensor(self, name: str, rows: Num, cols: Num, fmt: NumberFormat | None = None) -> Tensor:
        """An activation of this segment, in the wide format unless told otherwise."""
        return Tensor(f"{self.name}.{name}", (rows, cols), fmt or self.formats.wide)

    def like(self, name: str, other: Tensor, fmt: NumberFormat | None = None) -> Tensor:
        """An activation of this segment with the shape of another."""
        return self.tensor(name, other.shape[0], other.shape[1], fmt)

    def weight(self, name: str, *shape: Num, fmt: NumberFormat | None = None) -> Tensor:
        return Tensor(f"{self.name}.{name}", shape, fmt or self.formats.weights, "weight")

    def add(self, operator: Operator) -> None:
        """Add an operator; stems and heads of all stacks share the segments ``embed`` and ``head``: no layers."""
        segment = next((part for part in ("embed", "head") if self.name.endswith(part)), self.name)
        self.graph.add(replace(operator, segment=segment, repeat=self.repeat))

    def linear(
        self,
        name: str,
        x: Tensor | tuple[Tensor, ...],
        n: int,
        *,
        shard: Shard = "column",
        bias: int = 0,
        matrix: Tensor | None = None,
    ) -> Tensor:
        """A matrix multiply out[m, n] = x[m, k] weight[k, n]; 2 m n k operations.

        Rows of several inputs add up. `bias` counts its elements (0: none). `matrix` replaces the weight that the
        segment would make (another format, a tied table).
        """
        inputs = x if isinstance(x, tuple) else (x,)
        k, m = inputs[0].shape[1], inputs[0].shape[0]
        for other in inputs[1:]:
            m = m + other.shape[0]
        stored = matrix or self.weight(f"{name}.weight", k, n)
        out = self.tensor(f"{name}.out", m, n)
        biases = (self.wide_weight(f"{name}.bias", bias),) if bias else ()
        self.add(
            Operator(
                name=f"{self.name}.{name}",
                kind="gemm",
                op="linear",
                dims={"batch": 1, "m": m, "n": n, "k": k},
                flop=2 * m * n * k,
                dtype=compute_dtype(stored.format, inputs[0].format),
                inputs=(*inputs, stored, *biases),
                outputs=(out,),
                shard=shard,
            )
        )
        return out

    def wide_weight(self, name: str, *shape: Num) -> Tensor:
        """A weight that quantization leaves alone (router, head, norms)."""
        return self.weight(name, *shape, fmt=self.formats.wide)

    def vector(
        self,
        name: str,
        op: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        *,
        shard: Shard = "replicated",
        flop_per_element: int | None = None,
        dims: tuple[Num, Num] | None = None,
    ) -> Tensor:
        """A row-wise kernel of `dims` (rows, cols), by default those of its first output; returns that output."""
        rows, cols = dims or outputs[0].shape
        cost = VECTOR_FLOP[op] if flop_per_element is None else flop_per_element
        self.add(
            Operator(
                name=f"{self.name}.{name}",
                kind="vector",
                op=op,
                dims={"rows": rows, "cols": cols},
                flop=cost * rows * cols,
                dtype=self.formats.wide.compute,
                inputs=inputs,
                outputs=outputs,
                unit="vector",
                shard=shard,
            )
        )
        return outputs[0]

    def norm(
        self, name: str, op: str, x: Tensor, delta: Tensor | None = None, *, quantize: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Normalize `x` (+ `delta`, the branch added to the residual): returns (normalized, residual).

        `op` is ``rms_norm`` (one weight), ``layer_norm`` (weight and bias) or ``layer_norm_nobias``,
        ``layer_norm_plain`` (no weights). The output feeds a matrix multiply: activation format if `quantize`.
        """
        rows, cols = x.shape
        kind = op.removesuffix("_nobias").removesuffix("_plain")
        fields = {"rms_norm": ("weight",), "layer_norm": ("weight", "bias"), "layer_norm_nobias": ("weight",)}.get(
            op, ()
        )
        weights = tuple(self.wide_weight(f"{name}.{f}", cols) for f in fields)
        out = self.tensor(f"{name}.out", rows, cols, self.formats.activations if quantize else None)
        if delta is None:
            self.vector(name, kind, (x, *weights), (out,))
            return out, x
        residual = self.tensor(f"{name}.residual", rows, cols)
        cost = VECTOR_FLOP[kind] + VECTOR_FLOP["add"]
        self.vector(name, kind, (x, delta, *weights), (out, residual), flop_per_element=cost)
        return out, residual

    def lookup(
        self, name: str, rows: Num, table: tuple[int, int], *, shard: Shard = "vocab", weight: str = ""
    ) -> Tensor:
        """Gather `rows` rows of a table (entries, cols); touches at most the whole table."""
        entries, cols = table
        share = lesser(1.0, rows / entries)
        stored = replace(self.weight(f"{name}.weight", entries, cols, fmt=self.formats.wide), touched=share)
        stored = replace(stored, name=weight) if weight else stored
        out = self.tensor(f"{name}.out", rows, cols)
        dims = {"rows": rows, "cols": cols}
        dtype = self.formats.wide.compute
        operator = Operator(
            f"{self.name}.{name}", "embedding", "lookup", dims, 0, dtype, (stored,), (out,), "vector", shard
        )
        self.add(operator)
        return out
