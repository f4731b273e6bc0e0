"""Splits: no user in two folds, gate users reserved for ever, whole instants on one side of a cut in time."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest
from pyspark.sql import functions as F

from smp_features.errors import StageError
from smp_features.splits import (
    GATE_FOLD,
    chronological,
    fold_column,
    gate_users,
    identity_folds,
    later_unseen,
    random_optimistic,
    rolling,
)

USERS = [f"{number}@N0{number % 9}" for number in range(600)]
ROWS = [USERS[(number * number) % 600] for number in range(3000)] + ["\u65e5\u672c", "it's|fold:7"]


def test_no_user_is_in_two_folds_and_every_fold_has_its_share():
    folds = identity_folds(ROWS, 5, seed=7)
    assert max(len(set(folds[[uid == user for uid in ROWS]])) for user in set(ROWS)) == 1
    counts = np.bincount(identity_folds(USERS, 5, seed=7), minlength=5)
    assert counts.sum() == 600 and counts.min() > 80


def test_a_fold_is_the_published_hash_whatever_the_other_rows_are():
    by_hand = int(hashlib.sha256(b"fold:7|70478@N10").hexdigest()[:15], 16) % 5
    assert identity_folds(["70478@N10"], 5, seed=7)[0] == by_hand
    assert identity_folds(["a", "70478@N10", "b"], 5, seed=7)[1] == by_hand


def test_another_seed_gives_other_folds_and_the_same_gate():
    assert (identity_folds(USERS, 5, 7) != identity_folds(USERS, 5, 8)).mean() > 0.6
    share = gate_users(USERS, 0.1).mean()
    assert 0.05 < share < 0.15


def test_a_larger_gate_only_adds_users():
    small, large = gate_users(USERS, 0.1), gate_users(USERS, 0.3)
    assert not (small & ~large).any() and large.sum() > small.sum()
    assert not gate_users(USERS, 0.0).any()


def test_spark_gives_the_same_folds_and_gate(spark):
    rows = spark.createDataFrame([(uid,) for uid in ROWS], "uid string")
    for seed, gate_share in ((7, 0.1), (-3, 0.0)):
        found = [row.fold for row in rows.select(fold_column("uid", 5, seed, gate_share).alias("fold")).collect()]
        wanted = np.where(gate_users(ROWS, gate_share), GATE_FOLD, identity_folds(ROWS, 5, seed))
        assert found == wanted.tolist()
    assert rows.select(fold_column("uid", 5, 7, 0.1).alias("fold")).agg(F.min("fold")).head()[0] == GATE_FOLD


def test_the_latest_rows_are_held_out_and_one_instant_is_never_cut():
    times = [3, 1, 2, 5, 5, 5, 4, 1, 2, 3]
    split = chronological(times, ["u"] * 10)
    assert [t for t, held in zip(times, split.held_out, strict=True) if held] == [5, 5, 5]
    assert (split.train == ~split.held_out).all()
    assert chronological(np.array(times, "datetime64[D]"), ["u"] * 10).held_out.tolist() == split.held_out.tolist()


def test_of_two_equally_close_cuts_the_later_one_is_taken():
    assert chronological([1, 1, 1, 1, 1, 1, 2, 3, 3, 3], ["u"] * 10, share=0.35).held_out.sum() == 3


def test_one_instant_cannot_be_split_by_time():
    with pytest.raises(StageError, match="at least two instants"):
        chronological([4, 4, 4], ["a", "b", "c"])


def test_seen_says_whether_the_user_has_rows_to_train_on():
    split = chronological([1, 2, 3, 4, 5], ["a", "b", "a", "b", "c"], share=0.4)
    assert split.held_out.tolist() == [False, False, False, True, True]
    assert split.seen.tolist() == [True, True, True, True, False]


def test_later_unseen_drops_training_users_until_most_held_out_rows_are_of_unseen_users():
    times = np.arange(len(ROWS))
    plain = chronological(times, ROWS)
    assert (plain.held_out & ~plain.seen).sum() / plain.held_out.sum() < 0.1
    split = later_unseen(times, ROWS, seed=7)
    share = (split.held_out & ~split.seen).sum() / split.held_out.sum()
    assert 0.64 <= share < 0.67
    assert (split.held_out == plain.held_out).all()
    assert not (split.train & ~plain.train).any() and split.train.any()
    users = np.array(ROWS, dtype=object)
    assert not set(users[plain.train & ~split.train]) & set(users[split.train])
    assert (later_unseen(times, ROWS, seed=7).train == split.train).all()
    assert (later_unseen(times, ROWS, seed=8).train != split.train).any()


def test_later_unseen_drops_nobody_where_enough_users_are_new():
    times, uids = [1, 2, 3, 4, 5], ["a", "b", "c", "d", "e"]
    assert later_unseen(times, uids, seed=1).train.tolist() == [True] * 4 + [False]


def test_random_optimistic_depends_on_the_post_and_the_seed_alone():
    pids = [str(number) for number in range(2000)]
    split = random_optimistic(pids, ["u"] * 2000, seed=7)
    assert 0.17 < split.held_out.mean() < 0.23 and (split.train == ~split.held_out).all()
    assert (random_optimistic(pids[::-1], ["u"] * 2000, seed=7).held_out[::-1] == split.held_out).all()
    assert (random_optimistic(pids, ["u"] * 2000, seed=8).held_out != split.held_out).any()


def test_rolling_holds_out_each_of_the_last_years_and_trains_on_all_before():
    moments = [datetime(year, month, 1, tzinfo=UTC) for year in (2011, 2013, 2014, 2015) for month in (1, 7)]
    moments += [datetime(2014, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2015, 1, 1, tzinfo=UTC)]
    years = np.array([moment.year for moment in moments])
    found = rolling(np.array([moment.timestamp() for moment in moments]), ["a", "b"] * 5)
    assert list(found) == [2013, 2014, 2015]
    for year, split in found.items():
        assert (split.held_out == (years == year)).all() and (split.train == (years < year)).all()


def test_rolling_over_too_few_years_is_refused():
    times = np.array([datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2013, 2014, 2015)])
    with pytest.raises(StageError, match="needs rows of 4, and there are 3"):
        rolling(times, ["a", "b", "c"])
