"""Nested validation: no booster row is featurised by an adapter that saw its own label, or a held-out one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smp_features.config import TrainingConfig
from smp_features.errors import StageError
from smp_features.training import regressor, splits
from smp_features.training.adapter import Curve, Epoch, train_adapters
from smp_features.training.adapter_weights import Adapters, Floats, Rows
from smp_features.training.predictor import BLOCK, Columns, Inputs, Predictor

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Division:
    """One division of rows: fit on some, predict others.

    Attributes:
        name: Such as `fold 3`.
        train: (n,) rows to fit on.
        held_out: (n,) rows to predict, of no influence on the fit.
    """

    name: str
    train: Mask
    held_out: Mask


@dataclass(frozen=True)
class Fitted:
    """What came of a division.

    Attributes:
        regressor: The booster.
        predictions: (held-out rows,) popularity.
        adapter_scores: (held-out rows,) the mean of the adapters' scores; None without adapters.
    """

    regressor: regressor.Regressor
    predictions: Floats
    adapter_scores: Floats | None


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
        self._banks: dict[tuple[str, ...], tuple[Adapters, dict[bytes, int]]] = {}
        self.curves: dict[tuple[str, ...], Curve] = {}

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
            self._config.adapter,
            self._config.seed,
        )
        self._banks[columns] = (adapters, {key: number for number, key in enumerate(wanted)})
        self.curves[columns] = curve

    def fit(self, inputs: Inputs, division: Division, rounds: int | None = None) -> Fitted:
        """Fit a division's booster and predict its held-out rows.

        Args:
            inputs: The columns to use.
            division: Who is fitted on and who is predicted.
            rounds: Boosting rounds; None chooses them by early stopping on one fold of the training rows.
        """
        self.prepare(inputs, [division])
        train, held_out = np.flatnonzero(division.train), np.flatnonzero(division.held_out)
        adapted, score = self._out_of_fold(inputs, division, train)
        folds = np.unique(self._fold[train])
        fitted = regressor.fit(
            inputs,
            self._take(train),
            adapted,
            score,
            self._target[train],
            self._fold[train] == folds[0] if rounds is None else None,
            self._config.regressor,
            self._config.seed,
            rounds,
        )
        predictions, scores = self._predict(fitted, self.adapters(inputs, division), held_out)
        return Fitted(fitted, predictions, scores)

    def _predict(
        self, fitted: regressor.Regressor, adapters: Adapters | None, where: NDArray[np.int64]
    ) -> tuple[Floats, Floats | None]:
        predictions, scores = np.empty(len(where)), np.empty(len(where))
        for start in range(0, len(where), BLOCK):
            block = self._take(where[start : start + BLOCK])
            adapted, score = adapters.mean_forward(block) if adapters is not None else (None, None)
            predictions[start : start + BLOCK] = fitted.predict(block, adapted, score)
            scores[start : start + BLOCK] = np.nan if score is None else score
        return predictions, None if adapters is None else scores

    def adapters(self, inputs: Inputs, division: Division) -> Adapters | None:
        """Return the adapters of a division that was prepared, one per fold; None without vectors to adapt."""
        if not inputs.adapted:
            return None
        bank, numbers = self._banks[inputs.adapted]
        return bank.pick([numbers[mask.tobytes()] for _, mask in self._members(division)])

    def predictor(
        self, inputs: Inputs, division: Division, fitted: Fitted, fingerprints: Mapping[str, str]
    ) -> Predictor:
        """Return the model of a division, for serving."""
        made = fitted.regressor
        return Predictor(
            inputs, self.adapters(inputs, division), made.projections, made.booster, made.low, made.high, fingerprints
        )

    def _members(self, division: Division) -> list[tuple[int, Mask]]:
        folds = np.unique(self._fold[division.train])
        if len(folds) < 2:
            raise StageError(
                f"The training rows of {division.name} lie in {len(folds)} fold; nested validation needs two.",
                "Label posts of more users, or set training.folds lower.",
            )
        return [(int(fold), division.train & (self._fold != fold)) for fold in folds]

    def _out_of_fold(
        self, inputs: Inputs, division: Division, train: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[np.floating]] | None, Floats | None]:
        if not inputs.adapted:
            return None, None
        # In float32, for memory: these rows are only ever trained on, not served.
        adapted = {column: np.empty((len(train), inputs.dims[column]), np.float32) for column in inputs.adapted}
        score = np.empty(len(train))
        bank, numbers = self._banks[inputs.adapted]
        for fold, mask in self._members(division):
            here = np.flatnonzero(self._fold[train] == fold)
            vectors, score[here] = bank.forward(numbers[mask.tobytes()], self._take(train[here]))
            for column, values in vectors.items():
                adapted[column][here] = values
        return adapted, score

    def _take(self, where: NDArray[np.int64]) -> Rows:
        return {name: values[where] for name, values in self._rows.items()}


def without(inputs: Inputs, columns: Sequence[str]) -> Inputs:
    """Return inputs less some columns."""
    return replace(
        inputs,
        numbers=tuple(name for name in inputs.numbers if name not in columns),
        dims={name: width for name, width in inputs.dims.items() if name not in columns},
        vocabularies={name: values for name, values in inputs.vocabularies.items() if name not in columns},
    )


def identity_divisions(fold: NDArray[np.int64]) -> list[Division]:
    """Return one division per identity-isolated fold; gate rows are on neither side."""
    return [
        Division(f"fold {number}", (fold >= 0) & (fold != number), fold == number)
        for number in np.unique(fold[fold >= 0])
    ]


def one_sided_division(name: str, rows: Columns, seed: int) -> tuple[Division, Mask]:
    """Return a division with one held-out side, gate rows on neither, and which rows' users are trained on.

    Args:
        name: `chronological`, `later_unseen` or `random_optimistic`.
        rows: Columns of the training set.
        seed: Decides what is decided at random.

    Raises:
        StageError: The rows cannot be divided so.
    """
    where = np.flatnonzero(rows["fold"].astype(np.int64) >= 0)
    users = rows["user"][where].astype(np.int64).tolist()
    if name == "random_optimistic":
        split = splits.random_optimistic(rows["row_id"][where].tolist(), users, seed)
    else:
        times = rows["event_time"][where].tolist()
        split = (
            splits.chronological(times, users) if name == "chronological" else splits.later_unseen(times, users, seed)
        )
    whole = np.zeros((3, len(rows["fold"])), dtype=bool)
    whole[:, where] = split.train, split.held_out, split.seen
    return Division(name, whole[0], whole[1]), whole[2]


def cross_fit(nest: Nest, inputs: Inputs, divisions: Sequence[Division], length: int) -> tuple[Floats, list[Fitted]]:
    """Fit every division; return the pooled out-of-fold predictions (length,), NaN for rows never held out."""
    nest.prepare(inputs, divisions)
    cores = os.cpu_count() or 1
    # Small fits take one thread each, so they run side by side; large ones have all cores to themselves.
    with ThreadPoolExecutor(cores if regressor.threads(length) == 1 else 1) as pool:
        found = list(pool.map(lambda division: nest.fit(inputs, division), divisions))
    pooled = np.full(length, np.nan)
    for division, fitted in zip(divisions, found, strict=True):
        pooled[division.held_out] = fitted.predictions
    return pooled, found
