"""Fitted boosters of LightGBM and CatBoost behind one face: load, predict, save; `training/boosters.py` fits them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from .adapter_weights import Floats

MAX_THREADS = 8
SMALL = 20_000
"""Rows below which one thread is fastest: threads that wait for each other made 2,000 rows up to ten times slower."""


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
    suffix: ClassVar[str] = ".txt"
    names: tuple[str, ...]
    model: Any

    @classmethod
    def load(cls, content: bytes) -> LightGbm:
        """Return the booster of a file that `save` wrote; a file that was cut ends the process, so compare it first."""
        import lightgbm  # a model without such a booster does without the library

        model = lightgbm.Booster(model_str=content.decode("utf-8"))
        return cls(tuple(model.feature_name()), model)

    def predict(self, features: Floats, threads: int) -> Floats:
        """See `Booster.predict`."""
        return np.asarray(self.model.predict(features, num_threads=threads), dtype=np.float64)

    def gains(self) -> Floats:
        """See `Booster.gains`."""
        return np.asarray(self.model.feature_importance("gain"), dtype=np.float64)

    def save(self, stem: Path) -> None:
        """See `Booster.save`."""
        stem.with_suffix(self.suffix).write_text(self.model.model_to_string(), encoding="utf-8")


@dataclass(frozen=True)
class CatBoost:
    """CatBoost on numbers alone, categories as codes and mean labels; saved in its own binary format.

    Its symmetric trees err elsewhere than LightGBM's, which is what a blend lives on.
    """

    library: ClassVar[str] = "catboost"
    suffix: ClassVar[str] = ".cbm"
    names: tuple[str, ...]
    model: Any

    @classmethod
    def load(cls, content: bytes) -> CatBoost:
        """Return the booster of a file that `save` wrote."""
        import catboost

        model = catboost.CatBoostRegressor().load_model(blob=content)
        return cls(tuple(model.feature_names_), model)

    def predict(self, features: Floats, threads: int) -> Floats:
        """See `Booster.predict`."""
        return np.asarray(self.model.predict(features, thread_count=threads), dtype=np.float64)

    def gains(self) -> Floats:
        """See `Booster.gains`; CatBoost's are changes of the prediction, in percent."""
        return np.asarray(self.model.get_feature_importance(), dtype=np.float64)

    def save(self, stem: Path) -> None:
        """See `Booster.save`."""
        self.model.save_model(str(stem.with_suffix(self.suffix)))


KINDS: dict[str, type[LightGbm] | type[CatBoost]] = {"lightgbm": LightGbm, "catboost": CatBoost, "metadata": LightGbm}
"""What each member that a blend may have (`training.regressor.members`) is."""


def threads(rows: int) -> int:
    """Return how many threads a booster of so many rows takes."""
    return 1 if rows < SMALL else min(MAX_THREADS, os.cpu_count() or 1)
