"""Reads the vectors of many profile texts at once, since one number after the other takes most of an ingest's time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LEAST_COMMAS = 100
"""A text with more commas than this and only numbers between them is a vector."""


def read_vectors(values: Sequence[object]) -> list[np.ndarray | None]:
    """Return the numbers of long comma-separated lists; null for each value that is a text.

    Args:
        values: Profile texts: a string, a list, or anything else, which is no vector.

    Returns:
        A float32 array of each list's own length, rounded from float64; it may hold NaN and infinity.
    """
    at = [n for n, value in enumerate(values) if isinstance(value, str) and value.count(",") > LEAST_COMMAS]
    found: list[np.ndarray | None] = [_numbers(value) if isinstance(value, list) else None for value in values]
    if not at:
        return found
    try:
        parts = pc.split_pattern(pa.array([values[n] for n in at], pa.large_string()), ",")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and its vector is refused
            numbers = parts.flatten().cast(pa.float64()).to_numpy().astype(np.float32)
    except (pa.ArrowInvalid, UnicodeEncodeError):
        # A text among them, or a number that only Python's float takes, such as one with blanks around it.
        for n in at:
            found[n] = _numbers(str(values[n]).split(","))
        return found
    ends = parts.offsets.to_numpy()
    for place, n in enumerate(at):
        found[n] = numbers[ends[place] : ends[place + 1]]
    return found


def _numbers(parts: list[Any]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):
            return np.array(list(map(float, parts)), dtype=np.float32)
    except (TypeError, ValueError):
        return None
