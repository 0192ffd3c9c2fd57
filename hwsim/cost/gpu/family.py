"""What a kernel family is: CSV columns, parameters with bounds, kernel classes, and one broadcasting time function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.facts import Facts

Array = NDArray[Any]
Columns = Mapping[str, Any]
"""Column name -> array of one value a row (numbers as float64, names as str)."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted number. Dimensionless or per datasheet quantity, so that it moves to another GPU.

    Attributes
    ----------
    start, low, high: first guess and bounds of the fit, in `unit`.
    scale: ``log`` parameters are searched in their logarithm (they are positive and span decades).
    shared: True where all kernel classes of one GPU have the same value (the memory system's, not a dtype's).
    """

    name: str
    meaning: str
    unit: str
    start: float
    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    shared: bool = False
    classes: tuple[str, ...] = ()

    def applies(self, kernel_class: str) -> bool:
        """True where `kernel_class` uses this parameter; `classes` holds dtype or protocol parts (empty: all)."""
        return not self.classes or bool(set(kernel_class.split("@")) & set(self.classes))


@dataclass(frozen=True, slots=True)
class Column:
    """A CSV column: ``count`` (integer >= minimum), ``positive`` (real > 0) or ``name`` (one of `known`, if any)."""

    name: str
    kind: Literal["count", "positive", "name"] = "count"
    minimum: int = 1
    known: tuple[str, ...] = ()
    default: Any = None


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Seconds of each row, and what they are made of (keys among compute, hbm, l2, link, launch)."""

    time_s: Array
    parts_s: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Family:
    """A kernel family: everything reader, fit, predictor and validator need to know about it.

    Attributes
    ----------
    columns: required columns of the CSV schema besides ``gpu`` (a file belongs to the family whose `signature` it has).
    kernel_class: columns -> array of str; rows of one class share a parameter set (``bf16@graph``).
    site: columns -> array of str; cross-validation never splits a site.
    time: (columns of one class, facts, kernel class, parameters) -> KernelTime. Pure and broadcasting.
    flop: columns -> operations of each row, for the naive baselines; traffic_bytes: columns -> compulsory bytes.
    compute_dtype: columns -> dtype whose peak applies.
    fallbacks: dtype -> dtypes whose parameters stand in where a device has none of its own.
    """

    name: str
    signature: tuple[str, ...]
    columns: tuple[Column, ...]
    parameters: tuple[Parameter, ...]
    kernel_class: Callable[[Columns], Array]
    site: Callable[[Columns], Array]
    time: Callable[[Columns, Facts, str, Mapping[str, Any]], KernelTime]
    flop: Callable[[Columns], Array]
    traffic_bytes: Callable[[Columns], Array]
    compute_dtype: Callable[[Columns], Array]
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def start(self) -> dict[str, float]:
        """First guess of every parameter."""
        return {p.name: p.start for p in self.parameters}


def names(value: Any) -> Array:
    """A column of names as an object-free array of str."""
    return np.atleast_1d(np.asarray(value, dtype=str))


def join(*parts: Any) -> Array:
    """Element-wise ``a/b/c`` of columns: a key of site or class."""
    columns = [np.atleast_1d(np.asarray(p)) for p in parts]
    as_text = [c.astype(np.int64).astype(str) if c.dtype.kind == "f" else c.astype(str) for c in columns]
    key = as_text[0]
    for column in as_text[1:]:
        key = np.char.add(np.char.add(key, "/"), column)
    return key


def protocol(backend: Any) -> Array:
    """How a backend was timed: eager PyTorch events, kineto kernel spans, an engine's step, else graph replay."""
    text = names(backend)
    words = {"eager": "eager", "vidur": "kineto", "servingsim": "kineto", "engine": "engine"}
    has = [np.char.find(text, word) >= 0 for word in words]
    return np.select(has, list(words.values()), "graph")
