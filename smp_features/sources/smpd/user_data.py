"""Parses user records, telling each field's encoding apart by its value.

Two forms are in use and mix freely. Form A gives the profile texts as vectors and the time zone as integer codes;
form B gives raw texts, zone names and offsets. Neither can be turned into the other, so a field that one form cannot
express is null there: `FORM_A_ONLY` and `FORM_B_ONLY`. Everything else comes out the same from both.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from smp_features.sources.smpd import fields
from smp_features.sources.smpd.json_rows import Record
from smp_features.sources.smpd.vectors import read_vectors

DESCRIPTION_FLOATS = 399
LOCATION_FLOATS = 400

FORM_A_ONLY = ("description_vector", "location_vector")
"""Null for a record of form B. `timezone_name` holds form A's opaque code, never comparable with form B's name."""
FORM_B_ONLY = ("description", "location", "timezone_offset_minutes")
"""Null for a record of form A."""
FORM_DEPENDENT = (*FORM_A_ONLY, *FORM_B_ONLY, "timezone_name")
"""Fields that differ between the forms for the same user; all others are identical."""

PROFILE_FIELDS = (
    "photo_count",
    "photo_first_at",
    "photo_first_taken",
    "is_pro",
    "can_buy_pro",
    "timezone_offset_minutes",
    "timezone_name",
    "description",
    "description_vector",
    "location",
    "location_vector",
)
"""What a record says of a user; the columns of `user_profiles` of the same names."""

_OFFSET = re.compile(r"(?=[+-]|\d+:|\d{4}$)([+-]?)(\d{1,2}):?([0-5]\d)")
_FARTHEST_MINUTES = 14 * 60
"""No zone is further from UTC than this."""
_CODE = re.compile(r"^-?\d+(\.0+)?$")

Vectors = tuple[np.ndarray | None, np.ndarray | None]
"""What `read_vectors` made of a record's description and location."""


def profile(record: Record, seen: Counter[str], vectors: Vectors | None = None) -> dict[str, Any]:
    """Return the fields of `PROFILE_FIELDS`.

    Times are Unix microseconds (UTC), vectors float32 arrays of shape (399,) and (400,).

    Args:
        record: A user record with lower-case field names.
        seen: Counts the encodings met, by name.
        vectors: Its vectors, where they were read together with those of other records.
    """
    about, place = record.get("user_description"), record.get("location_description")
    as_numbers = vectors or read_vectors([about, place])
    first = fields.seconds(record.get("photo_firstdate"))
    taken = fields.optional_text(record.get("photo_firstdatetaken"))
    description, description_vector = _text_or_vector(about, as_numbers[0], DESCRIPTION_FLOATS, seen)
    location, location_vector = _text_or_vector(place, as_numbers[1], LOCATION_FLOATS, seen)
    zone = record.get("timezone_id")
    if zone is None:
        zone = record.get("timezone_timezone_id")
    return {
        "photo_count": fields.count(record.get("photo_count")),
        "photo_first_at": None if first is None else first * 1_000_000,
        "photo_first_taken": None if taken is None or taken.startswith("0000-00-00") else taken,
        "is_pro": fields.flag(record.get("ispro")),
        "can_buy_pro": fields.flag(record.get("canbuypro")),
        "timezone_offset_minutes": offset_minutes(record.get("timezone_offset"), seen),
        "timezone_name": fields.optional_text(zone, zero_is_missing=False),
        "description": description,
        "description_vector": description_vector,
        "location": location,
        "location_vector": location_vector,
    }


def offset_minutes(value: object, seen: Counter[str]) -> int | None:
    """Return an offset from UTC such as `+01:00`, `1:00` or `0100` in minutes.

    Null if missing, an opaque integer code (form A), or further from UTC than any zone is.
    """
    text = fields.optional_text(value, zero_is_missing=False)
    if text is None:
        return None
    found = _OFFSET.fullmatch(text)
    minutes = 0 if found is None else int(found[2]) * 60 + int(found[3])
    if found is None or minutes > _FARTHEST_MINUTES:
        seen["time zones as codes"] += found is None and is_code(text)
        return None
    seen["time zones as offsets"] += 1
    return -minutes if found[1] == "-" else minutes


def is_code(value: object) -> bool:
    """Whether a time zone is one of form A's opaque integers."""
    return not isinstance(value, bool) and _CODE.match(str(value).strip()) is not None


def _text_or_vector(
    value: object, numbers: np.ndarray | None, length: int, seen: Counter[str]
) -> tuple[str | None, np.ndarray | None]:
    if numbers is None:
        text = fields.optional_text(value, zero_is_missing=False)
        seen["profile texts"] += text is not None
        return text, None
    if not numbers.any():
        return None, None  # all zero is form A's way to say that there is nothing
    if len(numbers) != length or not np.isfinite(numbers).all():
        seen[f"profile vectors that are not {length} finite numbers"] += 1
        return None, None
    seen["profile vectors"] += 1
    return None, numbers
