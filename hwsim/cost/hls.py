"""Resources and cycles of a small network layer built by high-level synthesis (hls4ml concepts).

Rules of thumb, not a learned surrogate: the published errors of learned ones (wa-hls4ml, arXiv 2511.05615) can be set
beside these only with that data set. Assumptions, recalled from the hls4ml documentation and its issues:

- multipliers m = ceil(n_in n_out / RF), RF the reuse factor; initiation interval RF
- DSP: m where an operand is wider than 9 bit, twice that above 18, four times above 27; else LUT: m (w a + w + a)
- BRAM18 of the resource strategy: ceil(m w / 36) ceil(RF / 512); latency RF + ceil(log2 n_in) + 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.ir.numbers import Num

LUT_WIDTH: Final = 9  # operands up to this width multiply in look-up tables
# Operand widths of a DSP48E2 (27 x 18 bits) and the widest port of a BRAM18 pair (512 x 36 bits): AMD UG579, UG573.
DSP_WIDTH: Final = 18
WIDE_DSP_WIDTH: Final = 27
BRAM_BITS: Final = 36
BRAM_DEPTH: Final = 512
PIPELINE_CYCLES: Final = 4  # of a layer beside its adder tree: 3 to 5


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Estimated resources of one layer; `cycles` to the last output, `interval` between inputs."""

    dsp: Num
    lut: Num
    ff: Num
    bram18: Num
    cycles: Num
    interval: Num
    reuse: Num


def legal_reuse(n_in: int, n_out: int, reuse: int) -> int:
    """The legal reuse factor nearest to the one asked: it divides n_in n_out, and divides n_in or is a multiple of it.

    Raises InfeasibleError for sizes that are not positive.
    """
    if min(n_in, n_out, reuse) < 1:
        raise InfeasibleError("a layer and its reuse factor are at least 1", seen=f"{n_in} x {n_out}, reuse {reuse}")
    candidates = np.unique(list(_divisors(n_in)) + [n_in * d for d in _divisors(n_out)])
    return int(candidates[np.argmin(np.abs(candidates - reuse))])


def _divisors(value: int) -> list[int]:
    small = np.arange(1, int(value**0.5) + 1)
    found = small[value % small == 0]
    return sorted({*found.tolist(), *(value // found).tolist()})


def dense(n_in: Num, n_out: Num, reuse: Num, weight_bits: Num, activation_bits: Num) -> LayerCost:
    """A fully connected layer. Arguments broadcast; bits are operand widths."""
    multipliers = np.ceil(np.asarray(n_in) * n_out / reuse)
    wide = np.maximum(weight_bits, activation_bits)
    slices = np.where(wide > WIDE_DSP_WIDTH, 4, np.where(wide > DSP_WIDTH, 2, np.where(wide > LUT_WIDTH, 1, 0)))
    products = np.where(wide > LUT_WIDTH, 0.0, np.asarray(weight_bits) * activation_bits)
    adders = np.asarray(weight_bits) + activation_bits
    stages = np.ceil(np.log2(np.maximum(n_in, 2)))
    blocks = np.where(
        np.asarray(reuse) > 1,
        np.ceil(multipliers * weight_bits / BRAM_BITS) * np.ceil(np.asarray(reuse) / BRAM_DEPTH),
        0,
    )
    return LayerCost(
        multipliers * slices,
        multipliers * (products + adders),
        1.5 * multipliers * adders / 2,
        blocks,
        reuse + stages + PIPELINE_CYCLES,
        reuse,
        reuse,
    )


def conv(
    kernel: Num, channels: Num, filters: Num, positions: Num, reuse: Num, weight_bits: Num, activation_bits: Num
) -> LayerCost:
    """A streamed convolution: one dense product of a `kernel` x channels window at each of `positions` outputs."""
    one = dense(np.asarray(kernel) * channels, filters, reuse, weight_bits, activation_bits)
    cycles = np.asarray(positions) * reuse + one.cycles
    return LayerCost(one.dsp, one.lut, one.ff, one.bram18, cycles, np.asarray(positions) * reuse, reuse)


def smape(predicted: Num, published: Num) -> float:
    """Mean of 2 |p - y| / (|p| + |y|), 0 to 2; a pair of zeros counts 0."""
    p, y = np.asarray(predicted, float), np.asarray(published, float)
    total = np.abs(p) + np.abs(y)
    return float(np.mean(np.where(total > 0, 2 * np.abs(p - y) / np.where(total > 0, total, 1), 0.0)))
