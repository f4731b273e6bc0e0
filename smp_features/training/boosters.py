"""Trains boosters of LightGBM and of CatBoost behind one face: choose the rounds, then train on all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.model.adapter_weights import Floats
from smp_features.model.boosters import Booster, CatBoost, LightGbm, threads
from smp_features.model.regressor import columns_of


@dataclass(frozen=True)
class Table:
    """What a booster is fitted on.

    Attributes:
        features: (n, f), NaN where missing.
        names: (f,) of the columns.
        categories: Those among the names that hold codes.
        target: (n,) labels.
    """

    features: Floats
    names: Sequence[str]
    categories: frozenset[str]
    target: Floats

    def rows(self, where: NDArray[np.bool_]) -> Table:
        """Return some rows."""
        return Table(self.features[where], self.names, self.categories, self.target[where])

    def columns(self, names: Sequence[str]) -> Table:
        """Return some columns."""
        features = columns_of(self.features, self.names, names)
        return Table(features, names, self.categories & set(names), self.target)


def unlearnable(table: Table) -> str | None:
    """Return why no booster can be fitted on a table, in words; None where one can.

    As the libraries see it, which hold numbers in float32. A column with values and gaps varies.
    """
    if len(table.target) < 2:
        return f"there is {len(table.target)} row"
    if np.ptp(table.target.astype(np.float32)) == 0:
        return "all labels are equal"
    if not any(_varies(column) for column in table.features.T):
        return "every column has one value in all rows"
    return None


def _varies(column: Floats) -> bool:
    with np.errstate(over="ignore"):
        narrow = column.astype(np.float32)
    missing = np.isnan(narrow)
    there = narrow[~missing]
    return bool(len(there) and (missing.any() or (there != there[0]).any()))


@contextmanager
def _explained(table: Table) -> Iterator[None]:
    """Turn what a library says of a table that it cannot be fitted on into one line."""
    reason = unlearnable(table)
    if reason is not None:
        raise StageError(f"A booster cannot be fitted on {len(table.target)} rows: {reason}.", "Ingest other posts.")
    try:
        yield
    except Exception as error:
        if not type(error).__name__.endswith(("LightGBMError", "CatBoostError")):
            raise
        said = str(error).strip().splitlines()[0][:200]
        raise StageError(
            f"A booster could not be fitted on {len(table.target)} rows of {len(table.names)} columns: {said}"
        ) from error


class Trainer(Protocol):
    """What trains one kind of booster."""

    def choose_rounds(self, learning: Table, watched: Table, config: RegressorConfig, seed: int) -> tuple[int, Floats]:
        """Return the rounds after which the error on the watched rows is least, and their predictions then.

        Raises:
            StageError: The rows to learn from are `unlearnable`.
        """

    def train(self, table: Table, rounds: int, config: RegressorConfig, seed: int) -> Booster:
        """Train for so many rounds.

        Raises:
            StageError: The table is `unlearnable`.
        """


class LightGbmTrainer:
    """Trains `LightGbm`."""

    @classmethod
    def choose_rounds(cls, learning: Table, watched: Table, config: RegressorConfig, seed: int) -> tuple[int, Floats]:
        """Return the rounds after which the error on the watched rows is least, and their predictions then."""
        data = cls._dataset(learning)
        with _explained(learning):
            stopped = lightgbm.train(
                cls._parameters(config, seed, len(learning.target)),
                data,
                num_boost_round=config.rounds,
                valid_sets=[cls._dataset(watched, data)],
                callbacks=[lightgbm.early_stopping(config.early_stopping, verbose=False)],
            )
        rounds = max(1, int(stopped.best_iteration))
        # LightGBM keeps one number of threads for the whole process: where none is given it becomes all cores, also for
        # the fits under way beside this one, whose results it changed.
        most = threads(len(learning.target))
        made = stopped.predict(watched.features, num_iteration=rounds, num_threads=most)
        return rounds, np.asarray(made, dtype=np.float64)

    @classmethod
    def train(cls, table: Table, rounds: int, config: RegressorConfig, seed: int) -> LightGbm:
        """Train for so many rounds."""
        parameters = cls._parameters(config, seed, len(table.target))
        with _explained(table):
            return LightGbm(tuple(table.names), lightgbm.train(parameters, cls._dataset(table), num_boost_round=rounds))

    @staticmethod
    def _dataset(table: Table, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
        return lightgbm.Dataset(
            table.features,
            label=table.target,
            feature_name=list(table.names),
            categorical_feature=[name for name in table.names if name in table.categories],
            reference=reference,
            params={"verbosity": -1},
        )

    @staticmethod
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


class CatBoostTrainer:
    """Trains `CatBoost`."""

    @classmethod
    def choose_rounds(cls, learning: Table, watched: Table, config: RegressorConfig, seed: int) -> tuple[int, Floats]:
        """Return the rounds after which the error on the watched rows is least, and their predictions then."""
        stopping = {"od_type": "Iter", "od_wait": config.early_stopping}
        model = cls._model(config, seed, len(learning.target), config.rounds, **stopping)
        with _explained(learning):
            model.fit(cls._pool(learning), eval_set=cls._pool(watched), use_best_model=True)
        return int(model.tree_count_) or 1, np.asarray(model.predict(watched.features), dtype=np.float64)

    @classmethod
    def train(cls, table: Table, rounds: int, config: RegressorConfig, seed: int) -> CatBoost:
        """Train for so many rounds."""
        model = cls._model(config, seed, len(table.target), rounds)
        with _explained(table):
            return CatBoost(tuple(table.names), model.fit(cls._pool(table)))

    @staticmethod
    def _pool(table: Table) -> Any:
        import catboost

        return catboost.Pool(table.features, table.target, feature_names=list(table.names))

    @staticmethod
    def _model(config: RegressorConfig, seed: int, rows: int, rounds: int, **stopping: object) -> Any:
        import catboost

        return catboost.CatBoostRegressor(
            loss_function="RMSE",
            iterations=rounds,
            learning_rate=config.catboost_learning_rate,
            depth=config.catboost_depth,
            l2_leaf_reg=config.l2,
            rsm=config.feature_fraction,
            bootstrap_type="Bernoulli",
            subsample=config.bagging_fraction,
            random_seed=seed,
            thread_count=threads(rows),
            logging_level="Silent",
            allow_writing_files=False,
            **stopping,
        )


TRAINERS: dict[str, Trainer] = {
    "lightgbm": LightGbmTrainer(),
    "catboost": CatBoostTrainer(),
    "metadata": LightGbmTrainer(),
}
"""What trains each member that a blend may have (`training.regressor.members`)."""
