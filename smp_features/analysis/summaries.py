"""Statistics behind the report's figures: quartiles by popularity interval, calibration, largest misses, verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from smp_features.training.metrics import TAIL_FROM, Interval, interval_names

FEW = 10
"""Quartiles of fewer posts than this are marked: they are hardly more than the posts themselves."""

_NORMAL_95 = 1.96


def interval_label(lower: int) -> str:
    """Return what to call the popularity interval that starts at `lower`: `6–7`, or `≥ 13` for the merged tail."""
    return f"≥ {TAIL_FROM}" if lower >= TAIL_FROM else f"{lower}–{lower + 1}"


def by_interval(popularity: ArrayLike, values: ArrayLike) -> pd.DataFrame:
    """Describe values by popularity interval: unit width, lower end included, tail merged at 13.

    Args:
        popularity: (n,) labels, log2(views + 1); posts whose label is NaN are left out.
        values: (n,) what is described; NaN where a post has none.

    Returns:
        One row per interval from the lowest to the highest that holds a post, empty ones included: `lower` (int),
        `interval` (its label), `posts` (with or without a value), `n` (posts with a value) and the quartiles `q1`,
        `median`, `q3` of those (linear interpolation; NaN where `n` is 0).
    """
    labels, described = np.asarray(popularity, np.float64), np.asarray(values, np.float64)
    labelled = ~np.isnan(labels)
    lowers, described = interval_names(labels[labelled]), described[labelled]
    rows = []
    for lower in range(lowers.min(), lowers.max() + 1) if len(lowers) else ():
        inside = described[lowers == lower]
        known = inside[~np.isnan(inside)]
        quartiles = np.quantile(known, [0.25, 0.5, 0.75]) if len(known) else np.full(3, np.nan)
        rows.append((lower, interval_label(lower), len(inside), len(known), *quartiles))
    return pd.DataFrame(rows, columns=["lower", "interval", "posts", "n", "q1", "median", "q3"])


def calibration(predicted: ArrayLike, actual: ArrayLike, users: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Compare mean predicted and mean actual popularity in bins of equally many posts, ordered by prediction.

    Args:
        predicted: (n,) predictions.
        actual: (n,) labels.
        users: (n,) user of each post; the interval allows for posts of one user resembling each other.
        bins: Most bins; with fewer posts than bins every post is a bin.

    Returns:
        One row per bin: `n`, `mean_predicted`, `mean_actual`, and `low`, `high`: the 95 % interval of the mean actual
        popularity (normal approximation, variance clustered by user).
    """
    guess, truth = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    owners = pd.factorize(np.asarray(users))[0]
    rows = []
    for part in np.array_split(np.argsort(guess, kind="stable"), max(1, min(bins, len(guess)))):
        if not len(part):
            continue
        mean = truth[part].mean()
        off_by_user = np.bincount(owners[part], weights=truth[part] - mean)
        margin = _NORMAL_95 * np.sqrt((off_by_user**2).sum()) / len(part)
        rows.append((len(part), guess[part].mean(), mean, mean - margin, mean + margin))
    return pd.DataFrame(rows, columns=["n", "mean_predicted", "mean_actual", "low", "high"])


def largest_misses(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the rows predicted worst, the worst first; ties by pid.

    Args:
        predictions: With columns `pid`, `predicted` and `actual`.
        count: Most rows.
    """
    miss = (predictions["predicted"] - predictions["actual"]).abs()
    ordered = predictions.assign(miss=miss).sort_values(["miss", "pid"], ascending=[False, True])
    return ordered.head(count).drop(columns="miss")


def verdict(src_change: Interval, mae_change: Interval) -> str:
    """Say in plain words what leaving a feature group out does to the score.

    Args:
        src_change: SRC without the group minus SRC with it; below zero is worse.
        mae_change: MAE without the group minus MAE with it; above zero is worse.

    Returns:
        `costs score` when an interval excludes zero on the worse side and none on the better side, `gains score` the
        other way round, `mixed` when the two disagree, else `not distinguishable`.
    """
    worse = src_change.high < 0 or mae_change.low > 0
    better = src_change.low > 0 or mae_change.high < 0
    if worse and better:
        return "mixed"
    if worse:
        return "costs score"
    return "gains score" if better else "not distinguishable"
