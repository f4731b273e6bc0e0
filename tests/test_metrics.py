"""Scores agree with scipy, and the bootstrap with resamples written out row by row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from smp_features import metrics


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 25, 120)
    actual = np.round(6 + rng.normal(size=120), 1)  # with ties
    return users, actual, np.round(actual + rng.normal(size=120), 1)


def test_scores_are_those_of_scipy(scored):
    _, actual, predicted = scored
    found = metrics.points(actual, predicted)
    assert found["src"] == pytest.approx(spearmanr(actual, predicted).statistic)
    assert found["mae"] == pytest.approx(np.mean([abs(a - p) for a, p in zip(actual, predicted, strict=True)]))
    assert found["bias"] == pytest.approx(predicted.mean() - actual.mean())


def test_weighted_correlation_is_that_of_the_rows_written_out(scored):
    _, actual, predicted = scored
    weights = np.random.default_rng(0).integers(0, 4, (5, len(actual))).astype(float)
    found = metrics.weighted_src(actual, predicted)(weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        expected = spearmanr(np.repeat(actual, row), np.repeat(predicted, row)).statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_constant_predictions_have_no_correlation_and_do_not_fail(scored):
    users, actual, _ = scored
    found = metrics.Bootstrap(users, 100, 1).scores(actual, np.full(len(actual), 6.0))
    assert np.isnan(found["src"].value) and np.isnan(found["src"].low)
    assert found["mae"].low < found["mae"].value < found["mae"].high


@pytest.mark.parametrize("rows", [0, 3])
def test_fewer_than_two_users_have_no_interval(rows):
    found = metrics.Bootstrap(np.zeros(rows, np.int64), 100, 1).scores(np.arange(rows) + 1.0, np.arange(rows) + 1.5)
    assert all(np.isnan(each.low) and np.isnan(each.high) and not each.excludes_zero for each in found.values())


def test_users_are_drawn_whole():
    users = np.repeat(np.arange(20), 5)
    sums = metrics.Bootstrap(users, 200, 1).distributions(
        {"same": lambda w: np.ptp(w.reshape(-1, 20, 5), axis=2).max(1)}
    )
    assert (sums["same"] == 0).all()


def test_interval_of_the_mean_error_has_the_width_that_theory_gives():
    rng = np.random.default_rng(5)
    error = rng.normal(size=2000)
    found = metrics.Bootstrap(np.arange(2000), 2000, 1).scores(np.zeros(2000), error)["bias"]
    expected = 2 * 1.96 * error.std() / np.sqrt(2000)
    assert found.high - found.low == pytest.approx(expected, rel=0.08)


def test_resamples_do_not_depend_on_how_they_are_blocked(scored, monkeypatch):
    users, actual, predicted = scored
    whole = metrics.Bootstrap(users, 150, 1).scores(actual, predicted)
    monkeypatch.setattr(metrics, "_CELLS", 120 * 7)
    assert metrics.Bootstrap(users, 150, 1).scores(actual, predicted) == whole


def test_paired_difference_tells_a_worse_model_from_noise(scored):
    users, actual, predicted = scored
    worse = predicted + np.random.default_rng(1).normal(scale=3, size=len(actual))
    drawn = metrics.Bootstrap(users, 300, 1)
    change = drawn.differences(actual, worse, predicted)
    assert change["src"].value == pytest.approx(metrics.src(actual, worse) - metrics.src(actual, predicted))
    assert change["src"].high < 0 < change["mae"].low
    assert not drawn.differences(actual, predicted + 1e-9, predicted)["src"].excludes_zero


def test_intervals_are_of_unit_width_with_a_merged_tail():
    actual = np.array([1.0, 1.99, 2.0, 12.99, 13.0, 16.5])
    found = metrics.by_interval(actual, actual + 1)
    assert [(each["low"], each["high"], each["n"]) for each in found] == [
        (1, 2, 2),
        (2, 3, 1),
        (12, 13, 1),
        (13, None, 2),
    ]
    assert {each["bias"] for each in found} == {1.0}
