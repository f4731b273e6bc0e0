"""Rows of the training set a block at a time, with what the adapters make of them: vectors are too large to copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .adapter_weights import Floats, Rows

BLOCK = 20_000
"""Rows held in float64 at once."""

Adapt = Callable[[Rows, NDArray[np.int64]], tuple[dict[str, Floats], Floats]]
"""From the columns of some rows, and their positions, to adapted vectors by column (n, d) and scores (n,)."""


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        rows: Their columns.
        adapted: Their adapted vectors by column; None without an adapter.
        score: Their adapter scores; None without an adapter.
    """

    rows: Rows
    adapted: Mapping[str, Floats] | None
    score: Floats | None


@dataclass(frozen=True)
class Selection:
    """Rows of a training set, none of them copied until they are asked for.

    Attributes:
        rows: All rows of the training set.
        where: (n,) positions of those selected.
        changed: Columns with other values for the rows selected, (n,) each.
        adapt: Makes their adapted vectors and scores; None without an adapter.
    """

    rows: Rows
    where: NDArray[np.int64]
    changed: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    adapt: Adapt | None = None

    @classmethod
    def all(cls, rows: Rows) -> Selection:
        """Return all of some rows, unchanged and without an adapter."""
        return cls(rows, np.arange(len(next(iter(rows.values())))))

    def __len__(self) -> int:
        return len(self.where)

    def column(self, name: str) -> NDArray[np.generic]:
        """Return one column of all rows selected."""
        return self.changed[name] if name in self.changed else self.rows[name][self.where]

    def take(self, places: NDArray[np.int64] | slice) -> Block:
        """Return some of the rows, by their places among those selected."""
        where = self.where[places]
        rows = {name: values[where] for name, values in self.rows.items()}
        rows |= {name: values[places] for name, values in self.changed.items()}
        if self.adapt is None:
            return Block(rows, None, None)
        return Block(rows, *self.adapt(rows, where))

    def blocks(self) -> Iterator[tuple[slice, Block]]:
        """Yield all rows, a block at a time, and where it lies among those selected."""
        for start in range(0, len(self), BLOCK):
            places = slice(start, start + BLOCK)
            yield places, self.take(places)
