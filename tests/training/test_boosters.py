"""Both libraries behind one face: the same promises for either."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from smp_features.config import RegressorConfig
from smp_features.errors import StageError
from smp_features.model.boosters import KINDS
from smp_features.training.boosters import TRAINERS, Table, unlearnable

CONFIG = RegressorConfig(rounds=200, early_stopping=10, learning_rate=0.1, catboost_learning_rate=0.1)
BOTH = pytest.mark.parametrize("kind", ["lightgbm", "catboost"])


def table(rows: int = 400) -> Table:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 3))
    features[::7, 1] = np.nan
    features[:, 2] = rng.integers(-1, 3, rows)
    target = 2 * features[:, 0] + (features[:, 2] == 1) + rng.normal(scale=0.3, size=rows)
    return Table(features, ("signal", "noise", "code"), frozenset({"code"}), target)


@BOTH
def test_a_saved_booster_predicts_the_same_and_knows_its_columns(kind, tmp_path):
    fitted = TRAINERS[kind].train(table(), 40, CONFIG, 1)
    fitted.save(tmp_path / "booster")
    loaded = KINDS[kind].load((tmp_path / "booster").with_suffix(KINDS[kind].suffix).read_bytes())
    assert loaded.names == ("signal", "noise", "code")
    assert np.array_equal(loaded.predict(table().features, 1), fitted.predict(table().features, 1))


@BOTH
def test_rounds_are_those_with_the_least_error_on_the_watched_rows(kind):
    whole = table()
    watched = np.arange(400) % 4 == 0
    rounds, predicted = TRAINERS[kind].choose_rounds(whole.rows(~watched), whole.rows(watched), CONFIG, 1)
    errors = {}
    for tried in (max(1, rounds // 2), rounds, rounds + 9):
        again = TRAINERS[kind].train(whole.rows(~watched), tried, CONFIG, 1).predict(whole.features[watched], 1)
        errors[tried] = ((again - whole.target[watched]) ** 2).mean()
        if tried == rounds:
            assert np.allclose(again, predicted, atol=1e-9)
    assert min(errors, key=errors.get) == rounds
    assert 1 < rounds < CONFIG.rounds


@BOTH
def test_the_planted_column_gains_most(kind):
    assert np.argmax(TRAINERS[kind].train(table(), 40, CONFIG, 1).gains()) == 0


@BOTH
def test_same_seed_same_booster(kind):
    first, second = (TRAINERS[kind].train(table(), 30, CONFIG, 5).predict(table().features, 1) for _ in range(2))
    assert np.array_equal(first, second)


def degenerate(kind: str, rows: int) -> Table:
    whole = table(rows)
    features, target = whole.features.copy(), whole.target.copy()
    if kind == "equal labels":
        target[:] = 5.0
    if kind == "labels equal in float32":
        target = 1e9 + np.arange(rows) * 1e-3
    if kind == "constant columns":
        features[:] = 1.0
    if kind == "columns equal in float32":
        features[:] = 1e9 + np.arange(rows)[:, None] * 1e-3
    if kind == "missing columns":
        features[:] = np.nan
    return Table(features, whole.names, whole.categories, target)


DEGENERATE = {
    "equal labels": "all labels are equal",
    "labels equal in float32": "all labels are equal",
    "constant columns": "every column has one value in all rows",
    "columns equal in float32": "every column has one value in all rows",
    "missing columns": "every column has one value in all rows",
}


@BOTH
@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("what", DEGENERATE)
def test_a_table_of_which_nothing_can_be_learned_is_told_in_one_line(kind, what, rows):
    given, watched = degenerate(what, rows), table(rows)
    assert unlearnable(given) == DEGENERATE[what]
    for use in (
        lambda: TRAINERS[kind].train(given, 5, CONFIG, 1),
        lambda: TRAINERS[kind].choose_rounds(given, watched, CONFIG, 1),
    ):
        with pytest.raises(StageError, match=f"on {rows} rows: {DEGENERATE[what]}") as raised:
            use()
        assert "\n" not in str(raised.value)


@BOTH
def test_one_row_and_what_only_the_library_refuses_are_one_line_too(kind, monkeypatch):
    one = table(8).rows(np.arange(8) == 0)
    with pytest.raises(StageError, match="there is 1 row"):
        TRAINERS[kind].train(one, 5, CONFIG, 1)
    monkeypatch.setattr("smp_features.training.boosters.unlearnable", lambda _: None)
    with pytest.raises(StageError, match="could not be fitted on 1 rows of 3 columns: ") as raised:
        TRAINERS[kind].train(one, 5, CONFIG, 1)
    assert "\n" not in str(raised.value)


@BOTH
@pytest.mark.parametrize("column", ["a gap", "one other value"])
def test_a_column_that_hardly_varies_is_enough(kind, column):
    features = np.ones((200, 3))
    features[:20, 1] = np.nan if column == "a gap" else 2.0
    some = Table(features, ("a", "b", "code"), frozenset({"code"}), np.where(np.arange(200) < 20, 3.0, 5.0))
    assert unlearnable(some) is None
    assert np.isfinite(TRAINERS[kind].train(some, 20, CONFIG, 1).predict(features, 1)).all()


def test_choosing_rounds_always_says_how_many_threads_predict(monkeypatch):
    # Fits run side by side, and LightGBM would take a number left out as all cores for each of them.
    whole, asked, predict = table(), [], lightgbm.Booster.predict

    def recorded(self, *args, **settings):
        asked.append(settings.get("num_threads"))
        return predict(self, *args, **settings)

    monkeypatch.setattr(lightgbm.Booster, "predict", recorded)
    TRAINERS["lightgbm"].choose_rounds(
        whole.rows(np.arange(400) % 4 > 0), whole.rows(np.arange(400) % 4 == 0), CONFIG, 1
    )
    assert asked == [1]


def test_columns_are_taken_by_name_with_their_categories():
    some = table().columns(["code", "signal"])
    assert np.array_equal(some.features, table().features[:, [2, 0]], equal_nan=True)
    assert some.categories == {"code"}
    assert table().columns(["signal"]).categories == frozenset()
