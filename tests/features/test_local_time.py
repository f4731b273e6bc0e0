"""Local hours and weekdays: summer time by the zone's name, else the offset, and Spark agreeing in any session zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import available_timezones

import pandas as pd
import pytest
from pyspark.sql import functions as F

from smp_features.features.local_time import local_columns, local_parts

SUMMER, WINTER = datetime(2015, 7, 1, 22, 30, tzinfo=UTC), datetime(2015, 1, 1, 22, 30, tzinfo=UTC)
TIMES = [
    SUMMER,
    WINTER,
    datetime(2015, 3, 29, 0, 59, 59, 999_999, tzinfo=UTC),  # the last moment of winter time in Berlin
    datetime(2015, 3, 29, 1, tzinfo=UTC),
    datetime(2015, 12, 31, 23, 59, 59, tzinfo=UTC),
]
NO_ZONES = [
    "Berlin", "Pacific Time (US & Canada)", "12", "-3", "", " ", "UTC+3", "GMT+3", "+01:00", "PST", "JST", "Europe",
    "Europe/", "Europe/Nowhere", "America/Argentina", "Europe/Berlin\n", "Europe/../Berlin", "europe/berlin", "UT1",
    "../etc/passwd", "posix/Europe/Berlin", "Europe/Berlin 2", "Z", "None",
    "localtime",
]  # fmt: skip
ZONES = [
    "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "America/Argentina/Ushuaia", "Etc/GMT+5",
    "US/Pacific", "UTC", "GMT", "CET", "EST", "MST", "HST", "PST8PDT", "EST5EDT", "America/Port-au-Prince",
    "Japan", "Singapore", "GB",
]  # fmt: skip


def _hours(profile, *times) -> list[tuple[float | None, float | None]]:
    return [tuple(local_parts(profile, time).values()) for time in times]


def test_a_zone_name_knows_summer_time_and_outranks_the_offset():
    berlin = {"timezone_name": "Europe/Berlin", "timezone_offset_minutes": -600}
    # 2015-07-01 was a Wednesday, 2015-01-01 a Thursday.
    assert _hours(berlin, SUMMER, WINTER) == [(0.0, 4.0), (23.0, 4.0)]
    assert _hours(berlin, *TIMES[2:4]) == [(1.0, 7.0), (3.0, 7.0)]


@pytest.mark.parametrize("name", [None, *NO_ZONES])
def test_without_a_zone_name_the_offset_is_used_all_year(name):
    assert _hours({"timezone_name": name, "timezone_offset_minutes": 330}, SUMMER, WINTER) == [(4.0, 4.0), (4.0, 5.0)]
    assert _hours({"timezone_name": name, "timezone_offset_minutes": -1380}, WINTER) == [(23.0, 3.0)]


def test_neither_zone_nor_offset_is_unknown():
    assert _hours(None, SUMMER) == _hours({}, SUMMER) == _hours({"timezone_name": "Berlin"}, SUMMER) == [(None, None)]


@pytest.mark.parametrize("name", ZONES)
def test_zones_agree_with_pandas(name):
    local = pd.DatetimeIndex(TIMES).tz_convert(name)
    assert _hours({"timezone_name": name}, *TIMES) == list(zip(local.hour, local.dayofweek + 1, strict=True))


def test_spark_agrees_on_every_zone_and_offset_in_any_session_time_zone(spark):
    # Either database may be the newer one; what only one of them knows is no zone to it.
    shared = available_timezones() & set(spark.sparkContext._jvm.java.time.ZoneId.getAvailableZoneIds())
    assert len(shared) > 400
    wanted = [
        *((name, 345) for name in [None, *NO_ZONES]),
        *((name, None) for name in [*NO_ZONES, *ZONES, *sorted(shared)]),
        *((None, minutes) for minutes in (None, -570, 0, 840, 5999)),
    ]
    profiles = [*(dict(zip(("timezone_name", "timezone_offset_minutes"), row, strict=True)) for row in wanted), None]
    rows = [(round(time.timestamp() * 1e6), p and tuple(p.values())) for p in profiles for time in TIMES]
    shape = "us bigint, profile struct<timezone_name string, timezone_offset_minutes int>"
    table = spark.createDataFrame(rows, shape).withColumn("event_ts", F.timestamp_micros("us"))
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Pacific/Auckland")
    try:
        found = table.select(*(column.alias(name) for name, column in local_columns("profile").items())).collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    expected = [(profile, time, local_parts(profile, time)) for profile in profiles for time in TIMES]
    assert [(p, t, row.asDict()) for (p, t, _), row in zip(expected, found, strict=True)] == expected
