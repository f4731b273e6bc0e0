"""The blend: its weights, who sees what, and what it does where content is noise."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.model.blocks import Selection
from smp_features.model.inputs import Inputs
from smp_features.training.regressor import blend, fit_regressor

N = 300
INPUTS = Inputs(("event_hour", "caption_title_similarity"), {}, {}, content=frozenset({"caption_title_similarity"}))
CONFIG = RegressorConfig(members=("lightgbm", "catboost", "metadata"), rounds=60, early_stopping=10, learning_rate=0.1)


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"event_hour": rng.normal(size=N), "caption_title_similarity": rng.normal(size=N)}


def fit(rows, target, config=CONFIG, inputs=INPUTS):
    return fit_regressor(inputs, Selection.all(rows), target, np.arange(N) % 3, config, 1)


def test_blend_finds_the_weights_of_a_known_mixture():
    rng = np.random.default_rng(3)
    one, two, three = rng.normal(6, 2, size=(3, 500))
    assert blend([one, two, three], 0.7 * one + 0.3 * two) == pytest.approx([0.7, 0.3, 0], abs=1e-6)


def test_blend_is_the_best_of_a_fine_grid_and_never_negative():
    rng = np.random.default_rng(4)
    target = rng.normal(6, 2, size=400)
    one, two = target + rng.normal(size=400), target + rng.normal(scale=2, size=400)
    grid = np.linspace(0, 1, 2001)
    errors = [((share * one + (1 - share) * two - target) ** 2).mean() for share in grid]
    found = blend([one, two], target)
    assert found == pytest.approx([grid[np.argmin(errors)], 1 - grid[np.argmin(errors)]], abs=1e-3)
    worse = blend([target, -target], target)
    assert worse == pytest.approx([1, 0], abs=1e-6)


def test_a_single_member_has_all_the_weight(rows):
    target = rows["event_hour"] + 6
    found = fit(rows, target, CONFIG.model_copy(update={"members": ("catboost",)}))
    assert [(member.name, member.weight) for member in found.members] == [("catboost", 1.0)]


def test_the_member_without_content_never_reads_it(rows):
    target = rows["event_hour"] + 6 + np.random.default_rng(1).normal(scale=0.5, size=N)
    found = fit(rows, target, CONFIG.model_copy(update={"members": ("metadata",)}))
    assert found.members[0].booster.names == ("event_hour",)
    changed = rows | {"caption_title_similarity": rows["caption_title_similarity"] * 100}
    assert np.array_equal(found.predict(rows, None, None), found.predict(changed, None, None))


def test_without_content_it_is_not_fitted_twice(rows):
    found = fit(rows, rows["event_hour"] + 6, inputs=Inputs(("event_hour",), {}, {}))
    assert "metadata" not in {member.name for member in found.members}


def test_importance_adds_up_to_one_and_names_the_planted_column(rows):
    target = rows["event_hour"] + 6
    shares = fit(rows, target).importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == "event_hour"


def test_one_inner_fold_may_be_enough(rows):
    found = fit(rows, rows["event_hour"] + 6, CONFIG.model_copy(update={"inner_folds": 1}))
    assert sum(member.weight for member in found.members) == pytest.approx(1)


def test_rows_of_one_fold_are_refused(rows):
    with pytest.raises(StageError, match="nothing to watch"):
        fit_regressor(INPUTS, Selection.all(rows), rows["event_hour"], np.zeros(N, int), CONFIG, 1)


@pytest.mark.parametrize("what", ["equal labels", "constant columns", "columns constant but for one fold"])
def test_where_nothing_can_be_learned_the_mean_label_is_predicted(rows, what):
    target = rows["event_hour"] + 6
    folds = np.arange(N) % 3
    constant = {"event_hour": np.ones(N), "caption_title_similarity": np.full(N, np.nan)}
    if what == "columns constant but for one fold":
        constant["event_hour"] = np.where(folds == 0, rows["event_hour"], 1.0)
    if what == "equal labels":
        constant, target = {}, np.full(N, 6.5)
    given = rows | constant
    config = CONFIG.model_copy(update={"members": ("lightgbm", "catboost", "metadata"), "target_prior_rows": None})
    inputs = Inputs(("event_hour", "caption_title_similarity"), {}, {})
    found = fit_regressor(inputs, Selection.all(given), target, folds, config, 1)
    predicted = found.predict(given, None, None)
    assert np.isfinite(predicted).all() and abs(predicted.mean() - target.mean()) < 1
    if what != "columns constant but for one fold":
        assert found.members == () and predicted == pytest.approx(target.mean())
        assert found.importance() == {}
