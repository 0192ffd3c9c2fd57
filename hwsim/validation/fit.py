"""Robust least squares on log error: one GPU's parameters of one kernel family, shared over its kernel classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Columns, Family, Parameter

Array = NDArray[Any]
Parameters = Mapping[str, Mapping[str, float]]
"""Kernel class -> parameter name -> value."""

LOSS_SCALE = (
    0.02  # log error above which a row pulls linearly: below the run-to-run noise, so close to least absolute error
)
PRIOR_STRENGTH = 0.25  # pull to the start value, in rows of LOSS_SCALE-sized error per half-width of the bounds
STEP = 2e-3  # forward difference in search units; small against the bounds, large against the kinks of the argmin


@dataclass(frozen=True, slots=True)
class Rows:
    """Measured rows of one GPU in one kernel class."""

    kernel_class: str
    columns: Columns
    facts: Facts
    latency_s: Array

    def log_error(self, family: Family, parameters: Mapping[str, float]) -> Array:
        predicted = family.time(self.columns, self.facts, self.kernel_class, parameters).time_s
        return np.asarray(np.log(predicted / self.latency_s))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter of each class lies in the search vector; shared ones come once."""

    entries: tuple[tuple[Parameter, tuple[str, ...]], ...]

    def unpack(self, z: Array) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for value, (parameter, classes) in zip(z, self.entries, strict=True):
            for name in classes:
                found.setdefault(name, {})[parameter.name] = _to_value(parameter, float(value))
        return found


def _to_value(parameter: Parameter, z: float) -> float:
    value = float(np.exp(z)) if parameter.scale == "log" else z
    return float(np.clip(value, parameter.low, parameter.high))


def _to_search(parameter: Parameter, value: float) -> float:
    return float(np.log(value)) if parameter.scale == "log" else float(value)


def layout(family: Family, classes: Sequence[str]) -> Layout:
    """Shared parameters once for all classes, the others once a class (if the class uses them)."""
    entries: list[tuple[Parameter, tuple[str, ...]]] = []
    for parameter in family.parameters:
        users = tuple(c for c in classes if parameter.applies(c))
        if parameter.shared and users:
            entries.append((parameter, users))
        else:
            entries.extend((parameter, (c,)) for c in users)
    return Layout(tuple(entries))


@dataclass(frozen=True, slots=True)
class Problem:
    """The least-squares problem; residuals of a class depend on its own entries only."""

    family: Family
    rows: tuple[Rows, ...]
    layout: Layout
    fixed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    centre: Array = field(default_factory=lambda: np.zeros(0))
    prior: float = PRIOR_STRENGTH

    def bounds(self) -> tuple[Array, Array]:
        low = [_to_search(p, p.low) for p, _ in self.layout.entries]
        high = [_to_search(p, p.high) for p, _ in self.layout.entries]
        return np.array(low), np.array(high)

    def block(self, z: Array, rows: Rows) -> Array:
        parameters = {**self.family.start(), **self.layout.unpack(z).get(rows.kernel_class, {})}
        return rows.log_error(self.family, parameters)

    def residuals(self, z: Array) -> Array:
        low, high = self.bounds()
        pull = self.prior * LOSS_SCALE * (z - self.centre) / (high - low) * 2.0 * np.sqrt(len(self.centre))
        return np.concatenate([*(self.block(z, r) for r in self.rows), pull])

    def jacobian(self, z: Array) -> Array:
        """Forward differences, evaluating only the classes an entry touches."""
        low, high = self.bounds()
        base = [self.block(z, r) for r in self.rows]
        offsets = np.cumsum([0, *(len(b) for b in base)])
        total = np.zeros((offsets[-1] + len(z), len(z)))
        for j, (_, classes) in enumerate(self.layout.entries):
            step = STEP if z[j] + STEP <= high[j] else -STEP
            moved = z.copy()
            moved[j] += step
            for i, rows in enumerate(self.rows):
                if rows.kernel_class in classes:
                    total[offsets[i] : offsets[i + 1], j] = (self.block(moved, rows) - base[i]) / step
            total[offsets[-1] + j, j] = self.prior * LOSS_SCALE / (high[j] - low[j]) * 2.0 * np.sqrt(len(z))
        return total


def fit(
    family: Family, rows: Sequence[Rows], start: Parameters | None = None, *, max_evaluations: int = 30
) -> dict[str, dict[str, float]]:
    """Fit all classes of `rows` together. Rows of several GPUs in one class give pooled parameters.

    start: first guess and prior centre by class (default: the family's start values). Returns class -> parameters.
    """
    from scipy.optimize import least_squares

    classes = sorted({r.kernel_class for r in rows})
    plan = layout(family, classes)
    guess = np.array([_guess(family, p, users, start or {}) for p, users in plan.entries])
    problem = Problem(family, tuple(rows), plan, centre=guess)
    low, high = problem.bounds()
    margin = 1e-6 * (high - low)
    solution = least_squares(
        problem.residuals,
        np.clip(guess, low + margin, high - margin),
        jac=problem.jacobian,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=LOSS_SCALE,
        max_nfev=max_evaluations,
        x_scale="jac",
        ftol=1e-5,
        xtol=1e-5,
    )
    return plan.unpack(solution.x)


def _guess(family: Family, parameter: Parameter, classes: Sequence[str], start: Parameters) -> float:
    for name in classes:
        if parameter.name in start.get(name, {}):
            return _to_search(parameter, min(max(start[name][parameter.name], parameter.low), parameter.high))
    return _to_search(parameter, parameter.start)


def rows_by_class(family: Family, columns: Columns, facts: Facts, latency_s: Array) -> list[Rows]:
    """Split the rows of one GPU into its kernel classes."""
    keys = family.kernel_class(columns)
    return [
        Rows(str(k), {n: v[keys == k] for n, v in columns.items()}, facts, latency_s[keys == k])
        for k in np.unique(keys)
    ]


def folds(sites: Array, count: int = 5) -> Array:
    """A fold number for each row: sites are dealt in a fixed pseudo-random order, so that none straddles two folds."""
    unique, inverse = np.unique(sites, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(unique))
    return np.asarray(order[inverse] % count)


def cross_validate(
    family: Family, rows: Sequence[Rows], start: Parameters | None = None, *, count: int = 5
) -> dict[str, Array]:
    """Log errors of each row predicted by a fit that never saw the row's site: class -> array in row order."""
    errors = {r.kernel_class: np.full(len(r.latency_s), np.nan) for r in rows}
    fold_of = {r.kernel_class: folds(family.site(r.columns), count) for r in rows}
    for held in range(count):
        train = [subset(r, fold_of[r.kernel_class] != held) for r in rows]
        fitted = fit(family, [t for t in train if len(t.latency_s)], start)
        for r in rows:
            mask = fold_of[r.kernel_class] == held
            if mask.any():
                parameters = {**family.start(), **fitted.get(r.kernel_class, {})}
                errors[r.kernel_class][mask] = subset(r, mask).log_error(family, parameters)
    return errors


def subset(rows: Rows, mask: Array) -> Rows:
    """The rows where `mask` holds."""
    return Rows(rows.kernel_class, {n: v[mask] for n, v in rows.columns.items()}, rows.facts, rows.latency_s[mask])
