"""Nested folds: what a held-out label says reaches no prediction of its own row, by no path."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.config import AdapterConfig, RegressorConfig, TrainingConfig
from smp_features.errors import StageError
from smp_features.model.inputs import Inputs
from smp_features.splits import random_optimistic
from smp_features.training.nested import Division, Nest, cross_fit, divisions_of, identity_divisions

N, WIDTH, FOLDS = 160, 6, 4
INPUTS = Inputs(("event_hour",), {"image_embedding": WIDTH}, {"category": ["a"]})
CONFIG = TrainingConfig(
    folds=FOLDS,
    adapter=AdapterConfig(min_steps=20),
    regressor=RegressorConfig(rounds=40, early_stopping=10, pca_components=3, adapted_components=2),
)


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, WIDTH)).astype(np.float32)
    return {
        "image_embedding": vectors,
        "has_image_embedding": np.ones(N),
        "event_hour": rng.normal(size=N),
        "category": np.zeros(N, dtype=np.int64),
        "popularity": 6 + vectors[:, 0].astype(float) + rng.normal(scale=0.2, size=N),
        "user": np.arange(N),
        "fold": np.arange(N) % (FOLDS + 1) - 1,  # a fifth is the gate
    }


def nest_of(rows) -> Nest:
    chunk = {name: rows[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    return Nest(rows, lambda columns: lambda: iter([chunk]), CONFIG)


def pooled(rows) -> np.ndarray:
    return cross_fit(nest_of(rows), INPUTS, identity_divisions(rows["fold"]), N)[0]


def test_every_row_but_the_gate_is_predicted_once(rows):
    found = pooled(rows)
    assert np.array_equal(np.isnan(found), rows["fold"] < 0)


def test_held_out_labels_change_nothing_about_their_own_predictions(rows):
    before = pooled(rows)
    fold = rows["fold"] == 2
    after = pooled(rows | {"popularity": np.where(fold, rows["popularity"] + 50, rows["popularity"])})
    assert np.array_equal(before[fold], after[fold])
    others = (rows["fold"] >= 0) & ~fold
    assert not np.array_equal(before[others], after[others])


def test_gate_labels_change_nothing_at_all(rows):
    gate = rows["fold"] < 0
    after = pooled(rows | {"popularity": np.where(gate, rows["popularity"] + 50, rows["popularity"])})
    assert np.array_equal(pooled(rows), after, equal_nan=True)


def test_booster_rows_are_featurised_by_adapters_that_saw_neither_their_label_nor_a_held_out_one(rows):
    nest = nest_of(rows)
    divisions = identity_divisions(rows["fold"])
    nest.prepare(INPUTS, divisions)
    for held_out, division in enumerate(divisions):
        for fold, member in nest._members(division):
            seen = set(rows["fold"][member].tolist())
            assert seen == set(range(FOLDS)) - {fold, held_out}


def test_folds_left_out_in_either_order_share_an_adapter(rows):
    nest = nest_of(rows)
    nest.prepare(INPUTS, identity_divisions(rows["fold"]))
    adapters, _ = nest._banks[("image_embedding",)]
    assert adapters.count == FOLDS * (FOLDS - 1) // 2


def test_the_final_model_carries_one_adapter_per_fold(rows):
    nest = nest_of(rows)
    final = Division("final", rows["fold"] >= 0, rows["fold"] < 0)
    fitted = nest.fit(INPUTS, final)
    model = nest.predictor(INPUTS, final, fitted, {})
    assert model.adapters is not None and model.adapters.count == FOLDS
    gate = {name: values[rows["fold"] < 0] for name, values in rows.items()}
    assert np.allclose(model.predict_rows(gate), fitted.predictions, atol=1e-9)


def test_same_seed_gives_the_same_predictions(rows):
    assert np.array_equal(pooled(rows), pooled(rows), equal_nan=True)


def test_it_finds_the_planted_effect(rows):
    found = pooled(rows)
    there = rows["fold"] >= 0
    assert np.corrcoef(found[there], rows["popularity"][there])[0, 1] > 0.4


def test_without_vectors_no_adapter_is_trained(rows):
    nest = nest_of(rows)
    less = INPUTS.without(["image_embedding"])
    cross_fit(nest, less, identity_divisions(rows["fold"]), N)
    assert nest._banks == {}


def test_a_split_with_an_empty_side_is_refused(rows):
    everyone = {"row_id": np.arange(2), "user": np.arange(2), "event_time": np.zeros(2), "fold": np.arange(2)}
    seed = next(n for n in range(50) if not random_optimistic([0, 1], [0, 1], n).held_out.any())
    with pytest.raises(StageError, match="leaves nothing to hold out in random_optimistic, of 2 rows"):
        divisions_of("random_optimistic", everyone, seed)


def test_one_fold_of_training_rows_is_refused(rows):
    nest = nest_of(rows)
    with pytest.raises(StageError, match="nested validation needs two"):
        nest.fit(INPUTS, Division("fold 0", rows["fold"] == 1, rows["fold"] == 0))
