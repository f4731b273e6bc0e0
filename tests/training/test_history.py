"""Held-out rows' history against one written with plain loops."""

from __future__ import annotations

import numpy as np

from smp_features.training.history import known_labels, users_without_history

DAY = 86_400.0


def brute_force(rows, train, row) -> tuple[float, float, float]:
    known = [
        other
        for other in np.flatnonzero(train)
        if rows["user"][other] == rows["user"][row] and rows["label_known_at"][other] <= rows["event_time"][row]
    ]
    if not known:
        return 0.0, np.nan, np.nan
    labels = rows["popularity"][known]
    return float(len(known)), labels.mean(), labels[np.argmax(rows["event_time"][known])]


def test_it_is_what_a_loop_finds():
    rng = np.random.default_rng(0)
    count = 300
    posted = np.sort(rng.choice(2000, count, replace=False)) * DAY
    rows = {
        "user": rng.integers(0, 120, count),
        "event_time": posted,
        "popularity": rng.normal(6, 2, count),
        "label_known_at": posted + rng.choice([0.0, 30.0, 400.0], count) * DAY,
    }
    train = posted < 1500 * DAY
    where = np.flatnonzero(~train)[::-1]
    found = known_labels(rows, train, where)
    expected = np.array([brute_force(rows, train, row) for row in where])
    assert np.array_equal(found["history_known_label_count"], expected[:, 0])
    assert np.allclose(found["history_known_label_mean"], expected[:, 1], equal_nan=True)
    assert np.allclose(found["history_known_label_last"], expected[:, 2], equal_nan=True)
    assert (expected[:, 0] > 1).any() and (expected[:, 0] == 0).any()


def test_a_label_known_at_that_very_second_counts_and_a_later_one_does_not():
    rows = {
        "user": np.array([1, 1, 1]),
        "event_time": np.array([0.0, 1.0, 10.0]),
        "popularity": np.array([3.0, 9.0, 0.0]),
        "label_known_at": np.array([10.0, 10.5, 99.0]),
    }
    found = known_labels(rows, np.array([True, True, False]), np.array([2]))
    assert found["history_known_label_count"].tolist() == [1.0]
    assert found["history_known_label_mean"].tolist() == [3.0]


def test_users_lose_their_history_whole_and_about_as_many_as_asked():
    users = np.random.default_rng(0).integers(0, 2000, 10_000)
    drawn = users_without_history(users, 0.4, seed=1)
    share = {user: drawn[users == user] for user in np.unique(users)}
    assert all(values.all() or not values.any() for values in share.values())
    assert abs(np.mean([values[0] for values in share.values()]) - 0.4) < 0.04
    assert not users_without_history(users, 0.0, 1).any() and users_without_history(users, 1.0, 1).all()
