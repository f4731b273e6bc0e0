"""Rows become Arrow columns with the values that Arrow itself would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from smp_features.ingest.columns import table_of

SCHEMA = pa.schema([("pid", pa.string()), ("vector", pa.list_(pa.float32()))])
SOME = np.array([0.5, np.float32(1 / 3), -2], dtype=np.float32)


@pytest.mark.parametrize(
    "vectors",
    [
        [SOME, None, SOME[1:], None],
        [None, SOME[:0], SOME, None],
        [None, None, None, None],
        [SOME.tolist(), None, [], SOME],
        [SOME.astype(np.float64), SOME, None, None],
    ],
    ids=["vectors", "an empty one", "none", "lists", "another type"],
)
def test_vectors_and_nulls_are_those_of_the_rows(vectors: list[Any]) -> None:
    rows = [{"pid": str(n), "vector": vector} for n, vector in enumerate(vectors)]
    made = table_of([*rows, {"pid": None}], SCHEMA)
    assert made.schema == SCHEMA and made["pid"].to_pylist() == ["0", "1", "2", "3", None]
    expected = [None if vector is None else list(map(float, vector)) for vector in vectors]
    assert made["vector"].to_pylist() == [*expected, None]


@pytest.mark.parametrize("wrong", [3, "text", ["text"]])
def test_what_is_no_vector_is_refused(wrong: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        table_of([{"vector": SOME}, {"vector": wrong}], SCHEMA)
