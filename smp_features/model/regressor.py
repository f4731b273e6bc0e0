"""The regressor: a blend of boosters over encoded columns, everything in it fitted on a fold's training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from smp_features.catalogue import CONTENT_GROUPS, columns_of
from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.model import encoders as encoding
from smp_features.model.adapter_weights import Floats, Rows
from smp_features.model.blocks import Selection
from smp_features.model.boosters import KINDS, SMALL, Booster, Table, threads
from smp_features.model.encoders import Encoders
from smp_features.model.inputs import Inputs

METADATA_ONLY = "metadata"
"""The member that sees no column made by a frozen model: where those are noise, the blend falls back on it."""


@dataclass(frozen=True)
class Member:
    """One booster of the blend.

    Attributes:
        name: Of `KINDS`.
        weight: Its share of the prediction, 0..1; all members' add up to 1.
        rounds: Boosting rounds, as early stopping decided.
        booster: The fitted booster.
    """

    name: str
    weight: float
    rounds: int
    booster: Booster


@dataclass(frozen=True)
class Regressor:
    """A fitted blend with what its columns are made by.

    Attributes:
        inputs: The columns of `post_features` that it sees.
        encoders: Fitted on its training rows.
        members: Those with a weight above zero.
        low: Least training label; predictions are clipped to it.
        high: Greatest training label.
    """

    inputs: Inputs
    encoders: Encoders
    members: tuple[Member, ...]
    low: float
    high: float

    def predict(
        self,
        rows: Rows,
        adapted: Mapping[str, NDArray[np.floating]] | None,
        score: Floats | None,
        most_threads: int | None = None,
    ) -> Floats:
        """Predict from columns and what the adapters made of them; (n,), clipped to the training labels' range."""
        features = encoding.matrix(self.inputs, self.encoders, rows, adapted, score)
        names = encoding.feature_names(self.inputs, self.encoders, score is not None)
        table = Table(features, names, frozenset(), np.empty(0))
        blended = np.zeros(len(features))
        if len(features):
            for member in self.members:
                seen = table.columns(member.booster.names).features
                blended += member.weight * member.booster.predict(seen, most_threads or threads(len(features)))
        return np.clip(blended, self.low, self.high)

    def importance(self) -> dict[str, float]:
        """Return each column's share of the gain, summing to 1: the members' shares, weighted as they are."""
        shares: dict[str, float] = {}
        for member in self.members:
            gains = member.booster.gains()
            for name, gain in zip(member.booster.names, gains / max(gains.sum(), 1e-12), strict=True):
                shares[name] = shares.get(name, 0.0) + member.weight * float(gain)
        return shares


def fit(
    inputs: Inputs,
    selection: Selection,
    target: Floats,
    folds: NDArray[np.int64],
    config: RegressorConfig,
    seed: int,
) -> Regressor:
    """Fit encoders, choose rounds and weights on inner folds, and fit every booster on all rows.

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
    encoders, targets = encoding.fit(inputs, selection, target, folds, config, seed)
    table = Table(
        encoding.encode(inputs, encoders, selection, targets),
        encoding.feature_names(inputs, encoders, selection.adapt is not None),
        frozenset(inputs.vocabularies),
        target,
    )
    seen = _columns_of_members(table.names, config.members)
    chosen = _choose(table, seen, folds, config, seed)
    members = tuple(
        Member(name, weight, rounds, KINDS[name].fit(table.columns(seen[name]), rounds, config, seed))
        for name, (rounds, weight) in chosen.items()
        if weight > 0
    )
    return Regressor(inputs, encoders, members, float(target.min()), float(target.max()))


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


def _columns_of_members(names: Sequence[str], members: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns that each member sees; one that would see what another sees is left away."""
    content = {"adapter_score", *(column for group in CONTENT_GROUPS for column in columns_of(group))}
    plain = [name for name in names if encoding.source_of(name) not in content]
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
            best, made = KINDS[name].choose(learning.columns(columns), held_out.columns(columns), config, seed)
            rounds[name].append(best)
            predicted[name].append(made)
    actual = np.concatenate([table.target[folds == fold] for fold in inner])
    weights = blend([np.concatenate(parts) for parts in predicted.values()], actual)
    return {
        name: (max(1, round(float(np.median(rounds[name])))), float(weight))
        for name, weight in zip(seen, weights, strict=True)
    }
