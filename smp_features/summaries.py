"""Statistics behind the report's figures: quartiles by popularity interval, calibration, largest misses, verdicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from smp_features.metrics import (
    TAIL_FROM,
    Bootstrap,
    Floats,
    Integers,
    Interval,
    interval_names,
    percentile_interval,
)

FEW = 10
"""Quartiles of fewer posts than this are marked: they are hardly more than the posts themselves."""

FEWEST_USERS = 6
"""Below this a median has no interval: even the extremes of five values enclose it fewer than 95 times in 100."""

_NORMAL_95 = 1.96


def interval_label(lower: int) -> str:
    """Return what to call the popularity interval that starts at `lower`: `6–7`, or `≥ 13` for the merged tail."""
    return f"≥ {TAIL_FROM}" if lower >= TAIL_FROM else f"{lower}–{lower + 1}"


def intervals_from(lowers: Integers) -> range:
    """Return the lower ends of all intervals from the lowest to the highest named, empty ones included."""
    return range(int(lowers.min()), int(lowers.max()) + 1) if len(lowers) else range(0)


def by_interval(
    popularity: ArrayLike, values: ArrayLike, users: ArrayLike | None = None, resamples: int = 1000, seed: int = 7
) -> pd.DataFrame:
    """Describe values by popularity interval: unit width, lower end included, tail merged at 13.

    Posts of one user resemble each other, so the interval of a median is a bootstrap over the users that have posts
    with a value there (percentiles); one over posts, or of order statistics, would take each post for a new witness.

    Args:
        popularity: (n,) labels, log2(views + 1); posts whose label is NaN are left out.
        values: (n,) what is described; NaN where a post has none.
        users: (n,) user of each post; None leaves the medians without intervals.
        resamples: Of users.
        seed: Of the resamples.

    Returns:
        One row per interval from the lowest to the highest that holds a post, empty ones included: `lower` (int),
        `interval` (its label), `posts` (with or without a value), `n` (posts with a value), `users` (of those; 0 if not
        given), the quartiles `q1`, `median`, `q3` (linear interpolation; NaN where `n` is 0), and `low`, `high`: the
        pointwise 95 % interval of the median (NaN for fewer than 6 users).
    """
    labels, described = np.asarray(popularity, np.float64), np.asarray(values, np.float64)
    owners = np.full(len(labels), -1) if users is None else pd.factorize(np.asarray(users))[0]
    labelled = ~np.isnan(labels)
    lowers, described, owners = interval_names(labels[labelled]), described[labelled], owners[labelled]
    rows = []
    for lower in intervals_from(lowers):
        inside = lowers == lower
        known = inside & ~np.isnan(described)
        quartiles = np.quantile(described[known], [0.25, 0.5, 0.75]) if known.any() else np.full(3, np.nan)
        names = np.unique(owners[known])
        count = 0 if users is None else len(names)
        ends = np.nan, np.nan
        if count >= FEWEST_USERS:
            drawn = Bootstrap(owners[known], resamples, seed).distributions({"": _weighted_median(described[known])})
            band = percentile_interval(float(quartiles[1]), drawn[""], 0.95)
            ends = band.low, band.high
        rows.append((lower, interval_label(lower), inside.sum(), known.sum(), count, *quartiles, *ends))
    return pd.DataFrame(rows, columns=["lower", "interval", "posts", "n", "users", "q1", "median", "q3", "low", "high"])


def _weighted_median(values: Floats) -> Callable[[Floats], Floats]:
    """Return the function from integer weights (resamples, rows) to medians of the rows written out (resamples,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def statistic(weights: Floats) -> Floats:
        up_to = np.cumsum(weights[:, order], axis=1)
        total = up_to[:, -1:]
        lower, upper = (np.argmax(up_to > middle, axis=1) for middle in ((total - 1) // 2, total // 2))
        return np.asarray((ordered[lower] + ordered[upper]) / 2)

    return statistic


def share(flags: ArrayLike, users: ArrayLike) -> Interval:
    """Return the share of flagged posts with its 95 % interval.

    Wilson's interval, whose ends stay within 0..1, on as many independent posts as carry the same information: their
    number over the design effect of users. Where all posts agree that effect cannot be measured, and the number of
    users stands in.

    Args:
        flags: (n,) bool.
        users: (n,) user of each post.

    Returns:
        NaN without posts.
    """
    flagged = np.asarray(flags, np.float64)
    if not len(flagged):
        return Interval(np.nan, np.nan, np.nan, 0.95)
    owners = pd.factorize(np.asarray(users))[0]
    n, count, part = len(flagged), int(owners.max()) + 1, float(flagged.mean())
    independent = float(count)
    if 0 < part < 1 and count > 1:
        off_by_user = np.bincount(owners, weights=flagged - part)
        clustered = float((off_by_user**2).sum()) * count / (count - 1) / n**2
        independent = min(n, part * (1 - part) / clustered) if clustered else n
    square = _NORMAL_95**2 / independent
    centre = (part + square / 2) / (1 + square)
    margin = np.sqrt(part * (1 - part) * square + square**2 / 4) / (1 + square)
    return Interval(part, max(0.0, float(centre - margin)), min(1.0, float(centre + margin)), 0.95)


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
