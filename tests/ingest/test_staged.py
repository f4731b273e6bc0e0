"""A row becomes a post by the same rules whether it is a plain value on the driver or a row of a Spark frame."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from smp_features.errors import SourceError
from smp_features.ingest.staged import (
    EXTERNAL_COUNTS,
    POST_SCHEMA,
    PROFILE_FIELDS,
    SOURCE_COLUMNS,
    check_columns,
    complete,
    completed,
    text_key,
)
from smp_features.sources.base import Refusal
from smp_features.sources.smpd import user_additional, user_data

EVENT = 1_425_168_000_000_000
GOOD = {"pid": "1", "uid": "a", "event_ts": EVENT, "popularity": 2.5}

# Each by itself, with what becomes of it: null is a post.
CASES: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "train", None),
    ({"title": "snow", "tags": "a b"}, "train", None),
    ({"title": None}, "train", None),
    ({"pid": None}, "train", "no_pid"),
    ({"pid": "", "uid": ""}, "train", "no_pid"),
    ({"uid": None}, "train", "no_uid"),
    ({"event_ts": None}, "train", "bad_time"),
    ({"event_ts": 86_399_999_999}, "train", "bad_time"),
    ({"event_ts": 86_400_000_000}, "train", None),
    ({"event_ts": 4_102_444_800_000_000}, "train", "bad_time"),
    ({"event_ts": 4_102_444_799_999_999}, "train", None),
    ({"popularity": None}, "train", "bad_label"),
    ({"popularity": float("nan")}, "train", "bad_label"),
    ({"popularity": float("inf")}, "train", "bad_label"),
    ({"popularity": -0.5}, "train", "bad_label"),
    ({"popularity": 64.0}, "train", "bad_label"),
    ({"popularity": 0.0}, "train", None),
    ({"popularity": None}, "test", None),
    ({"popularity": 99.0}, "test", None),
]


@pytest.mark.parametrize(("changes", "split", "reason"), CASES)
def test_a_row_is_a_post_or_is_refused_with_its_reason(changes: dict[str, Any], split: Any, reason: str | None) -> None:
    made = complete(GOOD | changes, split, 7)
    assert (made.reason if isinstance(made, Refusal) else None) == reason
    if isinstance(made, dict):
        assert made["source_row"] == f"{split}:7"
        assert (made["popularity"] is None) == (split == "test")


def test_spark_decides_as_python_does(spark: SparkSession) -> None:
    rows = [GOOD | changes | {"source_row": str(n), "split": split} for n, (changes, split, _) in enumerate(CASES)]
    for number, row in enumerate(rows):
        row["pid"] = row["pid"] and f"{row['pid']}{number}"  # else all but one repeat a pid
    texts = ("pid", "uid", "title", "tags", "source_row", "split")
    schema = "event_ts bigint, popularity double, " + ", ".join(f"{name} string" for name in texts)
    names = ["event_ts", "popularity", *texts]
    frame = spark.createDataFrame([tuple(row.get(name) for name in names) for row in rows], schema)
    by_spark = {row["source_row"]: row.asDict() for row in completed(frame).collect()}
    assert len(by_spark) == len(rows)
    for row in rows:
        expected = complete({k: v for k, v in row.items() if k != "split"}, row["split"], 0)
        found = by_spark[row["source_row"]]
        if isinstance(expected, Refusal):
            assert found["reason"] == expected.reason and found["detail"] == expected.detail
        else:
            assert found["reason"] is None and found["detail"] is None
            for name in ("pid", "uid", "split", "title", "title_key", "tags", "popularity"):
                assert found[name] == expected[name], name


def test_of_a_repeated_pid_the_first_is_kept_in_a_frame_too(spark: SparkSession) -> None:
    rows = [
        ("1", "a", "x", 1.0, "train", "2"),
        ("1", "a", "x", 1.0, "train", "3"),
        ("1", "a", "x", 2.0, "train", "4"),
        ("1", "a", "x", None, "test", "1"),
        ("2", "b", "y", None, "test", "5"),
        ("2", "b", "z", None, "test", "6"),
        ("3", "c", "x", float("nan"), "train", "7"),
        ("3", "c", "x", 1.0, "train", "8"),
        (None, "c", "x", 1.0, "train", "9"),
        (None, "c", "x", 1.0, "train", "10"),
    ]
    frame = spark.createDataFrame(
        [(*row, EVENT) for row in rows],
        "pid string, uid string, title string, popularity double, split string, source_row string, event_ts bigint",
    )
    assert {row["source_row"]: row["reason"] for row in completed(frame).collect()} == {
        "2": None,
        "3": "duplicate_pid",
        "4": "conflicting_pid",
        "1": "duplicate_pid",
        "5": None,
        "6": "conflicting_pid",
        "7": "bad_label",
        "8": None,
        "9": "no_pid",
        "10": "no_pid",
    }


def test_a_time_may_be_a_datetime_with_a_zone_and_none_without() -> None:
    event = datetime(2015, 3, 1, tzinfo=UTC)
    made = complete(GOOD | {"event_ts": event}, "train", 1)
    assert isinstance(made, dict) and made["event_ts"] == EVENT
    naive = complete(GOOD | {"event_ts": event.replace(tzinfo=None)}, "train", 1)
    assert isinstance(naive, Refusal) and naive.reason == "bad_time"


def test_an_id_that_is_a_number_is_the_same_text() -> None:
    made = complete(GOOD | {"pid": 17}, "train", 1)
    assert isinstance(made, dict) and made["pid"] == "17"


def test_a_text_key_is_the_hash_of_the_utf8_bytes() -> None:
    assert text_key("\u2665") == hashlib.sha256(b"\xe2\x99\xa5").hexdigest()


def test_a_misspelt_column_is_refused_with_the_nearest() -> None:
    check_columns(SOURCE_COLUMNS, "posts")
    with pytest.raises(
        SourceError, match=r"posts: posts have a column 'titel' that is not known. Did you mean 'title'"
    ):
        check_columns(["pid", "titel"], "posts")


def test_what_is_staged_follows_from_the_tables() -> None:
    # Written out by hand: what a source may state, before columns were derived.
    assert set(SOURCE_COLUMNS) == {
        "pid", "split", "uid", "event_ts", "title", "tags", "category", "subcategory", "concept", "media_type",
        "path_alias", "is_public", "media_status", "latitude", "longitude", "geo_accuracy", "image_path",
        "source_row", "popularity", "photo_count", "photo_first_at", "photo_first_taken", "is_pro", "can_buy_pro",
        "timezone_offset_minutes", "timezone_name", "description", "description_vector", "location",
        "location_vector",
    }  # fmt: skip
    assert str(POST_SCHEMA.field("event_ts").type) == "timestamp[us, tz=UTC]"
    assert str(POST_SCHEMA.field("location_vector").type) == "list<item: float>"
    assert user_data.PROFILE_FIELDS == PROFILE_FIELDS
    assert user_additional.COUNTS == EXTERNAL_COUNTS
