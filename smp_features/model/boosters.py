"""Gradient boosting by LightGBM and by CatBoost behind one face: choose the rounds, fit, predict, save, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

from smp_features.config import RegressorConfig
from smp_features.model.adapter_weights import Floats

MAX_THREADS = 8
SMALL = 20_000
"""Rows below which one thread is fastest: threads that wait for each other made 2,000 rows up to ten times slower."""


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
        if list(names) == list(self.names):
            return self
        at = {name: place for place, name in enumerate(self.names)}
        return Table(self.features[:, [at[name] for name in names]], names, self.categories & set(names), self.target)


class Booster(Protocol):
    """A fitted booster."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it reads, in order."""

    def predict(self, features: Floats, threads: int) -> Floats:
        """Predict from (n, f) features; (n,)."""

    def gains(self) -> Floats:
        """Return what splits on each column gained, (f,)."""

    def save(self, stem: Path) -> None:
        """Write it to a file of this name and the kind's own suffix."""


@dataclass(frozen=True)
class LightGbm:
    """LightGBM; saved in its own text format."""

    library: ClassVar[str] = "lightgbm"
    names: tuple[str, ...]
    model: lightgbm.Booster

    @classmethod
    def choose(cls, learning: Table, watched: Table, config: RegressorConfig, seed: int) -> tuple[int, Floats]:
        """Return the rounds after which the error on the watched rows is least, and their predictions then."""
        data = cls._dataset(learning)
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
    def fit(cls, table: Table, rounds: int, config: RegressorConfig, seed: int) -> LightGbm:
        """Fit so many rounds."""
        parameters = cls._parameters(config, seed, len(table.target))
        return cls(tuple(table.names), lightgbm.train(parameters, cls._dataset(table), num_boost_round=rounds))

    @classmethod
    def load(cls, stem: Path) -> LightGbm:
        """Read what `save` wrote."""
        model = lightgbm.Booster(model_str=stem.with_suffix(".txt").read_text(encoding="utf-8"))
        return cls(tuple(model.feature_name()), model)

    def predict(self, features: Floats, threads: int) -> Floats:
        """See `Booster.predict`."""
        return np.asarray(self.model.predict(features, num_threads=threads), dtype=np.float64)

    def gains(self) -> Floats:
        """See `Booster.gains`."""
        return np.asarray(self.model.feature_importance("gain"), dtype=np.float64)

    def save(self, stem: Path) -> None:
        """See `Booster.save`."""
        stem.with_suffix(".txt").write_text(self.model.model_to_string(), encoding="utf-8")

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


@dataclass(frozen=True)
class CatBoost:
    """CatBoost on numbers alone, categories as codes and mean labels; saved in its own binary format.

    Its symmetric trees err elsewhere than LightGBM's, which is what a blend lives on.
    """

    library: ClassVar[str] = "catboost"
    names: tuple[str, ...]
    model: Any

    @classmethod
    def choose(cls, learning: Table, watched: Table, config: RegressorConfig, seed: int) -> tuple[int, Floats]:
        """Return the rounds after which the error on the watched rows is least, and their predictions then."""
        stopping = {"od_type": "Iter", "od_wait": config.early_stopping}
        model = cls._model(config, seed, len(learning.target), config.rounds, **stopping)
        model.fit(cls._pool(learning), eval_set=cls._pool(watched), use_best_model=True)
        return int(model.tree_count_) or 1, np.asarray(model.predict(watched.features), dtype=np.float64)

    @classmethod
    def fit(cls, table: Table, rounds: int, config: RegressorConfig, seed: int) -> CatBoost:
        """Fit so many rounds."""
        model = cls._model(config, seed, len(table.target), rounds)
        return cls(tuple(table.names), model.fit(cls._pool(table)))

    @classmethod
    def load(cls, stem: Path) -> CatBoost:
        """Read what `save` wrote."""
        import catboost

        model = catboost.CatBoostRegressor().load_model(blob=stem.with_suffix(".cbm").read_bytes())
        return cls(tuple(model.feature_names_), model)

    def predict(self, features: Floats, threads: int) -> Floats:
        """See `Booster.predict`."""
        return np.asarray(self.model.predict(features, thread_count=threads), dtype=np.float64)

    def gains(self) -> Floats:
        """See `Booster.gains`; CatBoost's are changes of the prediction, in percent."""
        return np.asarray(self.model.get_feature_importance(), dtype=np.float64)

    def save(self, stem: Path) -> None:
        """See `Booster.save`."""
        self.model.save_model(str(stem.with_suffix(".cbm")))

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


KINDS: dict[str, type[LightGbm] | type[CatBoost]] = {"lightgbm": LightGbm, "catboost": CatBoost, "metadata": LightGbm}
"""The members that a blend may have (`training.regressor.members`) and what fits them."""


def threads(rows: int) -> int:
    """Return how many threads one fit of so many rows takes."""
    return 1 if rows < SMALL else min(MAX_THREADS, os.cpu_count() or 1)
