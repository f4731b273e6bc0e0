"""Rank correlations and adjusted effects against regressions with every dummy written out, and against simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from smp_features.associations import (
    ADJUSTED,
    OVERALL,
    WITHIN,
    adjusted_effects,
    context_columns,
    rank_correlations,
    seen_through,
)
from smp_features.metrics import Bootstrap

CATEGORIES = ("Animal", "Food", "Urban")


def _context(rng: np.random.Generator, posts: int, users: int) -> pd.DataFrame:
    days = rng.uniform(16_495, 16_982, posts)
    return pd.DataFrame(
        {
            "uid": [f"u{n}" for n in rng.integers(0, users, posts)],
            "category": rng.choice(CATEGORIES, posts),
            "event_epoch_days": days,
            "event_weekday": np.floor(days + 3) % 7 + 1,
        }
    )


def _posts(seed: int = 1, posts: int = 400, users: int = 150) -> pd.DataFrame:
    """Posts whose popularity and measure share a user effect, an hour and a category, and little else."""
    rng = np.random.default_rng(seed)
    frame = _context(rng, posts, users)
    user = frame["uid"].map(dict(zip(frame["uid"].unique(), rng.normal(0, 2, users), strict=False)))
    hour = np.cos(2 * np.pi * frame["event_epoch_days"])
    food = (frame["category"] == "Food").astype(float)
    frame["similarity"] = user + hour + food + rng.normal(size=posts)
    frame["popularity"] = 6 + user + hour + food - 0.3 * frame["similarity"] + rng.normal(size=posts)
    frame.loc[:9, "similarity"] = np.nan
    frame.loc[10:14, "popularity"] = np.nan
    return frame


def _dummies(frame: pd.DataFrame) -> np.ndarray:
    """Users, trend, waves, weekdays and categories, written out one by one."""
    days = frame["event_epoch_days"].to_numpy()
    scaled = (days - days.mean()) / days.std()
    columns = [(frame["uid"] == uid).to_numpy(float) for uid in frame["uid"].unique()]
    columns += [scaled**power for power in (1, 2, 3)]
    columns += [wave(2 * np.pi * turns * days) for turns in (1, 2) for wave in (np.cos, np.sin)]
    columns += [(frame["event_weekday"] == day).to_numpy(float) for day in range(1, 8)]
    columns += [(frame["category"] == name).to_numpy(float) for name in CATEGORIES]
    return np.column_stack(columns)


def _residual(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@pytest.fixture(scope="module")
def posts() -> pd.DataFrame:
    return _posts()


@pytest.fixture(scope="module")
def found(posts) -> pd.DataFrame:
    return rank_correlations(posts, ["similarity"], resamples=300).set_index("adjustment")


def test_overall_is_spearmans_correlation_of_the_posts_that_have_both(posts, found):
    known = posts.dropna()
    assert len(known) == 385
    assert found.loc[OVERALL, "correlation"] == pytest.approx(spearmanr(known["similarity"], known["popularity"])[0])
    assert found.loc[OVERALL, ["n", "users", "single"]].tolist() == [385, known["uid"].nunique(), 0]


def _ranked(posts: pd.DataFrame) -> pd.DataFrame:
    """Ranks among all posts that have both, of the users with several of them."""
    known = posts.dropna()
    ranked = known.assign(**{name: rankdata(known[name]) for name in ("similarity", "popularity")})
    return ranked[ranked.groupby("uid")["uid"].transform("size") > 1]


def test_within_users_is_the_correlation_of_ranks_less_their_users_mean(posts, found):
    ranked = _ranked(posts)
    less = ranked[["similarity", "popularity"]] - ranked.groupby("uid")[["similarity", "popularity"]].transform("mean")
    assert found.loc[WITHIN, "correlation"] == pytest.approx(pearsonr(less["similarity"], less["popularity"])[0])
    assert found.loc[WITHIN, ["n", "users", "single"]].tolist() == [
        len(ranked), ranked["uid"].nunique(), 385 - len(ranked),
    ]  # fmt: skip
    assert found.loc[WITHIN, "single"] > 0


def test_adjusted_is_the_correlation_of_what_user_time_and_category_leave_of_the_ranks(posts, found):
    ranked = _ranked(posts)
    design = _dummies(ranked)
    left = [_residual(design, ranked[name].to_numpy(float)) for name in ("similarity", "popularity")]
    assert found.loc[ADJUSTED, "correlation"] == pytest.approx(pearsonr(*left)[0])
    # What they share hides the planted sign until it is taken out.
    assert found.loc[OVERALL, "low"] > 0 > found.loc[ADJUSTED, "high"]


def test_the_overall_interval_is_close_to_one_with_ranks_taken_again_in_every_resample(posts, found):
    known = posts.dropna()
    users = pd.factorize(known["uid"])[0]
    again = Bootstrap(users, 300, 7).scores(known["popularity"].to_numpy(), known["similarity"].to_numpy())["src"]
    row = found.loc[OVERALL]
    assert (row["low"], row["high"]) == pytest.approx((again.low, again.high), abs=0.015)


def test_a_measure_that_does_not_vary_or_does_not_exist_has_no_correlation(posts):
    table = rank_correlations(posts.assign(same=1.0, none=np.nan), ["same", "none"], resamples=50)
    assert table[["correlation", "low", "high"]].isna().all(axis=None)
    assert table.loc[table["measure"] == "none", "n"].tolist() == [0, 0, 0]


def test_effects_are_those_of_a_regression_with_a_dummy_for_every_user(posts):
    rng = np.random.default_rng(2)
    shown = posts[["similarity"]].assign(flag=rng.integers(0, 2, len(posts)).astype(float))
    table = adjusted_effects(posts["popularity"], shown, posts, resamples=100).set_index("effect")
    used = posts.assign(flag=shown["flag"]).dropna()
    used = used[used.groupby("uid")["uid"].transform("size") > 1]
    design = np.column_stack([used[["similarity", "flag"]], _dummies(used)])
    expected = np.linalg.lstsq(design, used["popularity"].to_numpy(), rcond=None)[0][:2]
    assert table["estimate"].tolist() == pytest.approx(expected.tolist())
    assert table["n"].tolist() == [len(used)] * 2
    assert (table["low"] < table["estimate"]).all() and (table["estimate"] < table["high"]).all()


def test_what_never_varies_within_a_user_has_no_effect_beside_the_users():
    posts = _posts()
    pro = posts["uid"].str[-1].astype(float)
    table = adjusted_effects(posts["popularity"], posts[["similarity"]].assign(pro=pro), posts, 50).set_index("effect")
    assert np.isnan(table.loc["pro", "estimate"]) and np.isfinite(table.loc["similarity", "estimate"])


def test_intervals_cover_the_planted_effect_about_as_often_as_they_say():
    covered = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        context = _context(rng, 600, 40)
        flag = rng.random(600) < 0.3
        # To each user the flag is worth something else, so that fifteen posts of one user are not fifteen witnesses.
        user = context["uid"].str[1:].astype(int).to_numpy()
        worth = rng.normal(1.5, 1.5, 40)[user]
        popularity = user % 7 + worth * flag + rng.normal(size=600)
        row = adjusted_effects(popularity, pd.DataFrame({"flag": flag}), context, 200).iloc[0]
        covered.append(row["low"] <= 1.5 <= row["high"])
    assert 0.87 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(("sensitivity", "false_positives"), [(1.0, 0.0), (0.8, 0.1), (0.6, 0.02)])
def test_an_erring_detector_sees_the_share_of_the_effect_that_its_errors_leave(sensitivity, false_positives):
    rng = np.random.default_rng(3)
    posts, share, planted = 40_000, 0.2, 1.65
    context = _context(rng, posts, 12_000)
    truth = rng.random(posts) < share
    detected = np.where(truth, rng.random(posts) < sensitivity, rng.random(posts) < false_positives).astype(float)
    popularity = 6 + planted * truth + context["uid"].str.len() + rng.normal(0, 1.3, posts)
    shown = pd.DataFrame({"detected": detected})
    expected = seen_through(planted * truth, shown, context)["detected"]
    hits, alarms = share * sensitivity, (1 - share) * false_positives
    misses, rest = share * (1 - sensitivity), (1 - share) * (1 - false_positives)
    by_hand = planted * (hits / (hits + alarms) - misses / (misses + rest))
    assert expected == pytest.approx(by_hand, abs=0.03)
    row = adjusted_effects(popularity, shown, context, 300).iloc[0]
    assert row["low"] <= expected <= row["high"]
    assert (row["low"] <= planted <= row["high"]) == (sensitivity == 1.0)


def test_a_detector_of_several_planted_things_sees_their_mixture():
    rng = np.random.default_rng(4)
    context = _context(rng, 20_000, 6_000)
    kind = rng.choice(3, 20_000, p=[0.7, 0.2, 0.1])
    contribution = 1.5 * (kind == 1) - 2.0 * (kind == 2)
    either = pd.DataFrame({"either": (kind > 0).astype(float)})
    expected = seen_through(contribution, either, context)["either"]
    assert expected == pytest.approx((0.2 * 1.5 - 0.1 * 2.0) / 0.3, abs=0.03)


def test_time_and_category_become_columns_without_any_that_repeat_the_mean(posts):
    columns = context_columns(posts)
    assert columns.shape == (len(posts), 3 + 4 + 6 + 2)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(len(posts)), columns])) == 16
    one_moment = posts.head(3).assign(event_epoch_days=16_500.0, event_weekday=2.0, category=None)
    assert context_columns(one_moment).shape == (3, 4)
