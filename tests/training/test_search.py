"""The search for the boosters' settings: what it tries, what it judges by, and that the gate has no part in it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from smp_features.config import AdapterConfig, RegressorConfig, SearchConfig, TrainingConfig, load_config
from smp_features.model.inputs import Inputs
from smp_features.training import nested
from smp_features.training.nested import Nest, cross_fit, identity_divisions
from smp_features.training.search import chosen, ranges_of, search

N, WIDTH, FOLDS = 160, 6, 3
INPUTS = Inputs(("event_hour",), {"image_embedding": WIDTH}, {"category": ["a"]})
SMALL = RegressorConfig(
    members=("lightgbm",), rounds=15, early_stopping=5, inner_folds=1, pca_components=3, adapted_components=2
)


def config(trials: int, seed: int = 7) -> TrainingConfig:
    adapter = AdapterConfig(epochs=3, min_steps=0)
    return TrainingConfig(folds=FOLDS, adapter=adapter, regressor=SMALL, search=SearchConfig(trials=trials), seed=seed)


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, WIDTH)).astype(np.float32)
    hour = rng.normal(size=N)
    return {
        "image_embedding": vectors,
        "has_image_embedding": np.ones(N),
        "event_hour": hour,
        "category": np.zeros(N, dtype=np.int64),
        "popularity": 6 + hour + vectors[:, 0].astype(float) + rng.normal(scale=0.2, size=N),
        "user": np.arange(N),
        "fold": np.arange(N) % (FOLDS + 1) - 1,
    }


def nest_of(rows, training: TrainingConfig) -> Nest:
    chunk = {name: rows[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    return Nest(rows, lambda columns: lambda: iter([chunk]), training)


def searched(rows, training: TrainingConfig):
    folds = identity_divisions(rows["fold"])
    return search(nest_of(rows, training), INPUTS, folds, rows["popularity"], training)


def test_the_same_seed_finds_the_same_and_another_tries_others(rows):
    first, again, other = (searched(rows, config(13, seed)) for seed in (7, 7, 8))  # three of them by TPE's model
    assert first == again
    assert len({repr(trial["parameters"]) for trial in first["trials"]}) == 13
    assert first["trials"][1]["parameters"] != other["trials"][1]["parameters"]


def test_a_trial_is_worth_the_out_of_fold_error_of_its_settings_and_the_configured_ones_come_first(rows):
    training = config(4)
    found = searched(rows, training)
    assert found["trials"][0]["parameters"] == {
        name: getattr(SMALL, name)
        for name in ("feature_fraction", "bagging_fraction", "l2", "learning_rate", "leaves", "min_leaf_rows",
                     "pca_components", "adapted_components")
    }  # fmt: skip
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    trained = rows["fold"] >= 0
    for trial in found["trials"]:
        alone = training.model_copy(update={"regressor": SMALL.model_copy(update=trial["parameters"])})
        predicted, _ = cross_fit(nest_of(rows, alone), INPUTS, identity_divisions(rows["fold"]), N)
        errors = [(p - a) ** 2 for p, a in zip(predicted[trained], rows["popularity"][trained], strict=True)]
        assert trial["value"] == pytest.approx(sum(errors) / len(errors))
    assert found["best"]["value"] == min(trial["value"] for trial in found["trials"])
    best = chosen(found, SMALL)
    assert {name: getattr(best, name) for name in found["best"]["parameters"]} == found["best"]["parameters"]
    assert (best.members, best.rounds) == (SMALL.members, SMALL.rounds)


def test_the_gate_has_no_part_in_it(rows):
    gate = rows["fold"] < 0
    other = rows | {"popularity": np.where(gate, rows["popularity"] + 50, rows["popularity"])}
    assert searched(other, config(3)) == searched(rows, config(3))


def test_adapters_are_trained_once_for_all_trials(rows, monkeypatch):
    calls = []
    whole = nested.train_adapters
    monkeypatch.setattr(nested, "train_adapters", lambda *args: calls.append(1) or whole(*args))
    training, folds, done = config(3), identity_divisions(rows["fold"]), []
    nest = nest_of(rows, training)
    nest.prepare(INPUTS, folds)
    search(nest, INPUTS, folds, rows["popularity"], training, lambda: done.append(1))
    assert (len(calls), len(done)) == (1, 3)


def test_without_trials_nothing_is_searched(rows):
    assert load_config().training.search.trials == 0
    assert searched(rows, config(0)) is None and chosen(None, SMALL) is SMALL


def test_only_what_decides_something_is_searched_and_the_configured_value_is_within_reach():
    plain = Inputs(("event_hour",), {}, {})
    cat = RegressorConfig(members=("catboost",), catboost_depth=12, l2=50)
    found = ranges_of(plain, cat)
    assert set(found) == {"feature_fraction", "bagging_fraction", "l2", "catboost_learning_rate", "catboost_depth"}
    assert (found["catboost_depth"].low, found["catboost_depth"].high, found["l2"].high) == (4, 12, 50)
    seen = ranges_of(INPUTS, RegressorConfig(leaves=2, learning_rate=0.001))
    assert (seen["leaves"].low, seen["leaves"].high) == (2, 127) and seen["learning_rate"].low == 0.001
    assert {"pca_components", "adapted_components", "min_leaf_rows"} <= set(seen) and "catboost_depth" not in seen


def test_optuna_says_nothing(rows, capfd):
    searched(rows, config(2))
    assert "study" not in "".join(capfd.readouterr())
    assert not logging.getLogger("optuna").isEnabledFor(logging.INFO)
