"""Nested validation: no booster row is featurised by an adapter that saw its own label, or a held-out one."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from smp_features import splits
from smp_features.config import RegressorConfig, TrainingConfig
from smp_features.errors import StageError
from smp_features.model.adapter_weights import Adapters, Floats, Rows
from smp_features.model.blocks import Adapt, Selection
from smp_features.model.boosters import threads
from smp_features.model.inputs import Columns, Inputs
from smp_features.model.predictor import Predictor
from smp_features.model.regressor import Regressor
from smp_features.training.adapter import Curve, Epoch, train_adapters
from smp_features.training.history import HISTORY, known_labels, users_without_history
from smp_features.training.regressor import fit_regressor

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

MEDIAN = "median"
"""The name that `medians` goes by among models."""


@dataclass(frozen=True)
class Division:
    """One division of rows: fit on some, predict others.

    Attributes:
        name: Such as `fold 3`.
        train: (n,) rows to fit on.
        held_out: (n,) rows to predict, of no influence on the fit.
        isolated: Held-out users count as never seen: their rows have no history.
    """

    name: str
    train: Mask
    held_out: Mask
    isolated: bool = False


@dataclass(frozen=True)
class Fitted:
    """What came of a division.

    Attributes:
        regressor: The booster.
        predictions: (held-out rows,) popularity.
        adapter_scores: (held-out rows,) the mean of the adapters' scores; None without adapters.
    """

    regressor: Regressor
    predictions: Floats
    adapter_scores: Floats | None


@dataclass(frozen=True)
class FoldAdapters:
    """The adapters of identity-isolated cross-validation and of the final model, by division.

    Attributes:
        final: Those of the final model: each has not seen one fold, in the order of the folds.
        pairs: Each has not seen two folds, in the order of `itertools.combinations` of the folds.
        folds: The folds, in order.
    """

    final: Adapters
    pairs: Adapters
    folds: tuple[int, ...]

    def of(self, division: Division) -> Adapters:
        """Return a division's adapters, one per fold of its training rows, in order.

        Args:
            division: One of `identity_divisions`, or `final_division`.
        """
        for held_out in self.folds:
            if division.name == _fold_name(held_out):
                numbers = [n for n, pair in enumerate(combinations(self.folds, 2)) if held_out in pair]
                return self.pairs.pick(numbers)
        return self.final


class Nest:
    """Adapters and boosters over one training set.

    For a division and each fold j of its training rows there is an adapter trained on the division's training rows
    but fold j's. It featurises fold j for the booster; held-out rows get the mean over all of them. Equal sets of rows
    share an adapter (folds j and k left out is the same set whichever was held out first), and all adapters are
    trained side by side.

    Args:
        rows: Columns of the training set, in one order.
        epochs: Makes the source of epochs for some vector columns.
        config: Of adapter, booster and seed.
    """

    def __init__(self, rows: Columns, epochs: Callable[[Sequence[str]], Epoch], config: TrainingConfig) -> None:
        self._rows = rows
        self._epochs = epochs
        self._config = config
        self._fold = rows["fold"].astype(np.int64)
        self._target = rows["popularity"].astype(np.float64)
        self._history = tuple(name for name in HISTORY if name in rows)
        self._unknown = users_without_history(rows["user"], config.history_blank_share, config.seed)
        self._banks: dict[tuple[str, ...], tuple[Adapters, dict[bytes, int]]] = {}
        self.curves: dict[tuple[str, ...], Curve] = {}

    def with_regressor(self, config: RegressorConfig) -> Nest:
        """Return a nest whose boosters have other settings; both share every adapter that either trains."""
        other = copy.copy(self)
        other._config = self._config.model_copy(update={"regressor": config})
        return other

    def prepare(self, inputs: Inputs, divisions: Sequence[Division]) -> None:
        """Train the adapters of some divisions, all at once, unless they are there already."""
        columns = inputs.adapted
        wanted = {mask.tobytes(): mask for each in divisions for _, mask in self._members(each)}
        known = self._banks.get(columns)
        if not columns or (known is not None and set(wanted) <= set(known[1])):
            return
        member = np.stack(list(wanted.values()), axis=1)
        logger.info("training %d adapters on %s", member.shape[1], ", ".join(columns))
        adapters, curve = train_adapters(
            self._epochs(columns),
            member,
            self._fold >= 0,
            self._target,
            self._rows["user"].astype(np.int64),
            {column: inputs.dims[column] for column in columns},
            inputs.images,
            self._config.adapter,
            self._config.seed,
        )
        self._banks[columns] = (adapters, {key: number for number, key in enumerate(wanted)})
        self.curves[columns] = curve

    def fit(self, inputs: Inputs, division: Division) -> Fitted:
        """Fit a division's boosters and predict its held-out rows."""
        self.prepare(inputs, [division])
        train = np.flatnonzero(division.train)
        # Some users' history is taken away, so that boosters learn what to do without.
        blanked = {name: np.where(self._unknown[train], np.nan, self._rows[name][train]) for name in self._history}
        fitted = fit_regressor(
            inputs,
            Selection(self._rows, train, blanked, self._out_of_fold(inputs, division)),
            self._target[train],
            self._fold[train],
            self._config.regressor,
            self._config.seed,
        )
        held_out = np.flatnonzero(division.held_out)
        history = self._held_out_history(division, held_out)
        selection = Selection(self._rows, held_out, history, self._mean(inputs, division))
        predictions, scores = np.empty(len(held_out)), np.empty(len(held_out))
        for places, block in selection.blocks():
            predictions[places] = fitted.predict(block.rows, block.adapted, block.score)
            scores[places] = np.nan if block.score is None else block.score
        return Fitted(fitted, predictions, scores if inputs.adapted else None)

    def adapters(self, inputs: Inputs, division: Division) -> Adapters | None:
        """Return the adapters of a division that was prepared, one per fold; None without vectors to adapt."""
        if not inputs.adapted:
            return None
        bank, numbers = self._banks[inputs.adapted]
        return bank.pick([numbers[mask.tobytes()] for _, mask in self._members(division)])

    def pair_adapters(self, inputs: Inputs) -> Adapters | None:
        """Return what `FoldAdapters.pairs` are, once the identity-isolated divisions are prepared."""
        if not inputs.adapted:
            return None
        bank, numbers = self._banks[inputs.adapted]
        trained = self._fold >= 0
        pairs = combinations(np.unique(self._fold[trained]), 2)
        return bank.pick([numbers[(trained & ~np.isin(self._fold, pair)).tobytes()] for pair in pairs])

    def predictor(
        self, inputs: Inputs, division: Division, fitted: Fitted, fingerprints: Mapping[str, str]
    ) -> Predictor:
        """Return the model of a division, for serving."""
        return Predictor(self.adapters(inputs, division), fitted.regressor, fingerprints)

    def _members(self, division: Division) -> list[tuple[int, Mask]]:
        folds = np.unique(self._fold[division.train])
        if len(folds) < 2:
            raise StageError(
                f"The training rows of {division.name} lie in {len(folds)} fold; nested validation needs two.",
                "Label posts of more users.",
            )
        return [(int(fold), division.train & (self._fold != fold)) for fold in folds]

    def _out_of_fold(self, inputs: Inputs, division: Division) -> Adapt | None:
        """Return what adapts a division's training rows: each row by the adapter that has not seen its fold."""
        if not inputs.adapted:
            return None
        bank, numbers = self._banks[inputs.adapted]
        number_of = {fold: numbers[mask.tobytes()] for fold, mask in self._members(division)}

        def adapt(rows: Rows, where: NDArray[np.int64]) -> tuple[dict[str, Floats], Floats]:
            adapted = {column: np.empty((len(where), inputs.dims[column])) for column in inputs.adapted}
            score = np.empty(len(where))
            for fold in np.unique(self._fold[where]):
                here = self._fold[where] == fold
                vectors, score[here] = bank.forward(
                    number_of[int(fold)], {name: values[here] for name, values in rows.items()}
                )
                for column, values in vectors.items():
                    adapted[column][here] = values
            return adapted, score

        return adapt

    def _mean(self, inputs: Inputs, division: Division) -> Adapt | None:
        """Return what adapts rows that no adapter of a division has seen: the mean over them."""
        adapters = self.adapters(inputs, division)
        return None if adapters is None else lambda rows, where: adapters.mean_forward(rows)

    def _held_out_history(self, division: Division, where: NDArray[np.int64]) -> dict[str, Floats]:
        """Return the history of rows to predict, such that no held-out label is in it."""
        if not self._history:
            return {}
        if division.isolated:
            return {name: np.full(len(where), np.nan) for name in self._history}
        return known_labels(self._rows, division.train, where)


