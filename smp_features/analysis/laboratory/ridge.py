"""Ridge regression from sums over rows: one pass over the vectors in blocks, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smp_features.model.adapter_weights import Floats

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Tried, in units of the vectors' mean variance per component."""


@dataclass(frozen=True)
class Moments:
    """Sums over rows of a vector and its label, which together make (d + 1) columns.

    Attributes:
        count: Rows.
        sums: (d + 1,).
        products: (d + 1, d + 1) sums of products of two columns.
    """

    count: float
    sums: Floats
    products: Floats

    @classmethod
    def of(cls, vectors: Floats, target: Floats) -> Moments:
        """Sum over rows: vectors (n, d) and labels (n,)."""
        joined = np.column_stack([vectors, target]).astype(np.float64)
        return cls(len(joined), joined.sum(axis=0), joined.T @ joined)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.sums + other.sums, self.products + other.products)

    def squared_error(self, weights: Floats, intercept: float) -> float:
        """Return the sum of squared errors of a linear model on these rows."""
        signed = np.append(weights, -1.0)  # prediction minus label, less the intercept
        quadratic = signed @ self.products @ signed
        return float(quadratic + 2 * intercept * (signed @ self.sums) + self.count * intercept**2)


def fit_ridge(parts: Sequence[Moments]) -> tuple[Floats, float]:
    """Fit on all parts, with the penalty of least squared error when each part is left out in turn.

    Args:
        parts: Sums over disjoint rows, such as folds; those without rows count for nothing.

    Returns:
        Weights (d,) and intercept.

    Raises:
        ValueError: Fewer than two parts have rows.
    """
    filled = [part for part in parts if part.count]
    if len(filled) < 2:
        raise ValueError(f"a penalty is chosen on two parts at least, and {len(filled)} have rows")
    errors = np.zeros(len(PENALTIES))
    for number, left_out in enumerate(filled):
        rest = _sum(filled[:number] + filled[number + 1 :])
        errors += [left_out.squared_error(*model) for model in _path(rest, PENALTIES)]
    return _path(_sum(filled), [PENALTIES[int(np.argmin(errors))]])[0]


def _sum(parts: Sequence[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _path(moments: Moments, penalties: Sequence[float]) -> list[tuple[Floats, float]]:
    """Return the model of every penalty, from one decomposition."""
    mean = moments.sums / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    values, axes = np.linalg.eigh(covariance[:-1, :-1])
    unit = max(float(values.mean()), 1e-12)
    along = axes.T @ covariance[:-1, -1]
    models = []
    for penalty in penalties:
        weights = axes @ (along / (np.maximum(values, 0) + penalty * unit))
        models.append((weights, float(mean[-1] - mean[:-1] @ weights)))
    return models
