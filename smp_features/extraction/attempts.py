"""The order of attempts and resets, which their times keep even where a clock was set back between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pyspark.sql import functions as F

from smp_features.lake.tables import Lakehouse


def next_moment(lakehouse: Lakehouse) -> datetime:
    """Return the time to note the next attempts or reset at: now, or just after the latest noted, whichever is later.

    By a clock that was set back, a reset would forget nothing, and failures after one would never be given up.
    """
    # Asked in microseconds: the times of a session are naive, and in a time zone of its own.
    latest = lakehouse.read("attempts").agg(F.max(F.unix_micros("at"))).head()
    now = datetime.now(UTC)
    if latest is None or latest[0] is None:
        return now
    return max(now, datetime.fromtimestamp(0, UTC) + timedelta(microseconds=latest[0] + 1))