def identity_divisions(fold: NDArray[np.int64]) -> list[Division]:
    """Return one division per identity-isolated fold; gate rows are on neither side."""
    return [
        Division(_fold_name(number), (fold >= 0) & (fold != number), fold == number, isolated=True)
        for number in np.unique(fold[fold >= 0])
    ]


def _fold_name(number: int) -> str:
    return f"fold {number}"


def final_division(fold: NDArray[np.int64]) -> Division:
    """Return what the model that is served is fitted on, all rows but the gate's, which it predicts."""
    return Division("the final model", fold >= 0, fold == splits.GATE_FOLD)


def divisions_of(name: str, rows: Columns, seed: int) -> list[Division]:
    """Return the divisions of a split; gate rows are on neither side of any.

    Args:
        name: `identity`, `chronological`, `later_unseen`, `rolling` or `random_optimistic`.
        rows: Columns of the training set.
        seed: Decides what is decided at random.

    Raises:
        StageError: The rows cannot be divided so.
    """
    fold = rows["fold"].astype(np.int64)
    if name == "identity":
        return identity_divisions(fold)
    where = np.flatnonzero(fold >= 0)
    users, times = rows["user"][where].astype(np.int64).tolist(), rows["event_time"][where]
    if name == "rolling":
        found = {f"year {year}": split for year, split in splits.rolling(times.astype(np.float64), users).items()}
    elif name == "random_optimistic":
        found = {name: splits.random_optimistic(rows["row_id"][where].tolist(), users, seed)}
    elif name == "later_unseen":
        found = {name: splits.later_unseen(times.tolist(), users, seed)}
    else:
        found = {name: splits.chronological(times.tolist(), users)}
    made = []
    for label, split in found.items():
        if not split.train.any() or not split.held_out.any():
            side = "hold out" if split.train.any() else "train on"
            raise StageError(
                f"Split {name} leaves nothing to {side} in {label}, of {len(where)} rows.",
                "Label more posts, or choose another split.",
            )
        whole = np.zeros((2, len(fold)), dtype=bool)
        whole[:, where] = split.train, split.held_out
        made.append(Division(label, whole[0], whole[1]))
    return made


