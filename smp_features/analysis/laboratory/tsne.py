"""Where posts lie before and after adaptation: a 3-D t-SNE of image and title vectors, with the density there."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smp_features.model.adapter_weights import Adapters, Floats
from smp_features.model.inputs import Columns

logger = logging.getLogger(__name__)

MODALITIES = {"image": "image_embedding", "text": "title_embedding"}
"""Those shown, in order, and their columns."""

STATES = ("before", "after")
POINTS = 1000
"""Posts shown at most: the 3-D embedding of so many takes seconds, and more of them hide each other in print."""

LEAST_POINTS = 20
"""Distinct vectors below which there is no shape to show."""

_COLUMNS = ("row_id", "modality", "state", "x", "y", "z", "density")

PERPLEXITY = 30.0  # scikit-learn's own default
ANGLE = 0.8  # coarse, for a third less time; the picture is the same to the eye


def coordinates(
    rows: Columns, adapters: Adapters | None, train: NDArray[np.bool_], fold: NDArray[np.int64], seed: int
) -> pd.DataFrame:
    """Embed image and title vectors, frozen and adapted, of posts that have both.

    All posts are drawn from one fold, and adapted by the adapter that has not seen it: the vectors of two adapters lie
    in two spaces, and would fall apart into as many clouds.

    Args:
        rows: Columns of the training set.
        adapters: One per fold of the rows trained on, in order of the folds; None when no vector is adapted.
        train: (n,) rows trained on.
        fold: (n,) the fold of each row.
        seed: Decides which posts, and t-SNE's own draws.

    Returns:
        `row_id`, `modality` (`image`, `text`), `state` (`before`, `after`), `x`, `y`, `z`, and `density`, 0..1: a
        Gaussian kernel estimate at the point, of the greatest in its embedding. No rows where there are too few.
    """
    if adapters is None:
        return pd.DataFrame(columns=list(_COLUMNS))
    shown = {name: column for name, column in MODALITIES.items() if column in adapters.ratios}
    first = fold == np.unique(fold[train])[0]
    there = [rows[f"has_{column}"].astype(bool) for column in shown.values()]
    where = np.flatnonzero(np.logical_and.reduce([train & first, *there]))
    where = np.sort(np.random.default_rng(seed).permutation(where)[:POINTS])
    names = [name for column in adapters.ratios for name in (column, f"has_{column}")]
    block = {name: rows[name][where] for name in names}
    adapted, _ = adapters.forward(0, block)
    parts = []
    for modality, column in shown.items():
        for state, vectors in zip(STATES, (block[column].astype(np.float64), adapted[column]), strict=True):
            if vectors.shape[1] < 3 or len(np.unique(vectors, axis=0)) < LEAST_POINTS:
                logger.info("no t-SNE of %s %s adaptation: too few posts", modality, state)
                continue
            placed = embed(vectors, seed)
            part = pd.DataFrame(placed, columns=["x", "y", "z"]).assign(density=density(placed))
            part.insert(0, "row_id", rows["row_id"][where].astype(np.int64))
            part.insert(1, "modality", modality)
            part.insert(2, "state", state)
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_COLUMNS))


def embed(vectors: Floats, seed: int) -> Floats:
    """Return the 3-D t-SNE of vectors (n, d), (n, 3): initialised by PCA, the same for the same seed."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    # One thread: how several share the sums of forces differs from call to call, and t-SNE amplifies a last bit.
    with threadpool_limits(1):
        made = TSNE(3, perplexity=perplexity, angle=ANGLE, init="pca", random_state=seed).fit_transform(vectors)
    return np.asarray(made, dtype=np.float64)


def density(placed: Floats) -> Floats:
    """Return a Gaussian kernel estimate of the density at every point (n, 3), as a share of the greatest, (n,)."""
    from scipy.stats import gaussian_kde

    found = gaussian_kde(placed.T)(placed.T)
    return np.asarray(found / found.max())
