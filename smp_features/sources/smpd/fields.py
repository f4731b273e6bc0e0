"""Parses the fields of SMPD posts: every value may be a string, and missing has many spellings."""

from __future__ import annotations

import math
import re

from smp_features.sources.base import EARLIEST_S, LATEST_S, MAX_POPULARITY, repaired

MISSING_TEXT = frozenset({"", "none", "null", "nan"})
"""Spellings of a missing value, in small letters."""
MISSING_TITLES = frozenset({"None", "null", "nan", "NaN"})
"""Spellings that programs write for a missing title; written otherwise, these are words."""

_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
_ROUNDED = re.compile(r"\d(\.\d+)?[eE]\+\d+")
_WHOLE_FLOAT = re.compile(r"(\d+)\.0+")
_EXACT_FLOAT = 2**53
"""The largest float of which every whole number below it is one."""


def text_of(value: object) -> str:
    """Return a text as it is stated; '' for null, for what is no finite number, and for an object.

    The entries of a list are joined by blanks. Lone surrogates, which no encoding can write, become U+FFFD.
    """
    if isinstance(value, str):
        return repaired(value)
    if value is None or isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, list):
        return " ".join(text for text in map(text_of, value) if text)
    return str(value)


def title_of(value: object) -> str:
    """Return a title as it is stated, '' where it is missing in any spelling."""
    text = text_of(value)
    return "" if text.strip() in MISSING_TITLES else text


def optional_text(value: object, zero_is_missing: bool = True) -> str | None:
    """Return a text without surrounding blanks; null for null, '', 'None' and, if so told, '0'."""
    text = text_of(value).strip()
    if text.lower() in MISSING_TEXT or (zero_is_missing and text == "0"):
        return None
    return text


def id_of(value: object) -> str:
    """Return a pid or uid as text: the numbers 7 and 7.0 and the texts '7' and '7.0' are the same id; '' if missing.

    Missing too is a number so large, or a text such as '1.2E+10' so rounded, that it stands for several ids.
    Characters that a table or file cannot hold, lone surrogates and NUL, become U+FFFD.
    """
    if isinstance(value, str):
        text = repaired(value).replace("\0", "\ufffd").strip()
    elif isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT:
        text = str(int(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        return ""
    if text.isdecimal():
        return text
    whole = _WHOLE_FLOAT.fullmatch(text)
    if whole is not None:
        return whole[1]
    return "" if text.lower() in MISSING_TEXT or _ROUNDED.fullmatch(text) else text


def is_missing(value: object) -> bool:
    """Whether a value is one of the spellings of a missing one."""
    return not isinstance(value, bool | dict | list) and optional_text(value, zero_is_missing=False) is None


def number(value: object) -> float | None:
    """Return a finite number; null for anything else, booleans too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (isinstance(value, str) and "_" in value):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def count(value: object) -> int | None:
    """Return a whole number of at least 0, also one with commas between its thousands; null for anything else."""
    if isinstance(value, str) and _THOUSANDS.fullmatch(value.strip()):
        value = value.replace(",", "")
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
