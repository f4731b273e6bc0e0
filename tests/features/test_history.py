"""A user's history: earlier posts and labels known by then, never the post's own; Spark and pandas agree."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from smp_features.catalogue import Catalogue
from smp_features.features.history import HISTORY, Posted, user_history, with_history

START = datetime(2015, 1, 1)


def _day(number: float) -> datetime:
    return START + timedelta(days=number)


def _post(pid: str, day: float, label: float | None = None, known: float | None = None) -> Posted:
    return Posted(pid, _day(day), label, None if known is None else _day(known))


def _values(count, since, known, mean, last) -> dict[str, float | None]:
    return dict(zip(HISTORY, (count, since, known, mean, last), strict=True))


def test_a_first_post_has_no_history():
    alone = _post("a", 1, label=5.0, known=1)
    assert user_history(alone, [alone]) == user_history(alone, []) == _values(0.0, None, 0.0, None, None)


def test_labels_count_from_the_instant_they_are_known():
    posts = [_post("a", 0, 4.0, 10), _post("b", 1.5, 7.0, 9), _post("c", 2), _post("d", 10), _post("e", 9.5)]
    assert user_history(posts[3], posts) == _values(4.0, 0.5, 2.0, 5.5, 7.0)
    assert user_history(posts[4], posts) == _values(3.0, 7.5, 1.0, 7.0, 7.0)
    assert user_history(_post("f", 10 - 1e-9), posts)["history_known_label_count"] == 1.0


def test_posts_of_one_instant_do_not_see_each_other_even_if_their_labels_are_known_at_once():
    posts = [_post("a", 0, 3.0, 0), _post("b", 5, 8.0, 5), _post("c", 5, 9.0, 5)]
    for post in posts[1:]:
        assert user_history(post, posts) == _values(1.0, 5.0, 1.0, 3.0, 3.0)


def test_a_label_that_claims_to_be_older_than_its_post_is_not_seen_before_the_post():
    posts = [_post("early", 3, 8.0, 0), _post("b", 2), _post("c", 4)]
    assert user_history(posts[1], posts)["history_known_label_count"] == 0.0
    assert user_history(posts[2], posts) == _values(2.0, 1.0, 1.0, 8.0, 8.0)


def test_the_last_label_is_the_latest_posts_and_the_largest_pids_at_one_instant():
    posts = [_post("b", 1, 2.0, 9), _post("a", 1, 6.0, 2), _post("z", 0, 4.0, 9.5)]
    assert user_history(_post("p", 9.5), posts)["history_known_label_last"] == 2.0
    assert user_history(_post("p", 8), posts)["history_known_label_last"] == 6.0


def test_the_group_history_is_what_is_computed_here():
    assert Catalogue.of({}).columns_of("history") == HISTORY


@pytest.fixture
def drawn() -> pd.DataFrame:
    """400 posts of 12 users on 40 days, so that many share an instant; a third without label, some known at once."""
    rng = np.random.default_rng(11)
    rows = pd.DataFrame(
        {
            "pid": [f"p{number}" for number in rng.permutation(400)],
            "uid": [f"u{number}" for number in rng.integers(12, size=400)],
            "day": rng.integers(40, size=400).astype(float),
            "popularity": rng.uniform(0, 16, size=400).round(2),
        }
    )
    rows["known"] = rows["day"] + rng.choice([0, 0.5, 3, 30, -2], size=400)
    rows.loc[rng.random(400) < 1 / 3, ["popularity", "known"]] = None
    return rows


def _by_pandas(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = rows.merge(rows, on="uid", suffixes=("", "_other")).query("day_other < day")
    counted = pairs.groupby("pid").agg(posts=("pid_other", "size"), last=("day_other", "max"))
    known = pairs[pairs["known_other"] <= pairs["day"]].sort_values(["day_other", "pid_other"])
    labels = known.groupby("pid")["popularity_other"].agg(["size", "mean", "last"])
    all_posts = rows.set_index("pid")
    found = pd.DataFrame(index=all_posts.index)
    found["history_post_count"] = counted["posts"]
    found["history_days_since_last"] = all_posts["day"] - counted["last"]
    found["history_known_label_count"] = labels["size"]
    found["history_known_label_mean"], found["history_known_label_last"] = labels["mean"], labels["last"]
    return found.fillna({"history_post_count": 0, "history_known_label_count": 0}).astype(float)


def test_many_posts_agree_with_pandas(drawn):
    wanted = _by_pandas(drawn)
    made = {
        row.pid: Posted(row.pid, _day(row.day), *((row.popularity, _day(row.known)) if row.known == row.known else ()))
        for row in drawn.itertuples()
    }
    of_user = drawn.groupby("uid")["pid"].agg(list)
    found = {
        row.pid: user_history(made[row.pid], [made[pid] for pid in of_user[row.uid]]) for row in drawn.itertuples()
    }
    found = pd.DataFrame.from_dict(found, orient="index").astype(float)
    pd.testing.assert_frame_equal(found, wanted.loc[found.index], check_names=False, rtol=1e-12)


def test_spark_agrees_and_loses_or_doubles_no_post(spark, drawn):
    posts = spark.createDataFrame(
        [(row.pid, row.uid, _day(row.day), "kept") for row in drawn.itertuples()],
        "pid string, uid string, event_ts timestamp, title string",
    )
    labelled = drawn.dropna()
    labels = spark.createDataFrame(
        [*((row.pid, row.popularity, _day(row.known)) for row in labelled.itertuples()), ("nobody's", 9.0, _day(0))],
        "pid string, popularity double, known_at timestamp",
    )
    made = with_history(posts, labels)
    assert made.columns == [*posts.columns, *HISTORY]
    found = made.toPandas().set_index("pid")
    assert found.index.is_unique and set(found["title"]) == {"kept"}
    wanted = _by_pandas(drawn)
    pd.testing.assert_frame_equal(found.loc[wanted.index, list(HISTORY)], wanted, check_names=False, rtol=1e-12)
    backwards = with_history(posts.orderBy(F.desc("pid")).repartition(3), labels.orderBy(F.desc("pid")))
    again = backwards.toPandas().set_index("pid")
    pd.testing.assert_frame_equal(again.loc[found.index], found, check_exact=True)
