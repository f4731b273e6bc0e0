"""A ridge from sums is scikit-learn's on the rows themselves, and its penalty the best on parts left out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from smp_features.analysis.laboratory.ridge import PENALTIES, Moments, fit_ridge

RNG = np.random.default_rng(0)
SIZES = (40, 30, 50)
VECTORS = [RNG.normal(size=(size, 6)) @ np.diag([3, 1, 1, 1, 0.1, 0.01]) + 5 for size in SIZES]
TARGETS = [6 + v[:, 0] - v[:, 3] + RNG.normal(scale=2, size=len(v)) for v in VECTORS]


def model(vectors: np.ndarray, target: np.ndarray, penalty: float) -> Ridge:
    strength = penalty * vectors.var(axis=0).mean() * len(vectors)
    return Ridge(alpha=strength).fit(vectors, target)


def test_the_model_and_its_penalty_are_those_of_the_rows():
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for out in range(3):
            rest = [number for number in range(3) if number != out]
            made = model(np.vstack([VECTORS[n] for n in rest]), np.hstack([TARGETS[n] for n in rest]), penalty)
            error += ((made.predict(VECTORS[out]) - TARGETS[out]) ** 2).sum()
        errors.append(error)
    best = PENALTIES[int(np.argmin(errors))]
    assert best not in (PENALTIES[0], PENALTIES[-1])  # a choice that says something
    expected = model(np.vstack(VECTORS), np.hstack(TARGETS), best)
    weights, intercept = fit_ridge([Moments.of(v, t) for v, t in zip(VECTORS, TARGETS, strict=True)])
    assert np.allclose(weights, expected.coef_) and intercept == pytest.approx(expected.intercept_)


def test_sums_over_blocks_are_those_of_the_whole():
    parts = Moments.of(VECTORS[0][:13], TARGETS[0][:13]) + Moments.of(VECTORS[0][13:], TARGETS[0][13:])
    whole = Moments.of(VECTORS[0], TARGETS[0])
    assert parts.count == whole.count == 40
    assert np.allclose(parts.sums, whole.sums) and np.allclose(parts.products, whole.products)


def test_the_squared_error_is_that_of_the_rows():
    weights = np.arange(6.0)
    by_hand = ((VECTORS[1] @ weights - 2.5 - TARGETS[1]) ** 2).sum()
    assert Moments.of(VECTORS[1], TARGETS[1]).squared_error(weights, -2.5) == pytest.approx(by_hand)


def test_one_part_is_too_few():
    with pytest.raises(ValueError, match="two parts"):
        fit_ridge([Moments.of(VECTORS[0], TARGETS[0]), Moments.of(VECTORS[1][:0], TARGETS[1][:0])])
