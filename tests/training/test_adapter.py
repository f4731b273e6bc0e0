"""Adapters trained side by side are those trained alone, in both forms, and serve in numpy what torch computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from smp_features.config import AdapterConfig
from smp_features.errors import StageError
from smp_features.training import adapter
from smp_features.training.adapter import train_adapters
from smp_features.training.stopping import stopping_rows

N, WIDTH = 200, 16
USERS = np.arange(N) // 2
SEED = 1
DIMS = {"image_embedding": WIDTH, "title_embedding": WIDTH}
FORMS = pytest.mark.parametrize("form", ["mixture", "bottleneck"])
LOSSES = pytest.mark.parametrize("loss", ["mse", "huber", "intervals"])


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
    return train_adapters(
        lambda: iter([chunk]), member, np.ones(N, bool), target, USERS, DIMS, {"image_embedding"}, config, SEED
    )


@FORMS
@LOSSES
def test_numpy_serves_what_torch_computes(rows, target, form, loss):
    adapters, _ = fitted(rows, target, np.ones((N, 2), bool), form=form, loss=loss)
    weights = {name: torch.from_numpy(value).double() for name, value in adapters.weights.items()}
    vectors = {name: torch.from_numpy(value).double() for name, value in rows.items()}
    with torch.no_grad():
        vectors_by_torch, output = adapter.forward(weights, adapters.ratios, form, vectors)
    for number in range(2):
        adapted, score = adapters.forward(number, rows)
        if loss == "intervals":
            expected = torch.softmax(output[number], dim=1) @ weights["target.centres"][number]
        else:
            expected = output[number] * weights["target.scale"][number] + weights["target.mean"][number]
        assert score.std() > 0.05
        assert np.allclose(score, expected.numpy(), atol=1e-6)
        for column in DIMS:
            assert np.allclose(adapted[column], vectors_by_torch[column][number].numpy(), atol=1e-6)


@FORMS
@LOSSES
def test_side_by_side_is_the_same_as_alone(rows, target, form, loss):
    member = np.stack([np.arange(N) % 3 != number for number in range(3)], axis=1)
    noisy = target + np.random.default_rng(3).normal(size=N)
    together, curve = fitted(rows, noisy, member, form=form, loss=loss, patience=3)
    assert len(set(curve.kept)) > 1  # they stop at different times
    for number in range(3):
        alone, own = fitted(rows, noisy, member[:, [number]], form=form, loss=loss, patience=3)
        assert own.kept == (curve.kept[number],)
        for name, value in alone.weights.items():
            assert np.allclose(value[0], together.weights[name][number], atol=1e-4), name


@FORMS
@LOSSES
def test_it_learns_what_is_there_to_learn(rows, target, form, loss):
    member = np.stack([np.arange(N) % 4 != 0], axis=1)
    adapters, curve = fitted(rows, target, member, form=form, loss=loss)
    _, score = adapters.forward(0, rows)
    unseen = ~member[:, 0]
    # Telling 14 intervals apart takes more than the 140 rows there are.
    least, most = (0.5, 0.97) if loss == "intervals" else (0.8, 0.6)
    assert np.corrcoef(score[unseen], target[unseen])[0, 1] > least
    assert curve.train[-1] < most * curve.train[0]


def test_labels_of_rows_left_out_change_nothing(rows, target):
    member = np.stack([np.arange(N) % 4 != 0], axis=1)
    changed = np.where(member[:, 0], target, target + 100)
    first, second = (fitted(rows, labels, member)[0] for labels in (target, changed))
    assert all(np.array_equal(value, second.weights[name]) for name, value in first.weights.items())


def test_same_seed_gives_the_same_weights(rows, target):
    first, second = (fitted(rows, target, np.ones((N, 1), bool))[0] for _ in range(2))
    assert all(np.array_equal(value, second.weights[name]) for name, value in first.weights.items())


@LOSSES
def test_the_weights_kept_are_those_with_the_lowest_loss_on_the_users_held_out(rows, target, loss):
    noise = np.random.default_rng(2).normal(size=N) + target
    everyone = np.ones((N, 1), bool)
    adapters, curve = fitted(rows, noise, everyone, loss=loss, min_steps=2000, patience=4)
    assert len(curve.train) == len(curve.stopping) == curve.kept[0] + 4 < 500
    assert np.argmin(curve.stopping) + 1 == curve.kept[0]
    inner = stopping_rows(everyone, USERS, 0.1, SEED)[:, 0]
    _, score = adapters.forward(0, rows)
    if loss == "intervals":
        return
    spread = noise[~inner].std()
    error = np.abs(score - noise)[inner] / spread
    by_hand = error**2 if loss == "mse" else np.where(error < 1, error**2 / 2, error - 0.5)
    assert by_hand.mean() == pytest.approx(min(curve.stopping), rel=1e-4)


def test_who_decides_when_to_stop_is_not_trained_on(rows, target):
    member = np.stack([np.arange(N) % 4 != 0], axis=1)
    inner = stopping_rows(member, USERS, 0.1, SEED)[:, 0]
    changed = np.where(inner, -target, target)
    (first, before), (second, after) = (fitted(rows, labels, member, patience=500) for labels in (target, changed))
    assert before.train == after.train and before.held_out == after.held_out
    assert before.stopping != after.stopping
    assert first.weights["target.mean"] == second.weights["target.mean"]
    assert first.weights["target.mean"][0] == pytest.approx(target[member[:, 0] & ~inner].mean())


def test_without_users_held_out_the_last_weights_are_kept(rows, target):
    adapters, curve = fitted(rows, target, np.ones((N, 1), bool), stopping_share=0)
    assert len(curve.train) == 50 and curve.kept == (50,) and np.isnan(curve.stopping).all()
    assert adapters.weights["target.mean"][0] == pytest.approx(target.mean())


def test_centres_are_mean_labels_of_the_intervals_trained_on(rows, target):
    wide = np.where(np.arange(N) % 50 == 0, 15.0 + np.arange(N) / N, target)
    member = np.stack([np.arange(N) % 4 != 1, np.arange(N) % 4 != 2], axis=1)
    adapters, _ = fitted(rows, wide, member, loss="intervals", stopping_share=0)
    for number, mine in enumerate(member.T):
        groups = pd.Series(wide[mine]).groupby(np.minimum(np.floor(wide[mine]), 13).astype(int))
        means, counts = groups.mean(), groups.size()
        expected = [means.get(low, low + 0.5) for low in range(14)]
        assert np.allclose(adapters.weights["target.centres"][number], expected)
        smoothed = counts.reindex(range(14), fill_value=0) + 1
        assert np.allclose(np.exp(adapters.weights["target.prior"][number]), smoothed / smoothed.sum())


def test_an_untrained_head_over_intervals_gives_about_the_mean_label(rows, target):
    adapters, _ = fitted(rows, target, np.ones((N, 1), bool), loss="intervals", learning_rate=1e-12, stopping_share=0)
    _, score = adapters.forward(0, rows)
    assert np.ptp(score) < 1e-3 and score.mean() == pytest.approx(target.mean(), abs=0.3)


def test_a_missing_vector_has_no_influence(rows, target):
    adapters, _ = fitted(rows, target, np.ones((N, 1), bool))
    absent = rows["has_title_embedding"] == 0
    other = rows | {"title_embedding": np.where(absent[:, None], 5.0, rows["title_embedding"]).astype(np.float32)}
    assert np.array_equal(adapters.forward(0, rows)[1], adapters.forward(0, other)[1])
    assert (adapters.forward(0, rows)[0]["title_embedding"][absent] == 0).all()


def test_branches_take_their_own_ratio():
    config = AdapterConfig(image_ratio=0.25, text_ratio=0.5)
    columns = ("image_embedding", "other_image_embedding", "title_embedding")
    assert adapter.ratios(columns, columns[:2], config) == {
        "image_embedding": 0.25,
        "other_image_embedding": 0.25,
        "title_embedding": 0.5,
    }


def test_small_training_sets_are_passed_over_more_often(rows, target):
    _, curve = fitted(rows, target, np.ones((N, 1), bool), epochs=2, batch=100, min_steps=20, stopping_share=0)
    assert len(curve.train) == 10 and curve.kept == (10,)


def test_an_empty_fold_is_refused(rows, target):
    with pytest.raises(StageError, match="fewer than two rows"):
        fitted(rows, target, np.zeros((N, 1), bool))


def test_a_loss_that_explodes_is_refused(rows, target):
    with pytest.raises(StageError, match="learning_rate"):
        fitted(rows, target * 1e38, np.ones((N, 1), bool))
