"""Scores of predictions, and their uncertainty: a bootstrap over users, whose posts stand and fall together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TAIL_FROM = 13
"""Scores from here on share one popularity interval: beyond, the challenge has few posts."""

_CELLS = 20_000_000  # rows times resamples held at once: 160 MB per array


def finite(value: float | bool) -> float | bool | None:
    """Return a number as JSON can hold it: None where it is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def src(actual: Floats, predicted: Floats) -> float:
    """Spearman rank correlation, -1..1; NaN when either side is constant or there are fewer than two rows.

    Example:
        >>> src(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.3, 0.2]))
        0.5
    """
    if len(actual) < 2 or np.ptp(actual) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(spearmanr(actual, predicted).statistic)


def mae(actual: Floats, predicted: Floats) -> float:
    """Mean absolute error, in units of log2(views + 1); NaN without rows.

    Example:
        >>> mae(np.array([1.0, 2.0]), np.array([1.5, 4.0]))
        1.25
    """
    return float(np.abs(predicted - actual).mean()) if len(actual) else float("nan")


def bias(actual: Floats, predicted: Floats) -> float:
    """Mean of predicted minus actual: above zero is over-prediction; NaN without rows."""
    return float((predicted - actual).mean()) if len(actual) else float("nan")


def points(actual: Floats, predicted: Floats) -> dict[str, float]:
    """Return `n`, `src`, `mae` and `bias` of some rows."""
    return {
        "n": len(actual),
        "src": src(actual, predicted),
        "mae": mae(actual, predicted),
        "bias": bias(actual, predicted),
    }


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap percentile interval.

    Attributes:
        value: On all rows.
        low: Lower end.
        high: Upper end.
        level: Share of resamples between the ends, 0..1.
    """

    value: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, float | bool | None]:
        """Return the fields and `excludes_zero`; null stands for what is not finite."""
        return {name: finite(value) for name, value in asdict(self).items()} | {"excludes_zero": self.excludes_zero}


class Bootstrap:
    """Resamples of users, drawn once, so that every model is judged on the same ones.

    Args:
        users: Group of each row, (n,) integers.
        resamples: How many.
        seed: Of the draw.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> actual, users = rng.normal(size=200), np.repeat(np.arange(40), 5)
        >>> scores = Bootstrap(users, resamples=200, seed=1).scores(actual, actual + rng.normal(size=200))
        >>> scores["src"].low < scores["src"].value < scores["src"].high
        True
    """

    def __init__(self, users: Integers, resamples: int, seed: int) -> None:
        self._names, self._user = np.unique(users, return_inverse=True)
        self._resamples = resamples
        self._seed = seed
        self._rows = len(users)

    @property
    def users(self) -> int:
        """Distinct users."""
        return len(self._names)

    def distributions(self, statistics: Mapping[str, Callable[[Floats], Floats]]) -> dict[str, Floats]:
        """Evaluate statistics of weighted rows on every resample.

        Args:
            statistics: Name to a function of weights (resamples, rows) giving (resamples,).

        Returns:
            Name to values, (resamples,) each; NaN where there are not two users.
        """
        if self.users < 2:  # every resample would be the same, and its interval without width
            return {name: np.full(self._resamples, np.nan) for name in statistics}
        rng = np.random.default_rng(self._seed)
        block = max(1, _CELLS // max(self._rows, 1))
        parts: dict[str, list[Floats]] = {name: [] for name in statistics}
        even = np.full(self.users, 1 / self.users)
        for start in range(0, self._resamples, block):
            times = rng.multinomial(self.users, even, size=min(block, self._resamples - start))
            weights = times.astype(np.float64)[:, self._user]
            for name, statistic in statistics.items():
                parts[name].append(statistic(weights))
        return {name: np.concatenate(values) for name, values in parts.items()}

    def scores(self, actual: Floats, predicted: Floats, level: float = 0.95) -> dict[str, Interval]:
        """Return `src`, `mae` and `bias` with their intervals."""
        drawn = self.distributions(
            {
                "src": weighted_src(actual, predicted),
                "mae": weighted_mean(np.abs(predicted - actual)),
                "bias": weighted_mean(predicted - actual),
            }
        )
        values = points(actual, predicted)
        return {name: percentile_interval(values[name], draws, level) for name, draws in drawn.items()}

    def differences(self, actual: Floats, first: Floats, second: Floats, level: float = 0.95) -> dict[str, Interval]:
        """Return the paired differences `src` and `mae` of two models, first minus second.

        Both models are scored on the same resample each time, so what they share cancels.
        """
        src_first, src_second = weighted_src(actual, first), weighted_src(actual, second)
        drawn = self.distributions(
            {
                "src": lambda weights: src_first(weights) - src_second(weights),
                "mae": weighted_mean(np.abs(first - actual) - np.abs(second - actual)),
            }
        )
        values = {
            "src": src(actual, first) - src(actual, second),
            "mae": mae(actual, first) - mae(actual, second),
        }
        return {name: percentile_interval(values[name], draws, level) for name, draws in drawn.items()}


def weighted_mean(values: Floats) -> Callable[[Floats], Floats]:
    """Return the function from weights (resamples, rows) to weighted means of `values` (resamples,)."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def weighted_src(actual: Floats, predicted: Floats) -> Callable[[Floats], Floats]:
    """Return the function from integer weights (resamples, rows) to Spearman correlations (resamples,).

    A row of weight w counts as w equal rows, ties take mid-ranks: the same as `spearmanr` on the rows written out,
    without sorting again for every resample.
    """
    left, right = _Ranker(actual), _Ranker(predicted)

    def statistic(weights: Floats) -> Floats:
        first, second = left(weights), right(weights)
        total = weights.sum(axis=1, keepdims=True)
        first -= (weights * first).sum(axis=1, keepdims=True) / total
        second -= (weights * second).sum(axis=1, keepdims=True) / total
        shared = (weights * first * second).sum(axis=1)
        spread = np.sqrt((weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(shared / spread)

    return statistic


class _Ranker:
    """Mid-ranks of fixed values under changing weights."""

    def __init__(self, values: Floats) -> None:
        self._order = np.argsort(values, kind="stable")
        distinct, self._group = np.unique(values, return_inverse=True)
        ordered = self._group[self._order]
        self._starts = np.searchsorted(ordered, np.arange(len(distinct)))

    def __call__(self, weights: Floats) -> Floats:
        by_group = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        below = np.cumsum(by_group, axis=1) - by_group
        return (below + (by_group + 1) / 2)[:, self._group]


def undefined(level: float = 0.95) -> Interval:
    """Return the interval of what has no value."""
    return Interval(float("nan"), float("nan"), float("nan"), level)


def percentile_interval(value: float, draws: Floats, level: float) -> Interval:
    """Return a value with the percentile interval of its finite draws, (resamples,); NaN ends without any."""
    kept = draws[np.isfinite(draws)]
    if not len(kept) or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"), level)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), level)


def interval_names(actual: Floats) -> Integers:
    """Return the popularity interval of each score: its floor, the tail merged at `TAIL_FROM`, (n,)."""
    return np.minimum(np.floor(actual), TAIL_FROM).astype(np.int64)


def by_interval(actual: Floats, predicted: Floats) -> list[dict[str, float | None]]:
    """Return `low`, `high` (None for the tail), `n`, `mae` and `bias` of each popularity interval with rows."""
    named = interval_names(actual)
    found: list[dict[str, float | None]] = []
    for low in np.unique(named):
        rows = named == low
        scores = points(actual[rows], predicted[rows])
        high = None if low == TAIL_FROM else int(low) + 1
        found.append({"low": int(low), "high": high, "n": scores["n"], "mae": scores["mae"], "bias": scores["bias"]})
    return found
