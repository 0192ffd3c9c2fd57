"""Residual interpolator: own measured runs pull predictions towards themselves nearby, and nowhere else.

Log residuals of the physical model are averaged with Gaussian weights of the distance in log2 of the shape, shrunk by
a prior weight, so that far from any run the bare model stays. (Kriging with a zero-mean prior, Rasmussen 2006, ch. 2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.family import Columns, Family
from hwsim.validation.predict import Predictions, predict_file

Array = NDArray[Any]
LENGTH = 0.7  # factors of two in a shape over which residuals of neighbours resemble each other
PRIOR = 0.25  # weight of "no correction", in runs at distance zero
NEIGHBOURS = 12


@dataclass(frozen=True, slots=True)
class Residuals:
    """ln(measured / predicted) of own runs of one device and kernel class, at log2 of their shapes."""

    shapes: Array
    log_ratio: Array

    def at(self, shapes: Array) -> tuple[Array, Array]:
        """Correction in ln(time) at each shape, and how much runs support it (0: none nearby, 1: fully)."""
        from scipy.spatial import cKDTree

        k = min(NEIGHBOURS, len(self.log_ratio))
        distance, index = cKDTree(self.shapes).query(shapes, k=k)
        distance, index = distance.reshape(len(shapes), k), index.reshape(len(shapes), k)
        weight = np.exp(-0.5 * (distance / LENGTH) ** 2)
        total = weight.sum(axis=1)
        return (weight * self.log_ratio[index]).sum(axis=1) / (total + PRIOR), total / (total + PRIOR)


def shape_of(family: Family, columns: Columns) -> Array:
    """log2(1 + value) of the counts of the family's schema: (rows, dimensions)."""
    counts = [c.name for c in family.columns if c.kind == "count"]
    return np.stack([np.log2(1.0 + np.asarray(columns[n], dtype=np.float64)) for n in counts], axis=1)


def corrected(predictions: Predictions, runs: Sequence[Path], *, hw: str | None = None) -> Predictions:
    """Predictions moved towards own runs of the same device and kernel class; bands shrink where runs support them."""
    out = np.stack([predictions.pred_us, predictions.low_us, predictions.high_us])
    family = predictions.table.family
    shapes = shape_of(family, predictions.table.columns)
    for path in runs:
        own = predict_file(path, hw=hw, latency=True)
        if own.table.family.name != family.name:
            continue
        ratio = np.log(own.table.columns["latency_us"] / own.pred_us)
        own_shapes = shape_of(family, own.table.columns)
        keys = np.char.add(np.char.add(own.table.columns["gpu"], "|"), own.kernel_class)
        mine = np.char.add(np.char.add(predictions.table.columns["gpu"], "|"), predictions.kernel_class)
        for key in np.unique(keys):
            there, here = keys == key, mine == key
            if here.any():
                out[:, here] = _moved(out[:, here], *Residuals(own_shapes[there], ratio[there]).at(shapes[here]))
    return replace(predictions, pred_us=out[0], low_us=out[1], high_us=out[2])


def _moved(values: Array, correction: Array, support: Array) -> Array:
    """Shift value and band; half of the band goes where runs support the value (run-to-run noise remains)."""
    value, low, high = values
    shrink = 1.0 - 0.5 * support
    moved = value * np.exp(correction)
    return np.stack([moved, moved * (low / value) ** shrink, moved * (high / value) ** shrink])
