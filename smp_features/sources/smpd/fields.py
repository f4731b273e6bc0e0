"""Parses the fields of SMPD posts: every value may be a string, and missing has many spellings."""

from __future__ import annotations

import math
import re

from smp_features.sources.base import EARLIEST_S, LATEST_S, MAX_POPULARITY

MISSING_TEXT = frozenset({"", "none", "null", "nan"})

_SURROGATE = re.compile("[\ud800-\udfff]")


def text_of(value: object) -> str:
    """Return a text as it is stated, '' for null; lone surrogates, which no encoding can write, become U+FFFD."""
    return "" if value is None else _SURROGATE.sub("\ufffd", str(value))


def optional_text(value: object, zero_is_missing: bool = True) -> str | None:
    """Return a text without surrounding blanks; null for null, '', 'None' and, if so told, '0'."""
    text = text_of(value).strip()
    if text.lower() in MISSING_TEXT or (zero_is_missing and text == "0"):
        return None
    return text


def number(value: object) -> float | None:
    """Return a finite number; null for anything else, booleans too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def count(value: object) -> int | None:
    """Return a whole number of at least 0; null for anything else."""
    parsed = number(value)
    return None if parsed is None or not 0 <= parsed < 2**63 else int(parsed)


def flag(value: object) -> bool | None:
    """Return a truth value stated as 1/0, true/false or yes/no; null for anything else."""
    text = str(value).strip().lower()
    return True if text in ("1", "1.0", "true", "yes") else False if text in ("0", "0.0", "false", "no") else None


def seconds(value: object) -> int | None:
    """Return Unix seconds (UTC); null if missing, or not a time after the first day of 1970 and before 2100."""
    parsed = number(value)
    return int(parsed) if parsed is not None and EARLIEST_S <= parsed < LATEST_S else None


def popularity(value: str | None) -> float | None:
    """Return a label, log2(views + 1); null if it is not a number of [0, 64)."""
    parsed = number(clean_number(value or ""))
    return parsed if parsed is not None and 0 <= parsed < MAX_POPULARITY else None


def clean_number(line: str) -> str:
    """Return a number's text without the quotes and blanks around it."""
    return line.strip().strip("\"'").strip()


def place(latitude: object, longitude: object, accuracy: object) -> tuple[float | None, float | None, int | None]:
    """Return (degrees north, degrees east, accuracy 1..16); all null without a place.

    Accuracy 0 means no place, whatever the coordinates say; most posts have latitude '0' and longitude ''. Where the
    accuracy is missing, coordinates count unless both are 0.
    """
    level = number(accuracy)
    north, east = number(latitude), number(longitude)
    if north is None or east is None or not (-90 <= north <= 90 and -180 <= east <= 180):
        return None, None, None
    if level == 0 or (level is None and north == 0 and east == 0):
        return None, None, None
    return north, east, int(level) if level is not None and 1 <= level <= 16 else None
