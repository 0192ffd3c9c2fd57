"""Sequence parallelism: between the tensor-parallel halves every rank keeps its rows of the residual stream only.

Korthikanti et al., "Reducing activation recomputation in large transformer models" (arXiv 2205.05198, sec. 4.2.2):
the all-reduce after a row-split multiply becomes a reduce-scatter over rows, norms and residual sums run on 1/tp of
the rows, and an all-gather completes the rows before the next multiply. On a ring both send the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hwsim.ir.numbers import Num
from hwsim.ir.workload import Operator, Tensor


@dataclass(slots=True)
class SequenceRegion:
    """Follows which tensors exist as row shards (`sharded`) and which of them were completed since (`gathered`).

    With one rank nothing is sharded, and every method leaves things as they are.
    """

    ranks: int = 1
    sharded: set[str] = field(default_factory=set)
    gathered: set[str] = field(default_factory=set)

    def missing(self, operator: Operator) -> list[Tensor]:
        """Inputs whose rows must be gathered before the operator, each once for all its readers."""
        if self.runs_on_rows(operator):
            return []
        needed = [t for t in operator.inputs if t.name in self.sharded - self.gathered]
        self.gathered.update(t.name for t in needed)
        return list({t.name: t for t in needed}.values())

    def runs_on_rows(self, operator: Operator) -> bool:
        """Row-wise vector kernels whose input is in shards: norms, residual sums."""
        return (
            operator.kind == "vector"
            and operator.shard == "replicated"
            and any(t.name in self.sharded for t in operator.inputs)
        )

    def localize(self, operator: Operator) -> Operator:
        """The operator on one rank's rows where it runs on rows; its outputs are shards then."""
        if not self.runs_on_rows(operator):
            return operator
        self.leaves(operator)
        rows = operator.dims["rows"]
        mine = rows_of_one_rank(rows, self.ranks)
        return replace(
            operator,
            dims={**operator.dims, "rows": mine},
            flop=operator.flop * (mine / rows),
            inputs=tuple(_rows(t, mine / rows) for t in operator.inputs),
            outputs=tuple(_rows(t, mine / rows) for t in operator.outputs),
        )

    def leaves(self, operator: Operator) -> None:
        """Note that the operator's activations are row shards."""
        if self.ranks > 1:
            self.sharded.update(t.name for t in operator.outputs if t.role == "activation")


def rows_of_one_rank(rows: Num, ranks: int) -> Num:
    """Rows of the fullest rank."""
    if ranks == 1:
        return rows
    share = np.ceil(rows / ranks)
    return int(share) if np.ndim(share) == 0 else share


def _rows(tensor: Tensor, share: Num) -> Tensor:
    """An activation with `share` of its rows; weights are whole on every rank."""
    if tensor.role != "activation":
        return tensor
    return replace(tensor, shape=(tensor.shape[0] * share, *tensor.shape[1:]))
