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
            frame: Numbers may be null, categories null or unseen, buckets and vectors null.

        Returns:
            float64 numbers with NaN for null, int64 codes, (n, MOST_WORDS) int16 buckets padded by −1, float32 vectors
            with zeros for null, `has_<vector>`.

        Raises:
            ModelError: A column is missing, or a vector has another width.
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ModelError(
                f"The model needs the column {missing[0]} of post_features, and {len(missing) - 1} more are missing."
                if len(missing) > 1
                else f"The model needs the column {missing[0]} of post_features.",
                "Pass rows of the table post_features with all its columns.",
            )
        rows: Columns = {
            name: pd.to_numeric(frame[name]).to_numpy(np.float64, na_value=np.nan) for name in self.numbers
        }
        for name, values in self.vocabularies.items():
            rows[name] = (
                pd.Index(values, dtype=object).get_indexer(pd.Index(frame[name], dtype=object)).astype(np.int64)
            )
        for name in self.buckets:
            rows[name] = padded(frame[name])
        for name, width in self.dims.items():
            try:
                vectors = [None if _absent(value) else value for value in frame[name]]
                rows[name], rows[f"has_{name}"] = filled(vectors, width)
            except ValueError as error:
                raise ModelError(
                    f"{name}, {error}: other extractors made these features.", "Run `smp train` on them first."
                ) from None
        return rows


def padded(lists: Iterable[Sequence[int] | None]) -> NDArray[np.int16]:
    """Return lists of buckets, the first `MOST_WORDS` of each, as (n, MOST_WORDS) int16 with −1 behind the last."""
    rows = [() if value is None or _absent(value) else value[:MOST_WORDS] for value in lists]
    found = np.full((len(rows), MOST_WORDS), -1, dtype=np.int16)
    for row, value in enumerate(rows):
        found[row, : len(value)] = value
    return found


def _absent(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
