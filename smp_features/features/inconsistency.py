"""Semantic inconsistency of picture and text: cosine similarities of CLIP embeddings (the paper's figures 3 and 4)."""

from __future__ import annotations

import numpy as np
from pyspark.sql import Column
from pyspark.sql import functions as F


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of L2-normalised vectors.

    Args:
        left: (n, d), rows of length 1.
        right: (n, d), rows of length 1.

    Returns:
        (n,) float64 in -1..1. Of unit vectors the cosine is the dot product; what rounding adds is cut off.

    Example:
        >>> cosine(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])).tolist()
        [0.6]
    """
    products = np.einsum("nd,nd->n", left.astype(np.float64), right.astype(np.float64))
    return np.clip(products, -1.0, 1.0)


def cosine_column(left: str, right: str) -> Column:
    """Return `cosine` of two array<float> columns as a double; null when either is null.

    An expression of the engine and no Python UDF: it sums in a fixed order, so every machine gives the same bits.
    """
    pairs = F.zip_with(left, right, lambda a, b: a.cast("double") * b)
    product = F.aggregate(pairs, F.lit(0.0), lambda total, value: total + value)
    # greatest and least skip nulls, so a missing similarity must be kept away from them.
    return F.when(product.isNotNull(), F.least(F.lit(1.0), F.greatest(F.lit(-1.0), product)))
