"""Fits what is fitted on a fold's training rows before any booster: PCA, TF-IDF and SVD of words, mean labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from smp_features.config import RegressorConfig
from smp_features.model.adapter_weights import Floats
from smp_features.model.blocks import Selection
from smp_features.model.encoders import ADAPTED, Encoders, bucket_counts, feature_names, matrix, tf_idf
from smp_features.model.inputs import Inputs

PCA_ROWS = 30_000
"""Rows that a PCA is fitted on at most, evenly taken; 64 components of 768 numbers need no more."""


def fit_encoders(
    inputs: Inputs,
    selection: Selection,
    target: Floats,
    folds: NDArray[np.int64],
    config: RegressorConfig,
    seed: int,
) -> tuple[Encoders, dict[str, Floats]]:
    """Fit all encoders on some rows.

    Args:
        inputs: Columns to use.
        selection: Training rows, adapted out-of-fold.
        target: Their labels.
        folds: (n,) their folds, users apart.
        config: How many components, how much smoothing.
        seed: Of the randomised SVD.

    Returns:
        The encoders, for rows not fitted on, and each category's mean labels for the training rows themselves: (n,),
        made from the other folds, so that no row sees its own label.
    """
    prior, targets, out_of_fold = config.target_prior_rows, {}, {}
    for name, values in inputs.vocabularies.items() if prior is not None else ():
        assert prior is not None, "no encoding is asked for without it"
        codes, size = selection.column(name).astype(np.int64), len(values)
        targets[name] = mean_labels(codes, target, size, prior)
        out_of_fold[name] = np.empty(len(codes))
        for fold in np.unique(folds):
            here = folds == fold
            means = mean_labels(codes[~here], target[~here], size, prior)
            out_of_fold[name][here] = means[codes[here]]
    words = {}
    for name, width in inputs.buckets.items() if config.word_components else ():
        if (fitted := _words(selection.column(name), width, config.word_components, seed)) is not None:
            words[name] = fitted
    return Encoders(_pca(inputs, selection, config), words, targets), out_of_fold


def mean_labels(codes: NDArray[np.int64], target: Floats, size: int, prior_rows: float) -> Floats:
    """Return the mean label by code, drawn towards the overall mean as if by so many rows of it; (size + 1,).

    The last entry is that of the code −1. A code without rows has the overall mean; without any rows it is 0.
    """
    places = np.where(codes < 0, size, codes)
    counts = np.bincount(places, minlength=size + 1)
    sums = np.bincount(places, weights=target, minlength=size + 1)
    overall = target.mean() if len(target) else 0.0
    return (sums + prior_rows * overall) / np.maximum(counts + prior_rows, 1e-12)


def encode(inputs: Inputs, encoders: Encoders, selection: Selection, targets: Mapping[str, Floats]) -> Floats:
    """Return `matrix` of all rows of a selection, made block by block.

    Args:
        inputs: Which columns.
        encoders: Fitted on these rows.
        selection: Training rows, adapted out-of-fold.
        targets: Their mean labels by category, as `fit` gives them.
    """
    features = np.empty((len(selection), len(feature_names(inputs, encoders, selection.adapt is not None))))
    for places, block in selection.blocks():
        labels = {name: values[places] for name, values in targets.items()}
        features[places] = matrix(inputs, encoders, block.rows, block.adapted, block.score, labels)
    return features


def _pca(inputs: Inputs, selection: Selection, config: RegressorConfig) -> dict[str, tuple[Floats, Floats]]:
    if not inputs.dims:
        return {}
    sample = selection.take(slice(0, None, max(1, -(-len(selection) // PCA_ROWS))))
    found: dict[str, tuple[Floats, Floats]] = {}
    for column in inputs.dims:
        there = np.flatnonzero(sample.rows[f"has_{column}"])
        sources: dict[str, tuple[NDArray[Any], int]] = {}
        if column in inputs.raw:
            sources[column] = (sample.rows[column], config.pca_components)
        if sample.adapted is not None and column in inputs.adapted:
            sources[column + ADAPTED] = (sample.adapted[column], config.adapted_components)
        for name, (vectors, most) in sources.items():
            kept = min(most, vectors.shape[1], len(there) - 1)
            if kept >= 1:
                pca = PCA(kept, svd_solver="covariance_eigh").fit(vectors[there].astype(np.float64))
                found[name] = (pca.mean_, pca.components_)
    return found


def _words(buckets: NDArray[Any], width: int, most: int, seed: int) -> tuple[Floats, Floats] | None:
    """Fit TF-IDF and SVD; None when the words of these rows do not even have two dimensions."""
    counts = bucket_counts(buckets, width)
    kept = min(most, len(np.unique(counts.indices)) - 1, counts.shape[0] - 1)
    if kept < 1:
        return None
    weights = TfidfTransformer().fit(counts).idf_
    return weights, TruncatedSVD(kept, random_state=seed).fit(tf_idf(counts, weights)).components_
