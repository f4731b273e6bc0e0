"""Numbers from titles, tags, times, places and profiles: plain functions that say what is meant, and Spark's equals.

Each plain function and the expression of the same name agree on every input; the patterns below are written in the
subset that Python's and Java's regular expressions read alike. Characters are Unicode code points.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from smp_features.catalogue import BUCKETS

WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, spelled out: neither `\\s` nor `str.split` means the same set in Python and Java."""

WORD = f"[^{WHITE_SPACE}]+"
NOT_SPACE = f"[^{WHITE_SPACE}]"
NON_ASCII = r"[^\x00-\x7f]"
HASHTAG = f"(?<!{NOT_SPACE})#[^#{WHITE_SPACE}]"
LINK = f"(?<![A-Za-z0-9])(?:[Hh][Tt][Tt][Pp][Ss]?://|[Ww][Ww][Ww][.]){NOT_SPACE}"

MICROS_PER_HOUR = 3_600_000_000
MICROS_PER_DAY = 86_400_000_000


def title_statistics(title: str) -> dict[str, float]:
    """Return the columns of the group `title` that a title decides.

    Letters are the Unicode categories L*, upper-case letters Lu, digits Nd. A word is a run without white space, a
    hashtag a word that starts with # and goes on with something else, a link one that starts with http(s):// or www.

    Args:
        title: The title as extracted, '' if empty.

    Returns:
        Counts and shares (0..1); all 0 for an empty title.

    Example:
        >>> title_statistics("Sunset #nofilter 2016")["title_hashtag_count"]
        1.0
    """
    kinds = [unicodedata.category(character) for character in title]
    letters = sum(kind.startswith("L") for kind in kinds)
    return {
        "title_char_count": float(len(title)),
        "title_word_count": float(len(re.findall(WORD, title))),
        "title_digit_share": kinds.count("Nd") / len(title) if title else 0.0,
        "title_upper_share": kinds.count("Lu") / letters if letters else 0.0,
        "title_non_ascii_share": len(re.findall(NON_ASCII, title)) / len(title) if title else 0.0,
        "title_hashtag_count": float(len(re.findall(HASHTAG, title))),
        "title_has_link": float(re.search(LINK, title) is not None),
    }


def tag_statistics(tags: str) -> dict[str, float | list[int]]:
    """Return the number of space-separated tags, of the characters in them, and the bucket of each tag.

    Args:
        tags: Space-separated tags, '' if none.

    Example:
        >>> statistics = tag_statistics("Beach sea")
        >>> statistics["tag_count"], statistics["tag_char_count"]
        (2.0, 8.0)
    """
    words = re.findall(WORD, tags)
    return {
        "tag_count": float(len(words)),
        "tag_char_count": float(sum(map(len, words))),
        "tag_buckets": [zlib.crc32(word.lower().encode()) % BUCKETS for word in words],
    }


def time_parts(event_ts: datetime) -> dict[str, float]:
    """Return the UTC parts of a time.

    Args:
        event_ts: Time-zone aware.

    Returns:
        Year, month (1..12), weekday (1 = Monday .. 7), hour (0..23), day of the year (1..366), and days since
        1970-01-01 with fraction.

    Example:
        >>> parts = time_parts(datetime(2016, 3, 1, 12, tzinfo=UTC))
        >>> parts["event_weekday"], parts["event_hour"], parts["event_epoch_days"]
        (2.0, 12.0, 16861.5)
    """
    utc = event_ts.astimezone(UTC)
    return {
        "event_year": float(utc.year),
        "event_month": float(utc.month),
        "event_weekday": float(utc.isoweekday()),
        "event_hour": float(utc.hour),
        "event_day_of_year": float(utc.timetuple().tm_yday),
        "event_epoch_days": _micros(utc) / MICROS_PER_DAY,
    }


def user_statistics(profile: Mapping[str, Any] | None, event_ts: datetime) -> dict[str, float | None]:
    """Return the columns of the group `user` that a profile decides.

    Args:
        profile: The row of `user_profiles` known at the post, or None if there is none.
        event_ts: When the post was made, time-zone aware.

    Returns:
        Values as the feature table describes them; None where the profile does not say. A location is stated by
        text that is not blank, or by a vector that is not all zero; a profile with neither states none.
    """
    known = profile or {}
    first, offset, photos = (known.get(name) for name in ("photo_first_at", "timezone_offset_minutes", "photo_count"))
    pro, description = known.get("is_pro"), known.get("description")
    in_text = re.search(NOT_SPACE, known.get("location") or "") is not None
    in_vector = any(value != 0 for value in known.get("location_vector") or ())
    return {
        "user_photo_count": None if photos is None else float(photos),
        "user_account_age_days": None if first is None else (_micros(event_ts) - _micros(first)) / MICROS_PER_DAY,
        "user_is_pro": None if pro is None else float(pro),
        "user_timezone_offset_hours": None if offset is None else offset / 60,
        "user_description_char_count": None if description is None else float(len(description)),
        "user_has_location": None if profile is None else float(in_text or in_vector),
    }