def held_out_of(divisions: Sequence[Division]) -> Mask:
    """Return the rows that any of some divisions holds out."""
    return np.asarray(np.logical_or.reduce([division.held_out for division in divisions]))


def seen_of(divisions: Sequence[Division], users: NDArray[np.int64]) -> Mask:
    """Return the rows held out whose user has rows to train on in the same division."""
    seen = np.zeros(len(users), dtype=bool)
    for division in divisions:
        seen |= division.held_out & np.isin(users, users[division.train])
    return seen


def cross_fit(nest: Nest, inputs: Inputs, divisions: Sequence[Division], length: int) -> tuple[Floats, list[Fitted]]:
    """Fit every division; return the pooled out-of-fold predictions (length,), NaN for rows never held out."""
    nest.prepare(inputs, divisions)
    cores = os.cpu_count() or 1
    # Small fits take one thread each, so they run side by side; large ones have all cores to themselves.
    with ThreadPoolExecutor(cores if threads(length) == 1 else 1) as pool:
        found = list(pool.map(lambda division: nest.fit(inputs, division), divisions))
    pooled = np.full(length, np.nan)
    for division, fitted in zip(divisions, found, strict=True):
        pooled[division.held_out] = fitted.predictions
    return pooled, found


def medians(target: Floats, divisions: Sequence[Division]) -> Floats:
    """Predict the median of each division's training labels; return (rows,), NaN for rows never held out.

    Within a division it orders nothing, and over several it orders them by how little they resemble their training
    rows, so it has errors and no correlation.
    """
    found = np.full(len(target), np.nan)
    for division in divisions:
        found[division.held_out] = np.median(target[division.train])
    return found
