"""Who decides when an adapter stops is chosen by user, and what it keeps is what it had at its best."""

from __future__ import annotations

import numpy as np
import torch

from smp_features.training.stopping import Best, stopping_rows

USERS = np.repeat(np.arange(40, dtype=np.int64) * 10**15 - 7, 3)
MEMBER = np.stack([np.arange(120) % 4 != 0, np.arange(120) < 60], axis=1)


def test_users_are_held_out_whole_and_by_share_of_the_adapters_own():
    found = stopping_rows(MEMBER, USERS, 0.2, seed=1)
    assert not (found & ~MEMBER).any()
    for number, own in ((0, 40), (1, 20)):
        chosen = set(USERS[found[:, number]])
        assert len(chosen) == own // 5
        assert not chosen & set(USERS[MEMBER[:, number] & ~found[:, number]])


def test_the_choice_depends_on_own_rows_and_seed_only():
    together = stopping_rows(MEMBER, USERS, 0.2, seed=1)
    assert np.array_equal(stopping_rows(MEMBER[:, [1]], USERS, 0.2, seed=1)[:, 0], together[:, 1])
    order = np.random.default_rng(0).permutation(120)
    assert np.array_equal(stopping_rows(MEMBER[order], USERS[order], 0.2, seed=1), together[order])
    assert not np.array_equal(stopping_rows(MEMBER, USERS, 0.2, seed=2), together)


def test_nobody_is_held_out_when_it_is_off_or_too_few_rows_would_be_left():
    assert not stopping_rows(MEMBER, USERS, 0, seed=1).any()
    one_user = np.stack([np.arange(120) < 3], axis=1)
    assert not stopping_rows(one_user, USERS, 0.2, seed=1).any()
    assert stopping_rows(MEMBER, USERS, 1e-6, seed=1).any(axis=0).all()  # one user at least


def test_each_adapter_keeps_its_own_best_and_a_stopped_one_takes_nothing_more():
    weights = {"w": torch.zeros(3, 1)}
    best = Best(weights, np.array([True, True, False]), patience=2)
    for epoch, losses in enumerate([(3, 5), (2, 6), (2.5, 4), (2.2, 3), (1, 9)], start=1):
        weights["w"][:] = epoch
        best.judge(np.array([*losses, np.nan]))
    # The first had its best at 2 and stopped after 4, so the 1 of epoch 5 came too late.
    assert best.epochs.tolist() == [2, 4, 5]
    assert best.weights()["w"].flatten().tolist() == [2, 4, 5]
    assert not best.stopped  # the third has nothing to be judged by, and trains to the end


def test_training_is_over_when_all_have_stopped():
    best = Best({"w": torch.zeros(2, 1)}, np.array([True, True]), patience=1)
    best.judge(np.array([1.0, 1.0]))
    assert not best.stopped
    best.judge(np.array([2.0, 0.5]))
    assert not best.stopped
    best.judge(np.array([0.0, 0.6]))
    assert best.stopped and best.epochs.tolist() == [1, 2]
