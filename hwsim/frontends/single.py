"""A workload of one matrix multiply: ``gemm:64x8192x2048`` (m x n x k) or ``gemv:16384x16384`` (n x k).

For kernel-level questions: the cost models see the same operator as inside a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from hwsim.frontends.formats import Formats
from hwsim.frontends.graph import GraphBuilder, Scenario, Segment
from hwsim.ir.numbers import Num
from hwsim.ir.workload import Tensor, WorkloadGraph

_NAME: Final = re.compile(r"(?:gemm:(\d{1,9})x|gemv:)(\d{1,9})x(\d{1,9})\Z")


@dataclass(frozen=True)
class SingleGemm:
    """out[m, n] = x[m, k] w[k, n] as a one-operator workload; a batch repeats the rows."""

    m: int
    k: int
    n: int
    phases: tuple[str, ...] = ("forward",)
    layers: int = 1
    path: str = ""
    sha256: str = ""
    fixed_tokens: int | None = 1

    @property
    def name(self) -> str:
        return f"gemm:{self.m}x{self.n}x{self.k}"

    @property
    def parameters(self) -> int:
        return self.k * self.n

    active_parameters = parameters

    @property
    def spec(self) -> Any:
        """The few fields that descriptions of a model read."""
        return SimpleNamespace(title=f"one matrix multiply {self.name}", arch="operator", notes="", name=self.name)

    def kv_cache_bytes(self, batch: Num, context: Num, fmt: Any = None) -> Num:
        """No cache."""
        return 0 * batch

    def graph(
        self, phase: str, batch: Num, q_tokens: Num, past_tokens: Num, formats: Formats | None = None
    ) -> WorkloadGraph:
        """The one-operator graph; rows are cut for the tensor group along k (its partial sums are added)."""
        scenario = Scenario.of("forward", (batch, 1, 0, 0), formats or Formats.of("bf16"))
        builder = GraphBuilder()
        segment = Segment(builder, "op", 1, scenario.formats)
        rows = scenario.batch * self.m
        x = Tensor("op.x", (rows, self.k), scenario.formats.activations)
        segment.linear("gemm", x, self.n, shard="row")
        return builder.build(self.name, scenario)


def parse(name: str) -> SingleGemm | None:
    """The workload that a name such as ``gemm:64x2048x2048`` means, or None."""
    match = _NAME.match(name)
    if match is None or not all(int(g or 1) for g in match.groups()):
        return None
    return SingleGemm(m=int(match[1] or 1), n=int(match[2]), k=int(match[3]))


NO_FILE: Final = Path("(given by name)")
