"""What is fused: one attention call, and the decision about its tiles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from hwsim.errors import InputError

ORDERS: Final = ("queries", "keys")
SCORES: Final = ("on-chip", "spilled")


@dataclass(frozen=True, slots=True)
class Attention:
    """`batch` independent problems of `rows` queries over `keys` keys: softmax(Q K^T) V.

    Attributes
    ----------
    batch: sequences x KV heads. rows: query positions x `group` query heads that share a KV head, stacked so that
        row r belongs to position r // group.
    head_dim, value_dim: width of queries and keys, and of values and output.
    causal: row r sees keys up to prefix + r // group.
    widths: words an element of Q, of K and V, of the scores and of the output.
    """

    batch: int
    rows: int
    keys: int
    head_dim: int
    value_dim: int
    causal: bool = False
    group: int = 1
    widths: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    name: str = "attention"

    def __post_init__(self) -> None:
        for label in ("batch", "rows", "keys", "head_dim", "value_dim", "group"):
            value = getattr(self, label)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{label} of an attention is a positive integer", where=self.name, seen=repr(value))
        if self.rows % self.group or (self.causal and self.keys < self.rows // self.group):
            raise InputError(
                "an attention has whole query positions, and causal ones no more of them than keys",
                where=self.name,
                seen=f"rows {self.rows}, group {self.group}, keys {self.keys}",
            )

    @property
    def prefix(self) -> int:
        """Keys before those of the first query position."""
        return self.keys - self.rows // self.group

    @property
    def compulsory_words(self) -> float:
        """Q, K and V read and the output written once."""
        q, kv, _, out = self.widths
        each = self.rows * (self.head_dim * q + self.value_dim * out) + self.keys * kv * (
            self.head_dim + self.value_dim
        )
        return self.batch * each


@dataclass(frozen=True, slots=True)
class Spread:
    """One product on the array: outputs spread over units and held by each, along its rows and its columns."""

    spread: tuple[int, int]
    held: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FusedTiling:
    """Tiles of `queries` rows and `keys` keys in the memory `level`.

    `outer` says which loop is outside: ``queries`` (a query tile and its output stay, keys and values stream) or
    ``keys`` (a key tile stays, queries stream and partial outputs go out and back). `scores` stay on the chip or are
    ``spilled``: written out by a first pass and read back by a second. `qk` and `av` place the two products.
    """

    level: str
    queries: int
    keys: int
    outer: str
    scores: str
    qk: Spread
    av: Spread

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)
