"""Vectors that may be missing, as models read them: zeros, and a column that says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def filled(vectors: Sequence[np.ndarray | Sequence[float] | None], dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Replace missing vectors by zeros: the rule by which `training_set` is made, for serving.

    Args:
        vectors: (n,) each a vector of `dimension` numbers, or None.
        dimension: d, of the fingerprint's vectors.

    Returns:
        (n, d) float32, and (n,) float64: 1 where there was a vector, 0 where it is zeros.

    Raises:
        ValueError: A vector has another dimension.
    """
    matrix = np.zeros((len(vectors), dimension), dtype=np.float32)
    there = np.zeros(len(vectors))
    for row, vector in enumerate(vectors):
        if vector is not None:
            if len(vector) != dimension:
                raise ValueError(f"row {row}: a vector of {len(vector)} numbers where {dimension} are expected")
            matrix[row], there[row] = vector, 1.0
    return matrix, there
