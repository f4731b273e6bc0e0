"""Which columns of `post_features` a model sees, and rows of that table as the arrays it is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import ModelError
from .vectors import filled

Columns = dict[str, NDArray[np.generic]]

Use = Literal["raw", "adapted", "both"]

MOST_WORDS = 75
"""Words of a post whose buckets a model reads: Flickr lets a photo have so many tags."""


@dataclass(frozen=True)
class Inputs:
    """The columns of `post_features` that a model sees.

    Attributes:
        numbers: Numeric columns.
        dims: Vector columns to their widths.
        vocabularies: Category columns to their values; the code of a value is its position, −1 if it is not there.
        uses: Vector columns to the form in which the booster sees them, if it is not both: the frozen vector, or what
            the adapter makes of it.
        buckets: Columns of hashed words to the number of buckets.
        content: Those among all columns that frozen models made; a member that is not to see them does without. Only
            training asks, so a saved model does not say.
        images: Those among the vectors that were computed of pictures themselves, whose adapters have a ratio of their
            own when they are trained, or measured.
    """

    numbers: tuple[str, ...]
    dims: Mapping[str, int]
    vocabularies: Mapping[str, list[str]]
    uses: Mapping[str, Use] = field(default_factory=dict)
    buckets: Mapping[str, int] = field(default_factory=dict)
    content: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()

    @property
    def raw(self) -> tuple[str, ...]:
        """Vector columns that the booster sees as they are."""
        return tuple(name for name in self.dims if self.uses.get(name) != "adapted")

    @property
    def adapted(self) -> tuple[str, ...]:
        """Vector columns that go through an adapter."""
        return tuple(name for name in self.dims if self.uses.get(name) != "raw")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of the signature."""
        return (*self.numbers, *self.vocabularies, *self.buckets, *self.dims)

    def without(self, columns: Sequence[str]) -> Inputs:
        """Return these less some columns."""

        def kept(names: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in names.items() if name not in columns}

        return replace(
            self,
            numbers=tuple(name for name in self.numbers if name not in columns),
            dims=kept(self.dims),
            vocabularies=kept(self.vocabularies),
            buckets=kept(self.buckets),
            content=self.content - set(columns),
            images=self.images - set(columns),
        )

    def encode(self, frame: pd.DataFrame) -> Columns:
        """Turn rows of `post_features` into the arrays that models are trained on.

        Args:
            frame: Numbers may be null, categories null or unseen, buckets and vectors null. A column that is not there
                is null in every row, as the signature says.

        Returns:
            float64 numbers with NaN for null, int64 codes, (n, MOST_WORDS) int16 buckets padded by −1, float32 vectors
            with zeros for null, `has_<vector>`.

        Raises:
            ModelError: No column of the model is there, or one holds what it cannot: text that is no number, a vector
                of another width or with NaN or infinity in it, a bucket that does not exist.
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if len(missing) == len(self.columns):
            raise ModelError(
                f"None of the model's {len(missing)} columns is there, neither {missing[0]} nor any other.", _PASS
            )
        frame = frame.reindex(columns=list(self.columns)) if missing else frame
        rows: Columns = {name: _numbers(name, frame[name]) for name in self.numbers}
        for name, values in self.vocabularies.items():
            rows[name] = _codes(name, values, frame[name])
        for name, width in self.buckets.items():
            rows[name] = _buckets(name, frame[name], width)
        for name, width in self.dims.items():
            vectors = [None if _absent(value) else value for value in frame[name]]
            try:
                rows[name], rows[f"has_{name}"] = filled(vectors, width)
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelError(f"{name}, {error}.", _PASS) from None
        return rows


_PASS = "Pass rows of the table post_features, made by the models that this one was trained with."


def _numbers(name: str, values: pd.Series) -> NDArray[np.float64]:
    try:
        return pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        raise ModelError(f"{name} holds something else than numbers.", _PASS) from None


def _codes(name: str, known: Sequence[str], values: pd.Series) -> NDArray[np.int64]:
    try:
        return pd.Index(known, dtype=object).get_indexer(pd.Index(values, dtype=object)).astype(np.int64)
    except (ValueError, TypeError):
        raise ModelError(f"{name} holds something else than text.", _PASS) from None


def _buckets(name: str, values: pd.Series, width: int) -> NDArray[np.int16]:
    try:
        found = padded(values)
    except (ValueError, TypeError, OverflowError):
        raise ModelError(f"{name} holds something else than lists of whole numbers.", _PASS) from None
    if len(found) and not -1 <= found.min() <= found.max() < width:
        raise ModelError(f"{name} holds a bucket that is not one of 0 to {width - 1}.", _PASS)
    return found.astype(np.int16)


def padded(lists: Iterable[Sequence[int] | None]) -> NDArray[np.int64]:
    """Return lists of buckets, the first `MOST_WORDS` of each, as (n, MOST_WORDS) int64 with −1 behind the last."""
    rows = [() if value is None or _absent(value) else value[:MOST_WORDS] for value in lists]
    found = np.full((len(rows), MOST_WORDS), -1, dtype=np.int64)
    for row, value in enumerate(rows):
        found[row, : len(value)] = value
    return found


def _absent(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
