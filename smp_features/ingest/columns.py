"""Puts rows into Arrow columns, long vectors without a Python object for each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; a column that a row lacks is null there.

    Raises:
        ValueError: A value does not fit its column; so do TypeError and OverflowError.
    """
    return pa.Table.from_arrays([column_of(rows, field) for field in schema], schema=schema)


def column_of(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    """Return one column of rows.

    Raises:
        ValueError: A value does not fit the column; so do TypeError and OverflowError.
    """
    values = [row.get(field.name) for row in rows]
    if pa.types.is_list(field.type) and all(value is None or _is_vector(value) for value in values):
        vectors = [value for value in values if value is not None]
        if vectors:
            return _lists(values, np.concatenate(vectors), field.type)
    return pa.array(values, field.type)


def _is_vector(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float32


def _lists(values: Sequence[np.ndarray | None], numbers: np.ndarray, of: pa.DataType) -> pa.Array:
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int32)
    starts = np.concatenate((np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)))
    # A null offset says that the list which begins there is null.
    absent = np.array([*(value is None for value in values), False])
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32(), mask=absent), pa.array(numbers)).cast(of)
