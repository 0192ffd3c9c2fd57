"""Raw matrix multiplies as workloads of the mapper: ``gemm:MxNxK`` and ``bmm:BxMxNxK``.

The order is that of the mapping literature: Z[M,N] += A[M,K] B[K,N].
"""

from __future__ import annotations

import re
from typing import Final

from hwsim.errors import InputError
from hwsim.frontends.formats import Formats
from hwsim.ir.workload import Operator, Tensor, WorkloadGraph

_NAME: Final = re.compile(r"(gemm|bmm):(\d{1,9}(?:x\d{1,9})*)\Z")
_AXES: Final = {"gemm": "MxNxK", "bmm": "BxMxNxK"}


def is_raw(name: str) -> bool:
    """Whether the name means a raw matrix multiply (well-formed or not)."""
    return name.partition(":")[0] in _AXES and ":" in name


def raw_graph(name: str, formats: Formats | None = None) -> WorkloadGraph:
    """The one-operator graph that ``gemm:MxNxK`` or ``bmm:BxMxNxK`` means (bf16 by default).

    Raises
    ------
    InputError: not of that form, or an extent of zero.
    """
    match = _NAME.match(name)
    extents = [int(v) for v in match[2].split("x")] if match else []
    kind = name.partition(":")[0]
    axes = _AXES.get(kind, _AXES["gemm"])
    if match is None or len(extents) != len(axes.split("x")) or min(extents) < 1:
        fix = f"write {kind}:{axes}, e.g. gemm:2048x12288x4096 or bmm:32x2048x2048x128"
        raise InputError("not a raw matrix multiply", where="WORKLOAD", seen=name[:80], fix=fix)
    batch, m, n, k = extents if kind == "bmm" else [1, *extents]
    used = formats or Formats.of("bf16")
    a = Tensor("op.a", (batch, m, k), used.activations)
    b = Tensor("op.b", (batch, k, n), used.weights, "activation" if kind == "bmm" else "weight")
    z = Tensor("op.z", (batch, m, n), used.wide)
    dims = {"batch": batch, "m": m, "n": n, "k": k}
    operator = Operator(name, "gemm", kind, dims, 2 * batch * m * n * k, used.activations.compute, (a, b), (z,))
    return WorkloadGraph(name, "forward", (operator,), tokens=m, batch=batch)
