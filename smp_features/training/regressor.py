"""Fits the regressor: encoders, rounds and weights of the blend on inner folds, then every booster on all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.model.adapter_weights import Floats
from smp_features.model.blocks import Selection
from smp_features.model.boosters import SMALL
from smp_features.model.encoders import ADAPTER_SCORE, feature_names, source_of
from smp_features.model.inputs import Inputs
from smp_features.model.regressor import Member, Regressor
from smp_features.training.boosters import TRAINERS, Table, unlearnable
from smp_features.training.encoders import encode, fit_encoders

METADATA_ONLY = "metadata"
"""The member that sees no column made by a frozen model: where those are noise, the blend falls back on it."""


def fit_regressor(
    inputs: Inputs,
    selection: Selection,
    target: Floats,
    folds: NDArray[np.int64],
    config: RegressorConfig,
    seed: int,
) -> Regressor:
    """Fit encoders, choose rounds and weights on inner folds, and fit every booster on all rows.

    Where no booster can learn anything, since all labels are equal or no column varies, the mean label is predicted.

    Args:
        inputs: Columns to use.
        selection: Training rows, adapted out-of-fold.
        target: Their labels.
        folds: (n,) their folds, users apart.
        config: Of members, boosters and encoders.
        seed: Of bagging, feature sampling and the SVD.

    Raises:
        StageError: There are too few rows or folds, or nothing to fit on.
    """
    if len(target) < 2 or not inputs.columns:
        raise StageError(f"A booster cannot be fitted on {len(target)} rows of {len(inputs.columns)} columns.")
    if len(np.unique(folds)) < 2:
        raise StageError("A fold holds no users, so early stopping has nothing to watch.", "Set training.folds lower.")
    encoders, targets = fit_encoders(inputs, selection, target, folds, config, seed)
    table = Table(
        encode(inputs, encoders, selection, targets),
        feature_names(inputs, encoders, selection.adapt is not None),
        frozenset(inputs.vocabularies),
        target,
    )
    seen = _columns_of_members(table.names, inputs.content, config.members)
    chosen = _choose(table, seen, folds, config, seed)
    kept = {
        name: each for name, each in chosen.items() if each[1] > 0 and unlearnable(table.columns(seen[name])) is None
    }
    whole = sum(weight for _, weight in kept.values())
    members = tuple(
        Member(name, weight / whole, rounds, TRAINERS[name].train(table.columns(seen[name]), rounds, config, seed))
        for name, (rounds, weight) in kept.items()
    )
    low, high = float(target.min()), float(target.max())
    return Regressor(inputs, encoders, members, low, high, float(target.mean()))


def blend(predictions: Sequence[Floats], target: Floats) -> Floats:
    """Return the weights, at least 0 and summing to 1, with the least squared error of the weighted mean."""
    # The difference to the first prediction has no constraint on its sum, so that is put in as one heavy row.
    columns = np.stack(predictions, axis=1)
    centre = target.mean()
    heavy = 1e3 * np.sqrt(((columns - centre) ** 2).sum() + 1.0)
    weights, _ = nnls(
        np.vstack([columns - centre, np.full(columns.shape[1], heavy)]), np.append(target - centre, heavy)
    )
    return weights / weights.sum()


def _columns_of_members(names: Sequence[str], content: frozenset[str], members: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns that each member sees; one that would see what another sees is left away."""
    plain = [name for name in names if source_of(name) not in content | {ADAPTER_SCORE}]
    seen = {name: plain if name == METADATA_ONLY and plain else list(names) for name in members}
    if "lightgbm" in seen and seen.get(METADATA_ONLY) == list(names):
        del seen[METADATA_ONLY]
    return seen


def _choose(
    table: Table, seen: Mapping[str, list[str]], folds: NDArray[np.int64], config: RegressorConfig, seed: int
) -> dict[str, tuple[int, float]]:
    """Return each member's rounds, the median over inner folds, and its weight in the blend of their predictions.

    All folds take part where rows are few; one is enough of many. Mean labels and adapters of the rows learned from
    were made with labels of the fold watched, and rounds are chosen on the rows that decide the weights: both choices
    lean a little to the more flexible member. Every score is made on rows that had no part in either.
    """
    inner = np.unique(folds)
    if config.inner_folds is not None or len(table.target) >= SMALL:
        inner = inner[: config.inner_folds or 1]
    rounds: dict[str, list[int]] = {name: [] for name in seen}
    predicted: dict[str, list[Floats]] = {name: [] for name in seen}
    for fold in inner:
        watched = folds == fold
        learning, held_out = table.rows(~watched), table.rows(watched)
        for name, columns in seen.items():
            known, asked = learning.columns(columns), held_out.columns(columns)
            if unlearnable(known) is None:
                best, made = TRAINERS[name].choose_rounds(known, asked, config, seed)
            else:
                best, made = 1, np.full(len(asked.target), known.target.mean())
            rounds[name].append(best)
            predicted[name].append(made)
    actual = np.concatenate([table.target[folds == fold] for fold in inner])
    weights = blend([np.concatenate(parts) for parts in predicted.values()], actual)
    return {
        name: (max(1, round(float(np.median(rounds[name])))), float(weight))
        for name, weight in zip(seen, weights, strict=True)
    }
