"""The hour and weekday of a post where its user lives: a plain function that says what is meant, and Spark's equal.

A zone name of the IANA database is taken at its word, summer time included. Sources also state names of their own
("Berlin", "Pacific Time (US & Canada)") and opaque codes: those are no zone, nor is a name that the running Java's or
Python's database does not hold, and the fixed offset beside them is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pyspark.sql import Column
from pyspark.sql import functions as F

from smp_features.features.metadata import day_and_hour

ZONE = (
    r"^(?:[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+|[A-Z][a-z]{3,}|GB|NZ|PRC|ROC|ROK"
    r"|UTC|UCT|GMT|WET|CET|MET|EET|EST|MST|HST|EST5EDT|CST6CDT|MST7MDT|PST8PDT)(?![\s\S])"
)
"""The form of an IANA name: Area/City, a country or an old short one. Java would also take offsets, and PST or IST."""

MICROS_PER_MINUTE = 60_000_000


def local_parts(profile: Mapping[str, Any] | None, event_ts: datetime) -> dict[str, float | None]:
    """Return the columns of the group `time` that need the user's zone.

    Args:
        profile: The row of `user_profiles` known at the post, or None if there is none.
        event_ts: When the post was made, time-zone aware.

    Returns:
        `local_hour` (0..23) and `local_weekday` (1 = Monday .. 7), by the profile's zone if its name is one, else by
        its offset; None without either.
    """
    known, utc = profile or {}, event_ts.astimezone(UTC)
    zone, offset = _zone(known.get("timezone_name")), known.get("timezone_offset_minutes")
    if zone is not None:
        local = utc.astimezone(zone)
    elif offset is not None:
        local = utc + timedelta(minutes=offset)
    else:
        return {"local_hour": None, "local_weekday": None}
    return {"local_hour": float(local.hour), "local_weekday": float(local.isoweekday())}


def local_columns(profile: str, event_ts: str = "event_ts") -> dict[str, Column]:
    """Return `local_parts` as expressions, whatever the session's time zone.

    Args:
        profile: A struct column of a row of `user_profiles`; null without a profile.
        event_ts: A timestamp column.
    """
    known = F.col(profile)
    name = known["timezone_name"]
    # Spark raises where it shifts a time into a zone that Java does not know, and gives null where it parses one.
    parsed = F.try_to_timestamp(F.concat(F.lit("2000-01-01 00:00:00 "), name))
    is_zone = name.rlike(ZONE) & parsed.isNotNull()
    in_zone = F.from_utc_timestamp(event_ts, F.when(is_zone, name).otherwise("UTC"))
    at_offset = F.unix_micros(event_ts) + known["timezone_offset_minutes"].cast("bigint") * MICROS_PER_MINUTE
    day, hour = day_and_hour(F.when(is_zone, F.unix_micros(in_zone)).otherwise(at_offset))
    return {"local_hour": hour.cast("double"), "local_weekday": (F.weekday(day) + 1).cast("double")}


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None or re.match(ZONE, name) is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no such zone, or a folder of zones
        return None
