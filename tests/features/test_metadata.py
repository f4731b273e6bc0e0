"""Titles, tags, times and profiles as numbers: expectations by hand, and Spark agreeing with the plain functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from pyspark.sql import functions as F

from smp_features.features.metadata import (
    tag_columns,
    tag_statistics,
    time_columns,
    time_parts,
    title_columns,
    title_statistics,
    user_columns,
    user_statistics,
)
from smp_features.lake.specs import USER_PROFILES

SMILE, FAMILY = "\U0001f642", "\U0001f468\u200d\U0001f469"
TITLES = [
    "", " ", "A red Boat", "2015 IMG_0042.JPG", "\u65e5\u672c\u306e\u7a7a #sky #\u7a7a", f"{SMILE}{SMILE} hi", FAMILY,
    "\u00c9t\u00e9 \u00e0 la MER", "a\u00a0b\u2003c\u3000d\u0085e\x1ff", "tab\tline\nend\r\n", "# ## #a b#c #1",
    "see HTTPS://x.org", "www.x", "awww.ful", "xhttp://y", "(http://y)", "\u0663\u0664\u0665 \u2167 \u01c5", "??",
    "\u0130\u0131\u00df\u1e9e",
    "e\u0301", "\ufffd", "\\d+ [x] $1 'q' \"q\" `b`", "\x00nul", "\U0001d400bold \U00010400",
]  # fmt: skip
TIMES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2016, 2, 29, 23, 59, 59, tzinfo=UTC),
    datetime(2016, 12, 31, 12, 0, 0, 123_456, tzinfo=UTC),
    datetime(2015, 3, 1, tzinfo=UTC),
    datetime(2015, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
]


def test_a_title_is_counted_in_code_points():
    stats = title_statistics(f"IMG 07 {SMILE} #fun")
    assert stats == {
        "title_char_count": 13.0, "title_word_count": 4.0, "title_digit_share": 2 / 13, "title_upper_share": 3 / 6,
        "title_non_ascii_share": 1 / 13, "title_hashtag_count": 1.0, "title_has_link": 0.0,
    }  # fmt: skip


def test_an_empty_title_is_all_zero():
    assert set(title_statistics("").values()) == {0.0}


@pytest.mark.parametrize(
    ("title", "links"),
    [("see HTTPS://x.org", 1), ("www.x", 1), ("awww.ful", 0), ("xhttp://y", 0), ("(http://y)", 1), ("http:// y", 0)],
)
def test_a_link_is_a_scheme_or_www_followed_by_something(title, links):
    assert title_statistics(title)["title_has_link"] == links


def test_a_hashtag_is_a_word_that_starts_with_a_hash_and_goes_on():
    assert title_statistics("# ## #a b#c #1")["title_hashtag_count"] == 2


def test_tags_are_counted_without_the_spaces():
    assert tag_statistics("123456789") == {"tag_count": 1.0, "tag_char_count": 9.0, "tag_buckets": [0xCBF43926 % 1024]}
    found = tag_statistics("sea  SUN \u7a7a Sea")
    assert (found["tag_count"], found["tag_char_count"]) == (4.0, 10.0)
    assert len(found["tag_buckets"]) == 4 and found["tag_buckets"][0] == found["tag_buckets"][3]
    assert tag_statistics("") == {"tag_count": 0.0, "tag_char_count": 0.0, "tag_buckets": []}


def test_time_parts_are_those_of_utc():
    parts = time_parts(datetime(2015, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))))
    assert parts == {
        "event_year": 2015.0, "event_month": 3.0, "event_weekday": 6.0, "event_hour": 22.0, "event_day_of_year": 87.0,
        "event_epoch_days": 16522 + 22 / 24,
    }  # fmt: skip


def test_a_profile_becomes_numbers_and_what_it_does_not_say_stays_unknown():
    posted = datetime(2015, 1, 11, 12, tzinfo=UTC)
    known = {
        "photo_count": 12, "photo_first_at": datetime(2015, 1, 1, tzinfo=UTC), "is_pro": True,
        "timezone_offset_minutes": -570, "description": f"hi {SMILE}", "location": " \u00a0",
    }  # fmt: skip
    assert user_statistics(known, posted) == {
        "user_photo_count": 12.0, "user_account_age_days": 10.5, "user_is_pro": 1.0, "user_timezone_offset_hours": -9.5,
        "user_description_char_count": 4.0, "user_has_location": 0.0,
    }  # fmt: skip
    assert set(user_statistics(None, posted).values()) == {None}
    silent = user_statistics({}, posted)
    assert silent.pop("user_has_location") == 0.0 and set(silent.values()) == {None}
    assert user_statistics({"location_vector": [0.0, 0.5]}, posted)["user_has_location"] == 1.0
    assert user_statistics({"location_vector": [0.0, 0.0]}, posted)["user_has_location"] == 0.0


def test_spark_agrees_on_every_title_and_tag(spark):
    rows = spark.createDataFrame([(title,) for title in TITLES], "title string")
    columns = {**title_columns(), **tag_columns("title")}
    found = rows.select(*(column.alias(name) for name, column in columns.items())).collect()
    assert [row.asDict() for row in found] == [title_statistics(t) | tag_statistics(t) for t in TITLES]


def test_spark_agrees_on_every_time_in_any_session_time_zone(spark):
    micros = [(round((t - TIMES[0]) / timedelta(microseconds=1)),) for t in TIMES]
    rows = spark.createDataFrame(micros, "us bigint").select(F.timestamp_micros("us").alias("event_ts"))
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Pacific/Auckland")
    try:
        found = rows.select(*(column.alias(name) for name, column in time_columns().items())).collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    assert [row.asDict() for row in found] == [time_parts(t) for t in TIMES]
    in_pandas = pd.DatetimeIndex(TIMES[:5])
    assert [row.event_day_of_year for row in found[:5]] == list(in_pandas.dayofyear)
    assert [row.event_weekday for row in found[:5]] == list(in_pandas.dayofweek + 1)


def test_spark_agrees_on_every_profile(spark, lakehouse):
    posted = datetime(2015, 1, 11, 12, tzinfo=UTC)
    profiles = [
        {},
        {"photo_count": 0, "is_pro": False, "timezone_offset_minutes": 345, "description": "", "location": ""},
        {"photo_first_at": datetime(2016, 1, 1, 0, 0, 1, tzinfo=UTC), "description": FAMILY, "location": "Wellington"},
        {"location": "\u3000", "location_vector": [1.0]},
        {"location_vector": [0.0, -0.5]},
        {"location_vector": [0.0]},
        {"location_vector": []},
    ]
    names = USER_PROFILES.column_names
    schema = lakehouse.schema("user_profiles")
    listed = [(posted, tuple(profile.get(name) for name in names)) for profile in profiles]
    shape = f"event_ts timestamp, profile {schema.simpleString()}"
    rows = spark.createDataFrame([*listed, (posted, None)], shape)
    found = rows.select(*(column.alias(name) for name, column in user_columns("profile").items())).collect()
    assert [row.asDict() for row in found] == [user_statistics(profile, posted) for profile in [*profiles, None]]
