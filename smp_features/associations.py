"""How measures go with popularity: rank correlations and adjusted effects, with intervals over users.

Both are least squares on products of columns, and both bootstrap users, whose posts stand and fall together. Products
are summed within each user once; a resample of users is then one weighted sum of them, in which every coefficient is
fitted anew. "Adjusted for user" means fixed effects: each column less its user's mean. That holds back everything
that a user's posts share, known or not, which covariates such as the photo count cannot; the price is that users with
one post say nothing, so they are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from numpy.polynomial import legendre
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from smp_features.metrics import Bootstrap, Floats, Integers, percentile_interval

OVERALL, WITHIN, ADJUSTED = "overall", "within users", "adjusted"
"""The three rank correlations: as is; within users; within users and adjusted for time and category."""

ADJUSTMENTS = (OVERALL, WITHIN, ADJUSTED)
CONTEXT = ("uid", "category", "event_epoch_days", "event_weekday")
"""The columns that effects are adjusted for."""

RESAMPLES, SEED, LEVEL = 1000, 7, 0.95

_TREND = 3  # degree of the polynomial in time: sixteen months rise and fall, they do not jump
_HARMONICS = 2  # waves per day
_COLLINEAR = 1e-9  # share of the largest eigenvalue below which a direction counts as none


def rank_correlations(
    frame: pd.DataFrame, measures: Iterable[str], resamples: int = RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """Correlate the ranks of measures with the ranks of popularity.

    Ranks are mid-ranks among all posts that have both. `overall` is Spearman's correlation. `within users` is
    Pearson's correlation of the ranks less their user's mean rank. `adjusted` is the partial correlation: of what a
    regression on user effects, time (a cubic trend, two daily waves, weekdays) and category leaves of both ranks.
    Ranks are not taken again in a resample, which changes intervals of moderate correlations by little.

    Args:
        frame: Posts with `popularity`, the columns of `CONTEXT` and the measures; NaN where a post has none.
        measures: Columns.
        resamples: Of users, behind each 95 % percentile interval.
        seed: Of the resamples.

    Returns:
        One row per measure and adjustment: `measure`, `adjustment`, `correlation`, `low`, `high` (NaN where a side
        does not vary), `n` posts and `users` used, `single` posts left out because their user has no other.
    """
    rows = []
    for measure in measures:
        known = frame[frame[measure].notna() & frame["popularity"].notna()]
        ranks = np.column_stack([_ranks(known[measure]), _ranks(known["popularity"])])
        several = _with_company(known["uid"])
        for adjustment in ADJUSTMENTS:
            kept = np.full(len(known), True) if adjustment == OVERALL else several
            used = known[kept]
            held = _held_fixed(adjustment, used)
            columns = np.column_stack([held, ranks[kept]])
            users = _codes(used["uid"])
            products = _Products(columns if adjustment == OVERALL else _demeaned(columns, users), users)
            values, low, high = products.estimate(_partial_correlation, resamples, seed)
            rows.append(
                (measure, adjustment, values[0], low[0], high[0], len(used), products.users, len(known) - len(used))
            )
    names = ["measure", "adjustment", "correlation", "low", "high", "n", "users", "single"]
    return pd.DataFrame(rows, columns=names)


def adjusted_effects(
    outcome: ArrayLike, regressors: pd.DataFrame, context: pd.DataFrame, resamples: int = RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """Fit one linear regression of an outcome on regressors, adjusted for user, time and category.

    User effects are absorbed, so a regressor that never varies within a user has no effect here (NaN).

    Args:
        outcome: (n,) such as popularity; posts where it is NaN are left out.
        regressors: (n, k) indicators or measures; posts with a NaN among them are left out.
        context: (n, …) with the columns of `CONTEXT`, rows in the same order.
        resamples: Of users, behind each 95 % percentile interval.
        seed: Of the resamples.

    Returns:
        One row per regressor: `effect` (its name), `estimate` in units of the outcome per unit of the regressor, all
        others held fixed, `low`, `high`, `n` posts and `users` used, `single` posts left out because their user has
        no other.
    """
    products, kept, single = _regression(outcome, regressors, context)
    values, low, high = products.estimate(_coefficients(regressors.shape[1]), resamples, seed)
    return pd.DataFrame(
        {
            "effect": list(regressors.columns), "estimate": values, "low": low, "high": high,
            "n": kept, "users": products.users, "single": single,
        }
    )  # fmt: skip


def seen_through(contribution: ArrayLike, detectors: pd.DataFrame, context: pd.DataFrame) -> pd.Series:
    """Return what `adjusted_effects` of detectors should estimate when the effects lie on what they try to detect.

    A detector that errs stands for its truth only in part. Expected is the planted contribution, regressed on the
    detectors in the same design: for one detector D of one truth T with effect b the contribution is b · T, and
    expected b · Cov(T, D) / Var(D), of residuals; for a binary one that is about b · (P(T | D) − P(T | not D)).

    Args:
        contribution: (n,) what the truth that they try to detect adds to each post's outcome.
        detectors: (n, k) what is shown instead; posts with a NaN among them are left out.
        context: (n, …) with the columns of `CONTEXT`, rows in the same order.

    Returns:
        Expected coefficient by detector.
    """
    products, _, _ = _regression(np.asarray(contribution, np.float64), detectors, context)
    return pd.Series(products.value(_coefficients(detectors.shape[1])), index=detectors.columns)


def context_columns(frame: pd.DataFrame) -> Floats:
    """Return time and category as columns of a regression: trend, daily waves, weekdays, categories.

    Args:
        frame: With the columns of `CONTEXT`.

    Returns:
        (n, k) float64; the first weekday and the first category are the baseline.
    """
    days = frame["event_epoch_days"].to_numpy(np.float64)
    span = np.ptp(days) if len(days) else 0.0
    trend = legendre.legvander(2 * (days - days.min()) / span - 1, _TREND)[:, 1:] if span else np.empty((len(days), 0))
    turns = 2 * np.pi * np.outer(days, np.arange(1, _HARMONICS + 1))
    dummies = [
        pd.get_dummies(frame[name].fillna("none").astype(str), drop_first=True, dtype="float64").to_numpy()
        for name in ("event_weekday", "category")
    ]
    return np.column_stack([trend, np.cos(turns), np.sin(turns), *dummies])


def _held_fixed(adjustment: str, frame: pd.DataFrame) -> Floats:
    """Return what a rank correlation holds fixed beside user effects, (n, k): the mean, nothing, or the context."""
    if adjustment == ADJUSTED:
        return context_columns(frame)
    return np.ones((len(frame), 1)) if adjustment == OVERALL else np.empty((len(frame), 0))


def _regression(outcome: ArrayLike, regressors: pd.DataFrame, context: pd.DataFrame) -> tuple[_Products, int, int]:
    """Return the products of controls, regressors and outcome, posts used, and posts of users with no other."""
    target, shown = np.asarray(outcome, np.float64), regressors.to_numpy(np.float64)
    known = np.isfinite(target) & np.isfinite(shown).all(axis=1)
    several = np.zeros(len(known), bool)
    several[known] = _with_company(context["uid"][known])
    used = context[several]
    users = _codes(used["uid"])
    columns = np.column_stack([context_columns(used), shown[several], target[several]])
    return _Products(_demeaned(columns, users), users), int(several.sum()), int(known.sum() - several.sum())


class _Products:
    """Products of columns summed within users.

    Args:
        columns: (n, m): controls, then what is related.
        users: (n,) integers.
    """

    def __init__(self, columns: Floats, users: Integers) -> None:
        order = np.argsort(users, kind="stable")
        starts = np.flatnonzero(np.diff(users[order], prepend=-1))
        self._columns = columns.shape[1]
        self._pairs = np.triu_indices(self._columns)
        placed = columns[order]
        sums = [np.add.reduceat(placed[:, i] * placed[:, j], starts) for i, j in zip(*self._pairs, strict=True)]
        self._sums = np.stack(sums, axis=1) if len(users) else np.zeros((0, len(self._pairs[0])))

    @property
    def users(self) -> int:
        """Distinct users."""
        return len(self._sums)

    def value(self, statistic: Callable[[Floats], Floats]) -> Floats:
        """Return a statistic of all users, (k,)."""
        return statistic(self._weighted(np.ones((1, self.users))))[0]

    def estimate(
        self, statistic: Callable[[Floats], Floats], resamples: int, seed: int
    ) -> tuple[Floats, Floats, Floats]:
        """Return a statistic of all users with both ends of its interval, (k,) each.

        Args:
            statistic: From product matrices (r, m, m) to (r, k).
            resamples: Of users.
            seed: Of the draw.
        """
        values = self.value(statistic)
        if self.users < 2:
            return values, np.full_like(values, np.nan), np.full_like(values, np.nan)
        bootstrap = Bootstrap(np.arange(self.users), resamples, seed)
        drawn = bootstrap.distributions({"": lambda weights: statistic(self._weighted(weights))})[""]
        found = [
            percentile_interval(value, draws, LEVEL) for value, draws in zip(values.tolist(), drawn.T, strict=True)
        ]
        return values, np.array([each.low for each in found]), np.array([each.high for each in found])

    def _weighted(self, weights: Floats) -> Floats:
        """Return the product matrices (r, m, m) under weights of users (r, users)."""
        matrices = np.empty((len(weights), self._columns, self._columns))
        first, second = self._pairs
        matrices[:, first, second] = matrices[:, second, first] = weights @ self._sums
        return matrices


def _partial_correlation(products: Floats) -> Floats:
    """Return the correlation of the last two columns less what the others explain, (r, 1)."""
    left = _less_explained(products, products.shape[-1] - 2)
    spread = left[:, 0, 0] * left[:, 1, 1]
    total = products[:, -2, -2] * products[:, -1, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = left[:, 0, 1] / np.sqrt(np.maximum(spread, 0))
    return np.where(spread > _COLLINEAR * total, np.clip(correlation, -1, 1), np.nan)[:, None]


def _coefficients(regressors: int) -> Callable[[Floats], Floats]:
    """Return the function to the coefficients of the columns before the last, which they explain, (r, regressors)."""

    def statistic(products: Floats) -> Floats:
        left = _less_explained(products, products.shape[-1] - 1 - regressors)
        at = np.arange(products.shape[-1] - 1 - regressors, products.shape[-1] - 1)
        varies = left[:, range(regressors), range(regressors)] > _COLLINEAR * products[:, at, at]
        found = _inverse(left[:, :-1, :-1]) @ left[:, :-1, -1:]
        return np.where(varies, found[..., 0], np.nan)

    return statistic


def _less_explained(products: Floats, controls: int) -> Floats:
    """Return the products of the columns after the controls, less what the controls explain of them."""
    if not controls:
        return products
    across = products[:, :controls, controls:]
    return products[:, controls:, controls:] - across.transpose(0, 2, 1) @ (
        _inverse(products[:, :controls, :controls]) @ across
    )


def _inverse(products: Floats) -> Floats:
    """Return pseudo-inverses: a category that a resample lacks is no reason to fail."""
    scale = np.sqrt(np.einsum("rii->ri", products))
    scale = np.where(scale > 0, scale, 1.0)
    scales = scale[:, :, None] * scale[:, None, :]
    return np.linalg.pinv(products / scales, rcond=_COLLINEAR, hermitian=True) / scales


def _demeaned(columns: Floats, users: Integers) -> Floats:
    """Return columns less their user's mean."""
    if not len(users):
        return columns
    sizes = np.bincount(users)
    means = np.column_stack([np.bincount(users, weights=column) / sizes for column in columns.T])
    return columns - means[users]


def _ranks(values: pd.Series) -> Floats:
    """Return mid-ranks scaled to -0.5..0.5, so that products of large samples keep their digits."""
    return np.asarray(rankdata(values) - (len(values) + 1) / 2, np.float64) / max(len(values), 1)


def _codes(uids: pd.Series) -> Integers:
    return pd.factorize(uids)[0].astype(np.int64)


def _with_company(uids: pd.Series) -> np.ndarray:
    """Return which rows belong to a user with several of them, (n,) bool."""
    return uids.duplicated(keep=False).to_numpy(bool)
