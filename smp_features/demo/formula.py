"""The written formula behind a made-up post's popularity, with a fixed share of variance for each part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smp_features.demo.scenes import MAX_BIRDS, PLACE_NAMES
from smp_features.demo.vocabulary import CATEGORY_NAMES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MEAN_SCORE = 6.6  # SMPD's mean is 6.41; a little higher keeps the floor of one view out of reach
TOTAL_VARIANCE = 6.0  # SMPD's standard deviation is 2.47
PLANNED_SHARES = {"user": 0.35, "picture": 0.20, "title": 0.12, "time_category": 0.08, "noise": 0.25}

# User standing, per post, from fields of user_data.
PHOTO_COUNT_LOG_MEAN = 5.5  # of ln(1 + photo_count)
PHOTO_COUNT_LOG_SD = 1.5
PHOTO_COUNT_EFFECT = 1.30 / PHOTO_COUNT_LOG_SD  # per unit of ln(1 + photo_count)
PRO_SHARE = 0.3
PRO_EFFECT = 0.98
AGE_MEAN_YEARS = 5.3
AGE_EFFECT = 0.18  # per year of account age

# What the picture shows and neither title, tags nor category tell.
PLACE_EFFECT = 0.592  # per step in the order of PLACE_NAMES
BIRD_EFFECT = 0.632  # per bird

# What the title does. Shares are of all posts; the rest of the titles fit their picture.
INCONSISTENCY_EFFECT = 1.65
INCONSISTENT_SHARE = 0.16
GIBBERISH_EFFECT = -2.0  # camera file names count as gibberish
GIBBERISH_SHARE = 0.065
CAMERA_SHARE = 0.015
EMPTY_SHARE = 0.015

CATEGORY_EFFECT = 0.155  # per rank
# Ranks in the order of CATEGORY_NAMES, scattered so that an alphabetical code is not the effect.
CATEGORY_RANKS = (3, -2, 5, -4, 1, 4, -5, 0, -1, 2, -3)
HOUR_EFFECT = 0.566  # amplitude of a daily wave
PEAK_HOUR = 20  # UTC
WEEKEND_EFFECT = 0.63

HIDDEN_USER_VARIANCE = 0.35
RESIDUAL_VARIANCE = 1.15

YEAR_SECONDS = 365.25 * 86400
CONSISTENT, INCONSISTENT, GIBBERISH, CAMERA, EMPTY = range(5)


@dataclass(frozen=True)
class Effects:
    """The parts of each post's latent score, arrays of shape (posts,), float64, in units of log2(views + 1)."""

    user: Floats
    picture: Floats
    title: Floats
    time_category: Floats
    noise: Floats

    def total(self) -> Floats:
        """Return the latent score before views are rounded to an integer."""
        return MEAN_SCORE + self.user + self.picture + self.title + self.time_category + self.noise

    def variance_shares(self) -> dict[str, float]:
        """Return each part's variance over the variance of the total, measured on these posts."""
        whole = float(np.var(self.total()))
        return {name: float(np.var(getattr(self, name))) / whole for name in PLANNED_SHARES}


def age_effect(account_age_years: Floats) -> Floats:
    """Return what an account's age at the time of the post is worth."""
    return AGE_EFFECT * (account_age_years - AGE_MEAN_YEARS)


def standing_effect(photo_count: Integers, is_pro: Integers) -> Floats:
    """Return what the user's photo count and pro flag are worth; account age is apart, since it may be hidden."""
    return PHOTO_COUNT_EFFECT * (np.log1p(photo_count) - PHOTO_COUNT_LOG_MEAN) + PRO_EFFECT * (is_pro - PRO_SHARE)


def picture_effect(place: Integers, birds: Integers) -> Floats:
    """Return what the place (index into ``PLACE_NAMES``) and the number of birds are worth."""
    return PLACE_EFFECT * (place - (len(PLACE_NAMES) - 1) / 2) + BIRD_EFFECT * (birds - MAX_BIRDS / 2)


def title_effect(title_kind: Integers) -> Floats:
    """Return what the kind of title is worth, fitting titles being zero."""
    worth = np.zeros(5)
    worth[INCONSISTENT] = INCONSISTENCY_EFFECT
    worth[[GIBBERISH, CAMERA]] = GIBBERISH_EFFECT
    return worth[title_kind]


def expected_title_effect_without_picture(title_kind: Integers) -> Floats:
    """Return what a title is worth on average when no picture shows whether it fits."""
    consistent_share = 1 - INCONSISTENT_SHARE - GIBBERISH_SHARE - CAMERA_SHARE - EMPTY_SHARE
    expected = INCONSISTENCY_EFFECT * INCONSISTENT_SHARE / (INCONSISTENT_SHARE + consistent_share)
    legible = (title_kind == CONSISTENT) | (title_kind == INCONSISTENT)
    return np.where(legible, expected, title_effect(title_kind))


def time_category_effect(event_time: Integers, category: Integers) -> Floats:
    """Return what the UTC hour, the weekend and the category are worth.

    Args:
        event_time: Unix seconds, shape (posts,).
        category: Index into ``CATEGORY_NAMES``, shape (posts,).
    """
    hour = event_time % 86400 / 3600
    weekday = (event_time // 86400 + 3) % 7  # the first of January 1970 was a Thursday
    ranks = np.asarray(CATEGORY_RANKS, dtype=np.float64)
    return (
        HOUR_EFFECT * np.cos(2 * np.pi * (hour - PEAK_HOUR) / 24)
        + WEEKEND_EFFECT * ((weekday >= 5) - 2 / 7)
        + CATEGORY_EFFECT * ranks[category]
    )


def views_of(latent: Floats) -> Integers:
    """Return the integer views of a latent score; one view at least, so that no score is below 1."""
    return np.maximum(1, np.rint(np.exp2(latent) - 1)).astype(np.int64)


def score_of(views: Integers) -> Floats:
    """Return log2(views + 1), rounded to two decimals as the challenge does."""
    return np.round(np.log2(views + 1.0), 2)


def coefficients() -> dict[str, object]:
    """Return every planted effect and share, as they go into truth.json."""
    return {
        "mean_score": MEAN_SCORE,
        "photo_count_per_ln": PHOTO_COUNT_EFFECT,
        "pro": PRO_EFFECT,
        "account_age_per_year": AGE_EFFECT,
        "place": dict(zip(PLACE_NAMES, (PLACE_EFFECT * (np.arange(5) - 2)).round(4).tolist(), strict=True)),
        "per_bird": BIRD_EFFECT,
        "inconsistency": INCONSISTENCY_EFFECT,
        "gibberish": GIBBERISH_EFFECT,
        "category": {
            name: round(CATEGORY_EFFECT * rank, 4) for name, rank in zip(CATEGORY_NAMES, CATEGORY_RANKS, strict=True)
        },
        "hour_amplitude": HOUR_EFFECT,
        "peak_hour_utc": PEAK_HOUR,
        "weekend": WEEKEND_EFFECT,
        "planned_variance_shares": PLANNED_SHARES,
    }
