"""What is computed: number formats, tensors, operators and the graph of one block times its repeat.

Knows nothing of files or hardware. Sizes are `Num`: scalars for one scenario, arrays for a grid of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from hwsim.ir.numbers import Num

if TYPE_CHECKING:
    import networkx

OperatorKind = Literal["gemm", "attention_prefill", "attention_decode", "moe", "vector", "embedding", "collective"]
Role = Literal["weight", "activation", "kv_cache", "state"]
Shard = Literal["replicated", "column", "row", "heads", "experts", "vocab", "elements"]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How numbers are stored and at which peak they compute.

    Attributes
    ----------
    name: catalog name, e.g. ``bf16``, ``int4-g128``.
    element_bits: bits of one element without scales.
    group: elements that share one scale (0: no scale stored).
    scale_bits, zero_bits: bits of the scale and zero point of each group.
    compute: dtype whose peak the device uses when both operands have this format; weight-only formats
        name the 16-bit dtype they are expanded to.
    weight_only: True if elements are expanded before the multiply (dequantization work, 16-bit peak).
    """

    name: str
    element_bits: float
    compute: str
    group: int = 0
    scale_bits: float = 0.0
    zero_bits: float = 0.0
    weight_only: bool = False

    @property
    def bits(self) -> float:
        """Stored bits of one element, its share of scale and zero point included."""
        return self.element_bits + ((self.scale_bits + self.zero_bits) / self.group if self.group else 0.0)

    def bytes(self, elements: Num) -> Num:
        """Stored bytes of `elements` elements; exact (int) where the result is integral."""
        total = elements * self.bits / 8
        return int(total) if isinstance(total, float) and total.is_integer() and total < 2**53 else total


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array with a role. `touched` is the fraction of it that one execution reads or writes.

    An embedding gather touches its rows only; an expert layer the distinct experts that were picked.
    """

    name: str
    shape: tuple[Num, ...]
    format: NumberFormat
    role: Role = "activation"
    touched: Num = 1.0

    @property
    def elements(self) -> Num:
        total: Num = 1
        for extent in self.shape:
            total = total * extent
        return total

    @property
    def stored_bytes(self) -> Num:
        return self.format.bytes(self.elements)

    @property
    def moved_bytes(self) -> Num:
        """Bytes that one execution must move at least once (compulsory traffic)."""
        if isinstance(self.touched, float | int) and self.touched == 1.0:
            return self.stored_bytes
        return self.stored_bytes * self.touched


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel-sized piece of work. `dims` carries the shape that family cost models need.

    Keys of `dims` by kind (all `Num`; one execution on one device after sharding):

    - gemm: batch, m, n, k - out[m,n] = act[m,k] x weight[k,n]; batch > 1 is a batched matmul
    - attention_prefill: batch, q_len, prefix, n_heads, n_kv_heads, head_dim, v_head_dim, window (0: full), causal (0/1)
    - attention_decode: batch, context, n_heads, n_kv_heads, head_dim, v_head_dim, window; one query token a sequence
    - moe: tokens, hidden, inter, experts, topk, active_experts, matrices (3 gated,
      2 plain); `tokens` enter, each picks `topk`; after sharding also moe_tp and moe_ep (inter and experts stay full)
    - vector: rows, cols; `op` names the function (rms_norm, layer_norm, silu_mul, gelu, rope, add, softmax, ...)
    - embedding: rows, cols
    - collective: bytes, ranks; `op` is all_reduce, all_gather, reduce_scatter, all_to_all or send_recv

    Attributes
    ----------
    flop: operations of one execution (an FMA counts as two).
    dtype: compute dtype, selects the device peak.
    unit: ``tensor`` (matrix engines) or ``vector``.
    shard: how tensor parallelism splits it (see `hwsim.mapping.lower`).
    repeat: how many times the model executes it (layers of its segment).
    """

    name: str
    kind: OperatorKind
    op: str
    dims: Mapping[str, Num]
    flop: Num
    dtype: str
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    unit: Literal["tensor", "vector"] = "tensor"
    shard: Shard = "replicated"
    segment: str = "block"
    repeat: int = 1

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.inputs if t.role == "weight")

    @property
    def weight_format(self) -> NumberFormat | None:
        return self.weights[0].format if self.weights else None

    @property
    def read_bytes(self) -> Num:
        return _total(t.moved_bytes for t in self.inputs)

    @property
    def written_bytes(self) -> Num:
        return _total(t.moved_bytes for t in self.outputs)

    def moved_bytes(self, role: Role) -> Num:
        """Compulsory bytes of one role, reads and writes together."""
        return _total(t.moved_bytes for t in (*self.inputs, *self.outputs) if t.role == role)

    def with_(self, **changes: Any) -> Operator:
        return replace(self, **changes)


def _total(values: Iterator[Num]) -> Num:
    total: Num = 0
    for value in values:
        total = total + value
    return total


@dataclass(frozen=True, slots=True)
class Edge:
    """`tensor` (a name) flows from operator `source` to operator `target`."""

    source: str
    target: str
    tensor: str


@dataclass(frozen=True, slots=True)
class WorkloadGraph:
    """One phase of a workload: operators in topological order, and the tensors between them.

    `phase` is ``prefill``, ``decode`` (one step) or ``forward`` (encoders, diffusion, raw operators).
    """

    name: str
    phase: str
    operators: tuple[Operator, ...]
    edges: tuple[Edge, ...] = ()
    tokens: Num = 1
    batch: Num = 1
    notes: tuple[str, ...] = field(default=())

    @property
    def flop(self) -> Num:
        """All operations of the phase, repeats included; an exact int for scalar scenarios."""
        return _total(o.flop * o.repeat for o in self.operators)

    @property
    def weight_bytes(self) -> Num:
        """Stored bytes of the weights; one that two operators share (a tied output head) counts once."""
        stored = {t.name: t.stored_bytes * o.repeat for o in self.operators for t in o.weights}
        return _total(iter(stored.values()))

    def operator(self, name: str) -> Operator:
        """The operator called `name`. Raises KeyError."""
        for item in self.operators:
            if item.name == name:
                return item
        raise KeyError(name)

    def to_networkx(self) -> networkx.DiGraph:
        """For graph algorithms: nodes hold ``operator``, ``repeat`` and ``segment``, edges ``name`` and ``tensor``."""
        import networkx

        graph = networkx.DiGraph(name=self.name, phase=self.phase)
        for item in self.operators:
            graph.add_node(item.name, operator=item, repeat=item.repeat, segment=item.segment)
        tensors = {t.name: t for o in self.operators for t in (*o.inputs, *o.outputs)}
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, name=edge.tensor, tensor=tensors.get(edge.tensor))
        return graph
