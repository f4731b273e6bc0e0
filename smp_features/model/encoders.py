"""Turns columns into what boosters read: PCA of vectors, TF-IDF and SVD of words, mean labels of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .adapter_weights import Floats, Rows
from .inputs import Inputs

ADAPTER_SCORE = "adapter_score"
ADAPTED = "_adapted"
TARGET = "_target"

DECIMALS = 6
"""Computed features are rounded, so that a last bit that depends on how rows were batched cannot cross a threshold."""


@dataclass(frozen=True)
class Encoders:
    """What was fitted on training rows alone, by `training/encoders.py`.

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


def feature_names(inputs: Inputs, encoders: Encoders, adapted: bool) -> list[str]:
    """Return the boosters' columns, in the order of `matrix`."""
    names = [*inputs.numbers, *inputs.vocabularies, *(f"has_{name}" for name in inputs.dims)]
    names += [name + TARGET for name in encoders.targets]
    if adapted:
        names.append(ADAPTER_SCORE)
    for name, (_, components) in encoders.pca.items():
        names += [f"{name}_pca_{number}" for number in range(len(components))]
    for name, (_, components) in encoders.words.items():
        names += [f"{name}_svd_{number}" for number in range(len(components))]
    return names


def source_of(name: str) -> str:
    """Return the column of `post_features` behind one of `feature_names`, or `adapter_score`."""
    stem = name.partition("_pca_")[0].partition("_svd_")[0].removesuffix(ADAPTED).removesuffix(TARGET)
    # `has_place` is a column of its own; `has_image_embedding` and the like belong to their vector.
    return stem if stem in ("has_place", ADAPTER_SCORE) else stem.removeprefix("has_")


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
        parts.append(np.round(tf_idf(bucket_counts(rows[name], len(idf)), idf) @ components.T, DECIMALS))
    return np.concatenate(parts, axis=1)


def bucket_counts(buckets: NDArray[Any], width: int) -> csr_matrix:
    """Return how often each bucket is among a row's words, (n, width)."""
    there = buckets >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    places = buckets[there].astype(np.int64)
    counts = csr_matrix((np.ones(len(places)), places, starts), shape=(len(buckets), width))
    counts.sum_duplicates()
    return counts


def tf_idf(counts: csr_matrix, idf: Floats) -> csr_matrix:
    """Weight counts and scale each row to length 1; a row without words stays zero."""
    weighted = counts.multiply(idf).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(weighted.indptr))
    return weighted
