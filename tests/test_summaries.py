"""Statistics of the report against independent computations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from smp_features.metrics import Interval
from smp_features.summaries import (
    by_interval,
    calibration,
    interval_label,
    largest_misses,
    share,
    verdict,
)


def test_quartiles_by_interval_equal_numpy_on_each_slice():
    rng = np.random.default_rng(1)
    popularity = rng.uniform(1, 16.5, 800)
    values = np.where(rng.random(800) < 0.1, np.nan, rng.normal(size=800))
    table = by_interval(popularity, values).set_index("lower")
    assert list(table.index) == list(range(1, 14))
    for lower in table.index:
        upper = np.inf if lower == 13 else lower + 1
        inside = values[(popularity >= lower) & (popularity < upper)]
        known = inside[~np.isnan(inside)]
        assert (table.loc[lower, "posts"], table.loc[lower, "n"]) == (len(inside), len(known))
        expected = [np.nanpercentile(inside, q) for q in (25, 50, 75)]
        assert table.loc[lower, ["q1", "median", "q3"]].tolist() == pytest.approx(expected)


def test_an_interval_holds_its_lower_end_and_the_tail_is_one():
    table = by_interval([5.0, 5.99, 6.0, 13.0, 16.2], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert dict(zip(table["interval"], table["n"], strict=True)) == {
        "5–6": 2, "6–7": 1, "7–8": 0, "8–9": 0, "9–10": 0, "10–11": 0, "11–12": 0, "12–13": 0, "≥ 13": 2,
    }  # fmt: skip
    assert table.loc[table["n"] == 0, "median"].isna().all()
    assert interval_label(12) == "12–13"


def test_posts_without_a_label_are_in_no_interval_and_none_at_all_make_no_rows():
    assert by_interval([np.nan, 3.0], [1.0, 2.0])["posts"].tolist() == [1]
    assert by_interval([], []).empty


def test_the_interval_of_a_median_is_that_of_medians_of_resampled_users_posts():
    rng = np.random.default_rng(3)
    users = rng.integers(0, 40, 300)
    values = rng.normal(size=40)[users] + 0.2 * rng.normal(size=300)
    values[:5] = np.nan
    row = by_interval(np.full(300, 6.5), values, users, resamples=2000).iloc[0]
    known = pd.Series(values, index=users).dropna()
    posts_of = [known.loc[[user]].to_numpy() for user in known.index.unique()]
    medians = [np.median(np.concatenate([posts_of[n] for n in rng.integers(0, 40, 40)])) for _ in range(2000)]
    assert (row["n"], row["users"]) == (295, 40)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])), abs=0.06)
    # As if every post were a witness of its own: far too narrow here.
    alone = by_interval(np.full(300, 6.5), values, np.arange(300)).iloc[0]
    assert alone["high"] - alone["low"] < 0.7 * (row["high"] - row["low"])


def test_a_median_of_fewer_than_six_users_has_no_interval():
    popularity, values = [1.5] * 6 + [2.5] * 6, np.arange(12.0)
    table = by_interval(popularity, values, ["a", "b", "c", "d", "e", "f", "a", "b", "c", "d", "e", "e"])
    assert table["users"].tolist() == [6, 5]
    assert np.isfinite(table.loc[0, ["low", "high"]].astype(float)).all()
    assert table.loc[1, ["low", "high"]].isna().all()
    assert by_interval(popularity, values)[["low", "high"]].isna().all(axis=None)


def test_the_interval_of_a_share_is_wilsons_where_every_user_has_one_post():
    flags = np.arange(50) < 7
    found = share(flags, np.arange(50))
    # A sample of n posts has a design effect of n / (n - 1).
    expected = binomtest(7, 50).proportion_ci(method="wilson")
    assert found.value == 0.14
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_posts_of_one_user_that_always_agree_count_once_in_the_interval_of_a_share():
    flags, users = np.repeat(np.arange(60) < 12, 5), np.repeat(np.arange(60), 5)
    expected = binomtest(12, 60).proportion_ci(method="wilson")
    found = share(flags, users)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_a_share_of_none_or_all_still_has_an_interval_and_no_posts_have_none():
    users = np.repeat(np.arange(40), 3)
    none = share(np.zeros(120, bool), users)
    assert (none.low, none.high) == pytest.approx((0, 1.96**2 / (40 + 1.96**2)))
    assert share(np.ones(120, bool), users).low == pytest.approx(1 - none.high)
    assert np.isnan(share([], []).value)


def test_calibration_bins_hold_equally_many_posts_and_cluster_their_interval_by_user():
    rng = np.random.default_rng(2)
    predicted, users = rng.normal(6, 2, 100), np.repeat(np.arange(20), 5)
    actual = predicted + rng.normal(size=20)[users]
    table = calibration(predicted, actual, users, bins=4)
    assert table["n"].tolist() == [25, 25, 25, 25]
    first = pd.DataFrame({"p": predicted, "a": actual, "u": users}).nsmallest(25, "p")
    sums = [(group["a"] - first["a"].mean()).sum() for _, group in first.groupby("u")]
    margin = 1.96 * np.sqrt(sum(s * s for s in sums)) / 25
    row = table.iloc[0]
    assert row["mean_predicted"] == pytest.approx(first["p"].mean())
    assert row["mean_actual"] == pytest.approx(first["a"].mean())
    assert (row["low"], row["high"]) == pytest.approx((first["a"].mean() - margin, first["a"].mean() + margin))


def test_calibration_of_fewer_posts_than_bins_makes_one_bin_each():
    assert calibration([1.0, 2.0], [1.0, 3.0], ["a", "b"])["n"].tolist() == [1, 1]
    assert calibration([], [], []).empty


def test_largest_misses_come_worst_first_and_break_ties_by_pid():
    rows = pd.DataFrame({"pid": ["c", "b", "a"], "predicted": [1.0, 5.0, 3.0], "actual": [3.0, 5.5, 1.0]})
    assert largest_misses(rows, 2)["pid"].tolist() == ["a", "c"]


def _at(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 0.95)


@pytest.mark.parametrize(
    ("src", "mae", "said"),
    [
        (_at(-0.05, -0.01), _at(-0.01, 0.02), "costs score"),
        (_at(-0.05, 0.01), _at(0.01, 0.02), "costs score"),
        (_at(-0.05, 0.01), _at(-0.01, 0.02), "not distinguishable"),
        (_at(0.01, 0.02), _at(-0.01, 0.02), "gains score"),
        (_at(-0.05, -0.01), _at(-0.02, -0.01), "mixed"),
        (_at(float("nan"), float("nan")), _at(-0.01, 0.02), "not distinguishable"),
    ],
)
def test_a_verdict_is_given_only_where_an_interval_excludes_zero(src, mae, said):
    assert verdict(src, mae) == said
