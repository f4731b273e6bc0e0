"""Adapters trained side by side are those trained alone, in both forms, and serve in numpy what torch computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smp_features.config import AdapterConfig
from smp_features.errors import StageError
from smp_features.training import adapter
from smp_features.training.adapter import train_adapters

N, WIDTH = 200, 16
DIMS = {"image_embedding": WIDTH, "title_embedding": WIDTH}
FORMS = pytest.mark.parametrize("form", ["mixture", "bottleneck"])


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for column in DIMS:
        there = (rng.random(N) > 0.2).astype(float)
        found[column] = (rng.normal(size=(N, WIDTH)) / 4 * there[:, None]).astype(np.float32)
        found[f"has_{column}"] = there
    return found


@pytest.fixture
def target(rows) -> np.ndarray:
    return 6 + 8 * rows["image_embedding"][:, 0].astype(float)


def fitted(rows, target, member, **settings):
    config = AdapterConfig(**{"batch": 50, "min_steps": 200, "learning_rate": 5e-3, **settings})
    chunk = {"position": np.arange(N), **rows}
    return train_adapters(lambda: iter([chunk]), member, np.ones(N, bool), target, DIMS, config, seed=1)


@FORMS
def test_numpy_serves_what_torch_computes(rows, target, form):
    adapters, _ = fitted(rows, target, np.ones((N, 2), bool), form=form)
    weights = {name: torch.from_numpy(value).double() for name, value in adapters.weights.items()}
    vectors = {name: torch.from_numpy(value).double() for name, value in rows.items()}
    with torch.no_grad():
        vectors_by_torch, standardised = adapter.forward(weights, adapters.ratios, form, vectors)
    for number in range(2):
        adapted, score = adapters.forward(number, rows)
        expected = standardised[number] * weights["target.scale"][number] + weights["target.mean"][number]
        assert np.allclose(score, expected.numpy(), atol=1e-6)
        for column in DIMS:
            assert np.allclose(adapted[column], vectors_by_torch[column][number].numpy(), atol=1e-6)


@FORMS
def test_side_by_side_is_the_same_as_alone(rows, target, form):
    member = np.stack([np.arange(N) % 3 != number for number in range(3)], axis=1)
    together, _ = fitted(rows, target, member, form=form)
    alone, _ = fitted(rows, target, member[:, [1]], form=form)
    for name, value in alone.weights.items():
        assert np.allclose(value[0], together.weights[name][1], atol=1e-4), name


@FORMS
def test_it_learns_what_is_there_to_learn(rows, target, form):
    member = np.stack([np.arange(N) % 4 != 0], axis=1)
    adapters, curve = fitted(rows, target, member, form=form)
    _, score = adapters.forward(0, rows)
    unseen = ~member[:, 0]
    assert np.corrcoef(score[unseen], target[unseen])[0, 1] > 0.8
    assert curve.train[-1] < 0.3 < curve.train[0]


def test_labels_of_rows_left_out_change_nothing(rows, target):
    member = np.stack([np.arange(N) % 4 != 0], axis=1)
    changed = np.where(member[:, 0], target, target + 100)
    first, second = (fitted(rows, labels, member)[0] for labels in (target, changed))
    assert all(np.array_equal(value, second.weights[name]) for name, value in first.weights.items())


def test_same_seed_gives_the_same_weights(rows, target):
    first, second = (fitted(rows, target, np.ones((N, 1), bool))[0] for _ in range(2))
    assert all(np.array_equal(value, second.weights[name]) for name, value in first.weights.items())


def test_a_missing_vector_has_no_influence(rows, target):
    adapters, _ = fitted(rows, target, np.ones((N, 1), bool))
    absent = rows["has_title_embedding"] == 0
    other = rows | {"title_embedding": np.where(absent[:, None], 5.0, rows["title_embedding"]).astype(np.float32)}
    assert np.array_equal(adapters.forward(0, rows)[1], adapters.forward(0, other)[1])
    assert (adapters.forward(0, rows)[0]["title_embedding"][absent] == 0).all()


def test_branches_take_their_own_ratio():
    config = AdapterConfig(image_ratio=0.25, text_ratio=0.5)
    assert adapter.ratios({"image_embedding": 4, "caption_embedding": 4, "title_embedding": 4}, config) == {
        "image_embedding": 0.25,
        "caption_embedding": 0.5,
        "title_embedding": 0.5,
    }


def test_small_training_sets_are_passed_over_more_often(rows, target):
    _, curve = fitted(rows, target, np.ones((N, 1), bool), epochs=2, batch=100, min_steps=20)
    assert len(curve.train) == 10


def test_an_empty_fold_is_refused(rows, target):
    with pytest.raises(StageError, match="fewer than two rows"):
        fitted(rows, target, np.zeros((N, 1), bool))


def test_a_loss_that_explodes_is_refused(rows, target):
    with pytest.raises(StageError, match="learning_rate"):
        fitted(rows, target, np.ones((N, 1), bool), learning_rate=1e30)
