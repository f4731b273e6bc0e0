"""What is fitted on a fold's training rows before any booster: PCA of vectors, TF-IDF and SVD of words, mean labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from smp_features.config import RegressorConfig
from smp_features.model.adapter_weights import Floats, Rows
from smp_features.model.blocks import Selection
from smp_features.model.inputs import Inputs

ADAPTED = "_adapted"
TARGET = "_target"

DECIMALS = 6
"""Computed features are rounded, so that a last bit that depends on how rows were batched cannot cross a threshold."""

PCA_ROWS = 30_000
"""Rows that a PCA is fitted on at most, evenly taken; 64 components of 768 numbers need no more."""


@dataclass(frozen=True)
class Encoders:
    """Fitted on training rows alone.

    Attributes:
        pca: Vector column (or `<column>_adapted`) to mean (d,) and components (k, d).
        words: Column of buckets to inverse document frequencies (b,) and SVD components (k, b).
        targets: Category to smoothed mean labels (v + 1,) by code; the last is for the code −1, missing or unseen.
    """

    pca: Mapping[str, tuple[Floats, Floats]]
    words: Mapping[str, tuple[Floats, Floats]]
    targets: Mapping[str, Floats]

    def arrays(self) -> dict[str, Floats]:
        """Return everything as named arrays; `of_arrays` is the way back."""
        found: dict[str, Floats] = {}
        for kind, (first, second) in (("pca", ("mean", "components")), ("words", ("idf", "components"))):
            for name, (one, two) in getattr(self, kind).items():
                found |= {f"{kind}.{name}.{first}": one, f"{kind}.{name}.{second}": two}
        found |= {f"targets.{name}.means": means for name, means in self.targets.items()}
        return {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in found.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Floats], order: Sequence[str]) -> Encoders:
        """Return the encoders that `arrays` describe.

        Args:
            arrays: By name.
            order: The names as `arrays()` gave them; the booster's columns follow it.
        """
        found: dict[str, dict[str, list[Floats]]] = {"pca": {}, "words": {}, "targets": {}}
        for name in order:
            kind, column, _ = name.split(".")
            found[kind].setdefault(column, []).append(arrays[name])
        pairs = {kind: {name: (one, two) for name, (one, two) in found[kind].items()} for kind in ("pca", "words")}
        return cls(pairs["pca"], pairs["words"], {name: means for name, (means,) in found["targets"].items()})


def fit(
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


def feature_names(inputs: Inputs, encoders: Encoders, adapted: bool) -> list[str]:
    """Return the boosters' columns, in the order of `matrix`."""
    names = [*inputs.numbers, *inputs.vocabularies, *(f"has_{name}" for name in inputs.dims)]
    names += [name + TARGET for name in encoders.targets]
    if adapted:
        names.append("adapter_score")
    for name, (_, components) in encoders.pca.items():
        names += [f"{name}_pca_{number}" for number in range(len(components))]
    for name, (_, components) in encoders.words.items():
        names += [f"{name}_svd_{number}" for number in range(len(components))]
    return names


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


def source_of(name: str) -> str:
    """Return the column of `post_features` behind one of `feature_names`, or `adapter_score`."""
    stem = name.partition("_pca_")[0].partition("_svd_")[0].removesuffix(ADAPTED).removesuffix(TARGET)
    # `has_place` is a column of its own; `has_image_embedding` and the like belong to their vector.
    return stem if stem in ("has_place", "adapter_score") else stem.removeprefix("has_")


def matrix(
    inputs: Inputs,
    encoders: Encoders,
    rows: Rows,
    adapted: Mapping[str, NDArray[np.floating]] | None,
    score: Floats | None,
    targets: Mapping[str, Floats] | None = None,
) -> Floats:
    """Return what the boosters read, (n, features) float64.

    Args:
        inputs: Which columns.
        encoders: Fitted in the fold.
        rows: The columns.
        adapted: Adapted vectors by column, or None without an adapter.
        score: The adapter's score, or None without an adapter.
        targets: Mean labels by category for rows that were fitted on; None looks them up.
    """
    parts: list[NDArray[Any]] = [
        rows[name].astype(np.float64)[:, None] for name in (*inputs.numbers, *inputs.vocabularies)
    ]
    parts += [rows[f"has_{name}"].astype(np.float64)[:, None] for name in inputs.dims]
    for name, means in encoders.targets.items():
        labels = means[rows[name].astype(np.int64)] if targets is None else targets[name]
        parts.append(np.round(labels, DECIMALS)[:, None])
    if score is not None:
        parts.append(np.round(score, DECIMALS)[:, None])
    for name, (mean, components) in encoders.pca.items():
        column = name.removesuffix(ADAPTED)
        if name.endswith(ADAPTED):
            assert adapted is not None, "a projection of adapted vectors comes with an adapter"
            vectors = adapted[column]
        else:
            vectors = rows[column].astype(np.float64)
        there = rows[f"has_{column}"].astype(np.float64)[:, None]
        parts.append(np.round(there * ((vectors - mean) @ components.T), DECIMALS))
    for name, (idf, components) in encoders.words.items():
        parts.append(np.round(_tf_idf(_counts(rows[name], len(idf)), idf) @ components.T, DECIMALS))
    return np.concatenate(parts, axis=1)


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
    counts = _counts(buckets, width)
    kept = min(most, len(np.unique(counts.indices)) - 1, counts.shape[0] - 1)
    if kept < 1:
        return None
    weights = TfidfTransformer().fit(counts).idf_
    return weights, TruncatedSVD(kept, random_state=seed).fit(_tf_idf(counts, weights)).components_


def _counts(buckets: NDArray[Any], width: int) -> csr_matrix:
    """Return how often each bucket is among a row's words, (n, width)."""
    there = buckets >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    places = buckets[there].astype(np.int64)
    counts = csr_matrix((np.ones(len(places)), places, starts), shape=(len(buckets), width))
    counts.sum_duplicates()
    return counts


def _tf_idf(counts: csr_matrix, idf: Floats) -> csr_matrix:
    """Weight counts and scale each row to length 1; a row without words stays zero."""
    weighted = counts.multiply(idf).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(weighted.indptr))
    return weighted
