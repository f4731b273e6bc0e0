"""Vectors of many records are read together as Python's own floats would read each."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.sources.smpd.vectors import read_vectors

NUMBERS = ["0.1", "-1e-3", "123456789.123456789", "3", "0.30000001192092896", "1e30", "5e-324", "nan", "-inf"] * 12
ONE = ",".join(NUMBERS)
EXPECTED = np.array(list(map(float, NUMBERS)), dtype=np.float32)


@pytest.mark.parametrize(
    "beside",
    [None, "", "I like snow", "a, " * 200, "7," * 150, " 1, 2," * 60 + "3", "1_0," * 101 + "1", "\ud83d," * 150],
    ids=["null", "empty", "text", "commas", "a gap", "blanks", "underscores", "surrogates"],
)
def test_numbers_are_pythons_whatever_stands_in_other_records(beside: str | None) -> None:
    first, other, last = read_vectors([ONE, beside, ONE])
    for found in (first, last):
        assert found is not None and found.dtype == np.float32
        np.testing.assert_array_equal(found, EXPECTED)
    try:
        expected = None if not beside else np.array(list(map(float, beside.split(","))), dtype=np.float32)
    except ValueError:
        expected = None
    assert (other is None) == (expected is None or len(expected) < 2)
    if other is not None:
        np.testing.assert_array_equal(other, expected)


def test_a_list_of_numbers_is_a_vector_and_one_of_words_is_none() -> None:
    numbers, words, none = read_vectors([[1, 2.5], ["snow", "dog"], 7])
    assert numbers is not None and numbers.tolist() == [1.0, 2.5]
    assert words is None and none is None
