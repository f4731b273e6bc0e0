"""The planted formula, measured on samples far larger than a demo."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from smp_features.demo import formula
from smp_features.demo.formula import CONSISTENT, GIBBERISH, INCONSISTENT
from smp_features.demo.population import INTACT, Posts, draw


@pytest.fixture(scope="module")
def posts() -> Posts:
    return draw(60_000, seed=11)[1]


def test_each_part_has_its_planned_share_of_the_variance(posts: Posts) -> None:
    measured = posts.effects.variance_shares()
    assert measured == pytest.approx(
        {"user": 0.35, "picture": 0.20, "title": 0.12, "time_category": 0.08, "noise": 0.25}, abs=0.015
    )
    assert posts.effects.total().var() == pytest.approx(6.0, abs=0.15)


def test_inconsistent_titles_gain_and_gibberish_titles_lose(posts: Posts) -> None:
    scores = formula.score_of(posts.views)
    mean = {kind: scores[posts.title_kind == kind].mean() for kind in (CONSISTENT, INCONSISTENT, GIBBERISH)}
    assert mean[INCONSISTENT] - mean[CONSISTENT] >= 1.5
    assert mean[GIBBERISH] - mean[CONSISTENT] <= -1.5


def test_scores_look_like_the_challenges(posts: Posts) -> None:
    scores = formula.score_of(posts.views)
    assert scores.min() == 1.0
    assert scores.max() < 18
    assert scores.mean() == pytest.approx(6.6, abs=0.3)
    assert (posts.views == 1).mean() < 0.03


def test_the_expectation_is_unbiased_and_leaves_only_the_planned_noise(posts: Posts) -> None:
    residual = formula.score_of(posts.views) - posts.expectation
    inside = (posts.image_fault == INTACT) & (posts.expectation > 4)
    assert residual[inside].mean() == pytest.approx(0, abs=0.05)
    assert residual[inside].var() == pytest.approx(1.5, abs=0.1)


def test_broken_pictures_are_expected_without_their_picture(posts: Posts) -> None:
    broken = posts.image_fault != INTACT
    assert 0.005 < broken.mean() < 0.015
    assert abs(spearmanr(posts.expectation[broken], posts.effects.picture[broken]).statistic) < 0.15


def test_the_picture_effect_is_told_by_nothing_but_the_picture(posts: Posts) -> None:
    effect = posts.effects.picture
    for other in (posts.pid, posts.user, posts.event_time, posts.event_time % 86400, np.arange(len(posts))):
        assert abs(spearmanr(effect, other).statistic) < 0.02
    for group in (posts.category, posts.shape, posts.colour, posts.title_kind, posts.has_place):
        means = [effect[group == value].mean() for value in np.unique(group)]
        sizes = [np.count_nonzero(group == value) for value in np.unique(group)]
        between = np.average(np.square(np.asarray(means) - effect.mean()), weights=sizes)
        assert between / effect.var() < 0.002


def test_the_parts_do_not_overlap(posts: Posts) -> None:
    parts = [getattr(posts.effects, name) for name in formula.PLANNED_SHARES]
    correlations = np.corrcoef(np.stack(parts)) - np.eye(len(parts))
    assert np.abs(correlations).max() < 0.03


def test_pid_and_row_order_tell_nothing_of_score_or_time(posts: Posts) -> None:
    scores = formula.score_of(posts.views)
    train = slice(0, posts.train)
    for known in (posts.pid[train], np.arange(posts.train)):
        for secret in (scores[train], posts.event_time[train]):
            assert abs(spearmanr(known, secret).statistic) < 0.02
    assert len(np.unique(posts.pid)) == len(posts)


def test_the_user_effect_can_be_read_from_user_data() -> None:
    users, posts = draw(20_000, seed=12)
    visible = formula.standing_effect(users.photo_count[posts.user], users.is_pro[posts.user])
    assert np.corrcoef(visible, posts.effects.user)[0, 1] > 0.94
    assert np.corrcoef(np.log1p(users.photo_count[posts.user]), posts.effects.user)[0, 1] > 0.85
    assert (users.first_date < posts.event_time.min()).all()
