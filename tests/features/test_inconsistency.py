"""Similarities: cosines of unit vectors, null when one is missing, the same in numpy and in Spark."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.features.inconsistency import cosine, cosine_column


def _unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_cosines_of_known_angles():
    left = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8]], dtype=np.float32)
    right = np.array([[1, 0], [0, 1], [-1, 0], [0.8, 0.6]], dtype=np.float32)
    assert cosine(left, right) == pytest.approx([1, 0, -1, 0.96], abs=1e-7)


def test_rounding_never_leaves_the_range():
    vectors = np.full((1, 3), 0.57735033, dtype=np.float32)
    assert (vectors.astype(float) ** 2).sum() > 1
    assert cosine(vectors, vectors)[0] == 1.0
    assert cosine(vectors, -vectors)[0] == -1.0


def test_spark_agrees_and_keeps_missing_vectors_missing(spark):
    rng = np.random.default_rng(3)
    left, right = _unit(rng, 20, 64), _unit(rng, 20, 64)
    right[0] = left[0]
    rows = [(a.tolist(), b.tolist()) for a, b in zip(left, right, strict=True)]
    table = spark.createDataFrame(
        [*rows, (None, rows[0][1]), (rows[0][0], None), (None, None)], "a array<float>, b array<float>"
    )
    found = [row.value for row in table.select(cosine_column("a", "b").alias("value")).collect()]
    assert found[:20] == pytest.approx(cosine(left, right), abs=1e-12)
    assert found[20:] == [None, None, None]
