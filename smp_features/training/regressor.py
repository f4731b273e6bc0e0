"""The booster: PCA of vectors, adapter score and scalar features into LightGBM, everything fitted in the fold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.training.adapter_weights import Floats, Rows
from smp_features.training.predictor import ADAPTED, Inputs, Projections, feature_names, matrix

MAX_THREADS = 8
SMALL = 20_000
"""Rows below which one thread is fastest: threads that wait for each other made 2,000 rows up to ten times slower."""

PCA_ROWS = 50_000
"""Rows that a PCA is fitted on at most, evenly taken; 64 components of 768 numbers need no more."""


@dataclass(frozen=True)
class Regressor:
    """A fitted booster with what its features were made by.

    Attributes:
        inputs: The columns it sees.
        projections: Fitted on its training rows.
        booster: The LightGBM model.
        rounds: Boosting rounds, as early stopping or the caller decided.
        low: Least training label.
        high: Greatest training label.
    """

    inputs: Inputs
    projections: Projections
    booster: lightgbm.Booster
    rounds: int
    low: float
    high: float

    def predict(self, rows: Rows, adapted: Mapping[str, NDArray[np.floating]] | None, score: Floats | None) -> Floats:
        """Predict from columns and what the adapters made of them; (n,), clipped to the training labels' range."""
        features = matrix(self.inputs, self.projections, rows, adapted, score)
        if not len(features):
            return np.empty(0)
        raw = self.booster.predict(features, num_threads=threads(len(features)))
        return np.clip(np.asarray(raw, dtype=np.float64), self.low, self.high)

    def importance(self) -> dict[str, float]:
        """Return each column's total gain."""
        return dict(zip(self.booster.feature_name(), map(float, self.booster.feature_importance("gain")), strict=True))


def threads(rows: int) -> int:
    """Return how many threads one fit of so many rows takes."""
    return 1 if rows < SMALL else min(MAX_THREADS, os.cpu_count() or 1)


def fit(
    inputs: Inputs,
    rows: Rows,
    adapted: Mapping[str, NDArray[np.floating]] | None,
    score: Floats | None,
    target: Floats,
    stopping: NDArray[np.bool_] | None,
    config: RegressorConfig,
    seed: int,
    rounds: int | None = None,
) -> Regressor:
    """Fit projections and booster on some rows.

    Args:
        inputs: Columns to use.
        rows: Training rows.
        adapted: Their adapted vectors, out-of-fold; None without an adapter.
        score: Their adapter scores, out-of-fold; None without an adapter.
        target: Their labels.
        stopping: Rows, of users apart, on which the number of rounds is chosen before all rows are fitted; None when
            `rounds` is given.
        config: Of booster and PCA.
        seed: Of bagging and feature sampling.
        rounds: The number of rounds, if it is known.

    Raises:
        StageError: There are too few rows, or nothing to fit on.
    """
    if len(target) < 2 or not inputs.columns:
        raise StageError(f"A booster cannot be fitted on {len(target)} rows of {len(inputs.columns)} columns.")
    projections = _projections(inputs, rows, adapted, config)
    features = matrix(inputs, projections, rows, adapted, score)
    names = feature_names(inputs, projections, score is not None)
    if rounds is None:
        assert stopping is not None, "either the rounds or the rows to choose them on"
        rounds = _choose_rounds(features, names, inputs, target, stopping, config, seed)
    whole = _dataset(features, names, inputs, target)
    booster = lightgbm.train(_parameters(config, seed, len(target)), whole, num_boost_round=rounds)
    return Regressor(inputs, projections, booster, rounds, float(target.min()), float(target.max()))


def _choose_rounds(
    features: Floats,
    names: list[str],
    inputs: Inputs,
    target: Floats,
    stopping: NDArray[np.bool_],
    config: RegressorConfig,
    seed: int,
) -> int:
    if not stopping.any() or stopping.all():
        raise StageError("A fold holds no users, so early stopping has nothing to watch.", "Set training.folds lower.")
    learning = _dataset(features[~stopping], names, inputs, target[~stopping])
    watched = _dataset(features[stopping], names, inputs, target[stopping], learning)
    stopped = lightgbm.train(
        _parameters(config, seed, len(target)),
        learning,
        num_boost_round=config.rounds,
        valid_sets=[watched],
        callbacks=[lightgbm.early_stopping(config.early_stopping, verbose=False)],
    )
    return max(1, int(stopped.best_iteration))


def _dataset(
    features: Floats, names: list[str], inputs: Inputs, target: Floats, reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        features,
        label=target,
        feature_name=names,
        categorical_feature=[name for name in names if name in inputs.vocabularies],
        reference=reference,
        params={"verbosity": -1},
    )


def _parameters(config: RegressorConfig, seed: int, rows: int) -> dict[str, object]:
    return {
        "objective": "regression",
        "metric": "l2",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf_rows,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads(rows),
        "verbosity": -1,
    }


def _projections(
    inputs: Inputs, rows: Rows, adapted: Mapping[str, NDArray[np.floating]] | None, config: RegressorConfig
) -> Projections:
    found: dict[str, tuple[Floats, Floats]] = {}
    for column in inputs.dims:
        there = np.flatnonzero(rows[f"has_{column}"])
        there = there[:: max(1, -(-len(there) // PCA_ROWS))]
        sources: dict[str, tuple[NDArray[Any], int]] = {}
        if column in inputs.raw:
            sources[column] = (rows[column], config.pca_components)
        if adapted is not None and column in inputs.adapted:
            sources[column + ADAPTED] = (adapted[column], config.adapted_components)
        for name, (vectors, most) in sources.items():
            kept = min(most, vectors.shape[1], len(there) - 1)
            if kept >= 1:
                pca = PCA(kept, svd_solver="covariance_eigh").fit(vectors[there].astype(np.float64))
                found[name] = (pca.mean_, pca.components_)
    return found
