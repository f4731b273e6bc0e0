"""Rows of post_features as arrays."""

from __future__ import annotations

from smp_features.model.inputs import padded


def test_long_lists_of_words_are_cut():
    assert padded([list(range(100))]).shape == (1, 75)
    assert padded([list(range(100))])[0, -1] == 74