def post_columns(profile: str) -> dict[str, Column]:
    """Return every feature of this module from the columns of `posts` and a struct of `user_profiles`.

    Args:
        profile: The struct's column.
    """
    return {
        **title_columns(),
        **tag_columns(),
        **time_columns(),
        **place_columns(),
        **user_columns(profile),
        "user_has_alias": F.col("path_alias").isNotNull().cast("double"),
    }


def title_columns(title: str = "title") -> dict[str, Column]:
    """Return `title_statistics` of a string column as expressions."""
    characters, letters = F.length(title), _count(title, r"\p{L}")
    return {
        "title_char_count": characters.cast("double"),
        "title_word_count": _count(title, WORD),
        "title_digit_share": _share(_count(title, r"\p{Nd}"), characters),
        "title_upper_share": _share(_count(title, r"\p{Lu}"), letters),
        "title_non_ascii_share": _share(_count(title, NON_ASCII), characters),
        "title_hashtag_count": _count(title, HASHTAG),
        "title_has_link": F.col(title).rlike(LINK).cast("double"),
    }


def tag_columns(tags: str = "tags") -> dict[str, Column]:
    """Return `tag_statistics` of a string column as expressions."""
    words = F.filter(F.split(F.lower(tags), f"[{WHITE_SPACE}]+"), lambda word: word != "")
    return {
        "tag_count": _count(tags, WORD),
        "tag_char_count": _count(tags, NOT_SPACE),
        "tag_buckets": F.transform(words, lambda word: F.crc32(word) % BUCKETS),
    }


def time_columns(event_ts: str = "event_ts") -> dict[str, Column]:
    """Return `time_parts` of a timestamp column as expressions.

    They count from the epoch, because `year(event_ts)` and its kin answer in the session's time zone.
    """
    micros = F.unix_micros(event_ts)
    day, hour = day_and_hour(micros)
    return {
        "event_year": F.year(day).cast("double"),
        "event_month": F.month(day).cast("double"),
        "event_weekday": (F.weekday(day) + 1).cast("double"),
        "event_hour": hour.cast("double"),
        "event_day_of_year": F.dayofyear(day).cast("double"),
        "event_epoch_days": micros / MICROS_PER_DAY,
    }


def day_and_hour(micros: Column) -> tuple[Column, Column]:
    """Return the date and the hour (0..23) of microseconds since 1970-01-01, in no session's time zone."""
    # The remainder goes first, so that the division is exact.
    hours = ((micros - F.pmod(micros, F.lit(MICROS_PER_HOUR))) / MICROS_PER_HOUR).cast("bigint")
    hour = F.pmod(hours, F.lit(24))
    return F.date_add(F.lit("1970-01-01").cast("date"), ((hours - hour) / 24).cast("int")), hour


def place_columns() -> dict[str, Column]:
    """Return the columns of the group `place` from the columns of `posts`."""
    return {
        "has_place": (F.col("latitude").isNotNull() & F.col("longitude").isNotNull()).cast("double"),
        "latitude": F.col("latitude"),
        "longitude": F.col("longitude"),
        "geo_accuracy": F.col("geo_accuracy").cast("double"),
    }


def user_columns(profile: str, event_ts: str = "event_ts") -> dict[str, Column]:
    """Return `user_statistics` as expressions.

    Args:
        profile: A struct column of a row of `user_profiles`; null without a profile.
        event_ts: A timestamp column.
    """
    known = F.col(profile)
    age = F.unix_micros(event_ts) - F.unix_micros(known["photo_first_at"])
    in_text = F.coalesce(known["location"].rlike(NOT_SPACE), F.lit(False))
    in_vector = F.coalesce(F.exists(known["location_vector"], lambda value: value != 0), F.lit(False))
    return {
        "user_photo_count": known["photo_count"].cast("double"),
        "user_account_age_days": age / MICROS_PER_DAY,
        "user_is_pro": known["is_pro"].cast("double"),
        "user_timezone_offset_hours": known["timezone_offset_minutes"] / 60,
        "user_description_char_count": F.length(known["description"]).cast("double"),
        "user_has_location": F.when(known.isNotNull(), (in_text | in_vector).cast("double")),
    }


def _micros(moment: datetime) -> int:
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def _count(column: str, pattern: str) -> Column:
    return F.regexp_count(F.col(column), F.lit(pattern)).cast("double")


def _share(part: Column, whole: Column) -> Column:
    return F.when(whole > 0, part / whole).otherwise(0.0)
