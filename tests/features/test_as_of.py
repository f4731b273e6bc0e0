"""As-of joins: a late profile stays out, an exact tie counts, no post is lost or doubled, no outcome gets in."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from smp_features.config import Config
from smp_features.errors import ConfigError
from smp_features.features.as_of import check_time_rules, with_profiles
from smp_features.lake.schema import Schema

START = datetime(2015, 1, 1)
PROFILE = "uid string, known_at timestamp, origin string, photo_count bigint, external_views bigint, row_hash string"


def _day(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture
def tables(spark):
    def make(posts, profiles):
        return (
            spark.createDataFrame(
                [(pid, uid, _day(day)) for pid, uid, day in posts], "pid string, uid string, event_ts timestamp"
            ),
            spark.createDataFrame(
                [
                    (uid, _day(day), origin, count, None if origin == "user_data" else count, f"{origin}-{count}")
                    for uid, day, origin, count in profiles
                ],
                PROFILE,
            ),
        )

    return make


def _seen(joined, name="user_data"):
    return {row.pid: row[name] and row[name].photo_count for row in joined.collect()}


def test_a_profile_known_after_the_post_stays_out_and_one_of_the_same_instant_counts(tables):
    posts, profiles = tables(
        [("before", "u", 1), ("tie", "u", 2), ("after", "u", 2.5), ("last", "u", 9), ("other", "v", 9)],
        [("u", 2, "user_data", 10), ("u", 3, "user_data", 20)],
    )
    assert _seen(with_profiles(posts, profiles, "strict")) == {
        "before": None, "tie": 10, "after": 10, "last": 20, "other": None,
    }  # fmt: skip


def test_profiles_of_one_instant_are_ordered_whatever_the_order_of_rows(tables):
    posts, profiles = tables([("p", "u", 1)], [("u", 1, "user_data", 5), ("u", 1, "user_data", 7)])
    backwards = profiles.orderBy("row_hash", ascending=False)
    assert (
        _seen(with_profiles(posts, profiles, "strict")) == _seen(with_profiles(posts, backwards, "strict")) == {"p": 7}
    )


def test_many_posts_and_profiles_agree_with_pandas_and_none_is_lost_or_doubled(tables):
    rng = np.random.default_rng(5)
    posts_at = [(f"p{i}", f"u{rng.integers(12)}", int(rng.integers(40))) for i in range(300)]
    known = sorted({(f"u{rng.integers(10)}", int(rng.integers(40))) for _ in range(150)})
    posts, profiles = tables(posts_at, [(uid, day, "user_data", i) for i, (uid, day) in enumerate(known)])
    found = with_profiles(posts, profiles, "strict").collect()
    assert sorted(row.pid for row in found) == sorted(pid for pid, _, _ in posts_at)
    left = pd.DataFrame(posts_at, columns=["pid", "uid", "day"]).sort_values("day", kind="stable")
    right = pd.DataFrame([(u, d, i) for i, (u, d) in enumerate(known)], columns=["uid", "day", "count"]).sort_values(
        "day"
    )
    wanted = pd.merge_asof(left, right, on="day", by="uid")
    assert {row.pid: row.user_data and row.user_data.photo_count for row in found} == {
        row.pid: None if pd.isna(row["count"]) else int(row["count"]) for _, row in wanted.iterrows()
    }


def test_an_external_crawl_is_seen_by_earlier_posts_under_the_challenge_only(tables):
    posts, profiles = tables(
        [("old", "u", 1), ("new", "u", 9), ("stranger", "v", 9)],
        [("u", 1, "user_data", 3), ("u", 5, "external", 100), ("u", 7, "external", 200), ("w", 1, "external", 1)],
    )
    strict = with_profiles(posts, profiles, "strict")
    challenge = with_profiles(posts, profiles, "challenge")
    assert _seen(strict, "external") == {"old": None, "new": 200, "stranger": None}
    assert _seen(challenge, "external") == {"old": 200, "new": 200, "stranger": None}
    assert _seen(strict) == _seen(challenge) == {"old": 3, "new": 3, "stranger": None}


def test_the_catalogue_holds_no_post_outcome_column():
    names = [feature.name for feature in Schema.of(Config()).catalogue.features]
    assert "history_known_label_mean" in names
    check_time_rules(names)


@pytest.mark.parametrize(
    "name",
    [
        *("popularity", "views", "log_views", "Label", "faves_first_day", "predicted_score"),
        *("favorite_count", "viewcount", "impressions_first_hour", "Likes", "mean_comment"),
        *("post_views", "label_mean", "known_label_mean", "history_label_mean", "history_known_label_mean_2"),
    ],
)
def test_post_outcome_columns_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"Post-outcome columns cannot be features: {name}\\."):
        check_time_rules(["title_char_count", name, "external_views"])
