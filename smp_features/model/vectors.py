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
        ValueError: A vector has another dimension, or holds NaN or infinity.
    """
    matrix = np.zeros((len(vectors), dimension), dtype=np.float32)
    there = np.zeros(len(vectors))
    for row, vector in enumerate(vectors):
        if vector is not None:
            if len(vector) != dimension:
                raise ValueError(f"row {row}: a vector of {len(vector)} numbers where {dimension} are expected")
            try:
                matrix[row], there[row] = vector, 1.0
            except (ValueError, TypeError):
                raise ValueError(f"row {row}: a vector that holds something else than numbers") from None
    if not np.isfinite(matrix).all():
        broken = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(f"row {broken}: a vector with NaN or infinity in it")
    return matrix, there
